"""The pictures of one set: filters, order, tiles with what is wrong, and the selection's bar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from masuka.datasets.doctor import KINDS
from masuka.datasets.edits import version_of
from masuka.errors import Conflict, InvalidInput
from masuka.requests.text import id_in
from masuka.store.findings import Finding
from masuka.store.pictures import Picture
from masuka.studio import Studio
from masuka.studio.doctor import Report
from masuka.ui import cutting
from masuka.ui.cards import grid, select_all, selection_bar
from masuka.ui.doctor import reason, take_back
from masuka.ui.kit import Outcome, Payload, id_of, ids_of, values_of
from masuka.ui.markup import (
    VERSION_DIGITS,
    address,
    attributes,
    button,
    card,
    chip,
    empty,
    esc,
    go,
    media,
    picture,
)
from masuka.ui.view import View
from masuka.ui.words import plural

PAGE = 40
"""With each a thumbnail, so that a cold page stays below 100 requests."""
GRID = "datasets-grid"
SORTS = (
    ("added", "As added"),
    ("worst", "Most doubtful first"),
    ("sharpness", "Sharpest first"),
    ("exposure", "Darkest first"),
    ("size", "Largest first"),
    ("quality", "Least compressed first"),
    ("face", "Largest face first"),
)
PARTS = (("face", "Crop to the face"), ("half", "Half body"), ("body", "Whole body"), ("smart", "Smart crop"))
SHOWN = ("kept", "doubtful", "aside")


def draw_pictures(studio: Studio, view: View) -> str:
    """Filters and order, then the first page of tiles."""
    if view.dataset is None or view.part:
        return ""
    dataset = studio.datasets.get(view.dataset)
    if not dataset.picture_count:
        return ""
    report = studio.doctor.report(dataset.id)
    only, sort = shown_only(view.only), shown_sort(view.sort)
    page = list(studio.datasets.pictures(dataset.id, limit=PAGE, only=only, sort=sort))
    if view.until:
        page = _up_to(page, view.until, sort)
    head = f'<div class="row between filters">{_filters(report, only)}{_sorts(sort)}</div>' + reason(
        dataset.id, report, only
    )
    if not page:
        return head + card(empty("datasets", _nothing(only), go("Show all kept", only=None)))
    more = _after(dataset.id, page, only, sort) if view.until or len(page) == PAGE else ""
    return head + grid(_tiles(studio, page, only, sort), name=GRID, more=more)


def draw_many(studio: Studio, view: View) -> str:
    """What can be done with the selected pictures."""
    if view.dataset is None or view.part:
        return ""
    crops = "".join(
        button(label, "datasets-crop", look="quiet", selection=GRID, part=part) for part, label in PARTS
    )
    aside = (
        button("Take back", "datasets-aside", selection=GRID, on=False)
        if shown_only(view.only) == "aside"
        else button("Set aside", "datasets-aside", selection=GRID, on=True)
    )
    return selection_bar(
        GRID,
        aside
        + f'<details class="menu up"><summary class="button quiet">Crop</summary><div>{crops}'
        + cutting.buttons(GRID)
        + button("Back to the original", "datasets-reset", look="quiet", selection=GRID)
        + "</div></details>"
        + select_all(GRID)
        + button("Delete", "datasets-delete-pictures", look="danger", selection=GRID,
                 confirm="Delete {count} pictures?", detail="The files go too. This cannot be undone.", yes="Delete"),
    )  # fmt: skip


def more_pictures(studio: Studio, dataset_id: int, after_id: int, only: str, sort: str) -> tuple[str, str]:
    """The next page of tiles, and the address of the one after it ('' at the end).

    Raises NotFound for a data set that is not there, or not this person's.
    """
    studio.datasets.get(dataset_id)
    only, sort = shown_only(only), shown_sort(sort)
    page = studio.datasets.pictures(dataset_id, after=after_id, limit=PAGE, only=only, sort=sort)
    following = _after(dataset_id, page, only, sort) if len(page) == PAGE else ""
    return "".join(_tiles(studio, page, only, sort)), following


def on_aside(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are set aside, or taken back; either can be undone."""
    ids, aside = ids_of(payload), payload.get("on") is not False
    changed = studio.datasets.set_aside(ids, aside=aside)
    if aside:
        return Outcome(f"{plural(changed, 'picture')} set aside.", undo=take_back(ids))
    return Outcome(f"{plural(changed, 'picture')} taken back.")


def on_crop(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are cropped to a part; their files stay as they are."""
    part = str(payload.get("part", ""))
    if part not in dict(PARTS):
        raise InvalidInput("There is no such crop.", "Choose face, half, body or smart.")
    ids = ids_of(payload)
    undo = cutting.undo_edits(studio, ids)
    changed = studio.edits.crop_to(ids, part)  # type: ignore[arg-type]
    missed = len(ids) - changed
    more = f" In {plural(missed, 'picture')} no face was found." if missed else ""
    return Outcome(f"{plural(changed, 'picture')} cropped.{more}", undo=undo)


def on_reset(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are shown and learnt from as they came."""
    ids = ids_of(payload)
    undo = cutting.undo_edits(studio, ids)
    changed = studio.edits.reset(ids)
    return Outcome(f"{plural(changed, 'picture')} back to the original.", undo=undo)


def on_unmask(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The picture without its mask."""
    studio.edits.set_mask(id_of(payload), None)
    return Outcome("The mask is removed.")


def on_edit(studio: Studio, payload: Payload, view: View) -> Outcome:
    """Pictures with other recipes, given as [number, recipe]; their files stay."""
    given = payload.get("recipes")
    pairs = (
        [pair for pair in given if isinstance(pair, list) and len(pair) == 2]
        if isinstance(given, list)
        else []
    )
    wanted = {
        id: recipe for id, recipe in ((id_in(a), b) for a, b in pairs) if id and isinstance(recipe, dict)
    }
    if not wanted:
        raise InvalidInput("Nothing is selected.", "Choose one or more first.")
    undo = cutting.undo_edits(studio, list(wanted))
    for id, recipe in wanted.items():
        studio.edits.set(id, {**studio.edits.recipe(id).as_dict(), **recipe})
    return Outcome("Saved. The file stays as it is.", undo=undo)


def on_caption(studio: Studio, payload: Payload, view: View) -> Outcome:
    """One new caption, unless the one that was shown is not there any more."""
    values, id = values_of(payload), id_of(payload)
    before = values.get("before")
    try:
        stored = studio.datasets.set_caption(
            id, str(values.get("caption", "")), before=before if isinstance(before, str) else None
        )
    except Conflict as error:
        raise Conflict(error.message, "Look at theirs, then save again to put yours in its place.") from error
    return Outcome(
        "Caption saved.", fill={"form": f"picture-{id}", "values": {"before": stored.caption}}
    )


def on_delete_pictures(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are gone, with their files."""
    gone = studio.datasets.delete_pictures(ids_of(payload))
    return Outcome(f"{plural(gone, 'picture')} deleted.", go={"item": None})


def shown_only(only: str) -> str:
    """The filter that the page shows; nonsense is the usual one."""
    return only if only in SHOWN or only in KINDS else "kept"


def shown_sort(sort: str) -> str:
    """The order that the page shows; nonsense is the usual one."""
    return sort if sort in dict(SORTS) else "added"


def tile(
    shown: Picture,
    findings: Sequence[Finding] = (),
    *,
    copies: int = 0,
    behind: int = 0,
    selectable: bool = True,
) -> str:
    """A picture with its caption, or with what is wrong with it and the remedy.

    `copies` lie folded behind it; one that lies `behind` another is not seen at first.
    """
    alt = shown.caption or shown.original_name
    box = {"type": "checkbox", "data-pick": shown.id, "aria-label": f"Select {alt[:80]}"}
    pick = f'<label class="pick"><input{attributes(box)}></label>' if selectable else ""
    given = {
        "class": "tile captioned" + (" aside" if shown.aside else ""), "data-id": shown.id,
        "data-full": full(shown), "data-side": f"fragment/picture/{shown.id}",
        "data-behind": behind or None, "hidden": bool(behind),
    }  # fmt: skip
    fold = {"type": "button", "class": "fold", "data-unfold": shown.id, "aria-expanded": "false"}
    folded = f"<button{attributes(fold)}>{plural(copies, 'copy', 'copies')}</button>" if copies else ""
    return (
        f"<figure{attributes(given)}>{pick}"
        f'<button type="button" class="open" data-open>{picture(thumbnail(shown), alt)}{_flag(shown, findings)}</button>{folded}'
        f"<figcaption>{_under(shown, findings)}</figcaption></figure>"
    )


def thumbnail(shown: Picture) -> str:
    """The small picture's address, another one when the picture is edited."""
    return media("picture", shown.id, thumbnail=True, sha256=version_of(shown.sha256, shown.edits))


def full(shown: Picture) -> str:
    """The large picture's address, another one when the picture is edited."""
    return f"{media('picture', shown.id)}?v={version_of(shown.sha256, shown.edits)[:VERSION_DIGITS]}"


def _flag(shown: Picture, findings: Sequence[Finding]) -> str:
    if shown.aside:
        return f'<span class="flag">{chip("set aside")}</span>'
    if not findings:
        return ""
    more = f" +{len(findings) - 1}" if len(findings) > 1 else ""
    mood = "bad" if findings[0].severity == "bad" else "warn"
    return f'<span class="flag">{chip(KINDS[findings[0].kind].label + more, mood)}</span>'


def _under(shown: Picture, findings: Sequence[Finding]) -> str:
    caption = f'<span class="text">{esc(shown.caption) or "<em>no caption</em>"}</span>'
    if shown.aside:
        return caption + button("Take back", "datasets-aside", look="quiet", ids=[shown.id], on=False)
    return caption + (remedy_button(shown.id, findings[0].kind) if findings else "")


def remedy_button(picture_id: int, kind: str) -> str:
    """The one-click remedy of a finding, for this picture alone."""
    does = KINDS[kind].does
    if does == "aside":
        return button("Set aside", "datasets-aside", look="quiet", ids=[picture_id], on=True)
    label = {"face": "Crop to the face", "half": "Crop closer", "smart": "Crop to what matters"}[does]
    return button(label, "datasets-crop", look="quiet", ids=[picture_id], part=does)


def _tiles(studio: Studio, page: Sequence[Picture], only: str, sort: str) -> list[str]:
    """A tile each; copies lie behind the better picture until they are asked for."""
    under = _folded(studio, page) if only == "kept" and sort != "worst" else {}
    behind = {id for ids in under.values() for id in ids}
    shown = [p for p in page if p.id not in behind]
    copies = {p.id: p for p in studio.datasets.some(id for p in shown for id in under.get(p.id, []))}
    found = studio.doctor.findings([*(p.id for p in shown), *copies])
    drawn, may = [], studio.actor.role != "viewer"
    for p in shown:
        ids = under.get(p.id, [])
        drawn.append(tile(p, found.get(p.id, []), copies=len(ids), selectable=may))
        drawn += [tile(copies[id], found.get(id, []), behind=p.id, selectable=may) for id in ids]
    return drawn


def _folded(studio: Studio, page: Sequence[Picture]) -> dict[int, list[int]]:
    """For each picture that is the better of some alike: the others, by number."""
    if not page:
        return {}
    better = studio.doctor.alike(page[0].dataset_id)
    under: dict[int, list[int]] = {}
    for id in better:
        top, met = id, {id}
        while top in better and better[top] not in met:
            top = better[top]
            met.add(top)
        if top != id and top not in better:
            under.setdefault(top, []).append(id)
    return under


def _up_to(page: Sequence[Picture], until: int, sort: str) -> list[Picture]:
    """What of the first page is not among the older pages that the browser holds."""
    if sort == "added":
        return [p for p in page if p.id <= until]
    ids = [p.id for p in page]
    return list(page[: ids.index(until) + 1]) if until in ids else list(page)


def _filters(report: Report, only: str) -> str:
    shown = [("kept", "All kept", report.kept), ("doubtful", "Doubtful", report.doubtful)]
    shown += [(kind, KINDS[kind].label, count) for kind, count in report.counts.items() if kind in KINDS]
    shown += [("aside", "Set aside", report.aside)]
    links = "".join(
        f"<a{attributes({'href': address(only=None if name == 'kept' else name), 'data-go': True, 'aria-current': 'true' if name == only else None})}>"
        f"{esc(label)} <span>{count:,}</span></a>"
        for name, label, count in shown
        if count or name in ("kept", only)
    )
    return f'<nav class="chips" aria-label="Which pictures">{links}</nav>'


def _sorts(sort: str) -> str:
    options = "".join(
        f"<option{attributes({'value': '' if name == 'added' else name, 'selected': name == sort})}>{esc(label)}</option>"
        for name, label in SORTS
    )
    return f'<span class="choice"><select data-view-key="sort" aria-label="Order">{options}</select></span>'


def _nothing(only: str) -> str:
    if only == "aside":
        return "Nothing is set aside."
    return "Every picture is set aside." if only == "kept" else "No picture is like that any more."


def _after(dataset_id: int, page: Sequence[Picture], only: str, sort: str) -> str:
    query: Mapping[str, object] = {"after": page[-1].id, "only": only, "sort": sort}
    return f"fragment/pictures/{dataset_id}{address(**query)}"
