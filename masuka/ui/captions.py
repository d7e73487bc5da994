"""The captions of one data set as a table to write in, and what changes many of them.

The table's frame is drawn once and stays; its rows come in pages from `more_rows`, and the
page's script keeps the row that is written in. Each caption is saved by itself.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masuka.datasets.captions.captioners import CAPTIONERS
from masuka.datasets.lint import CLIP_TOKENS
from masuka.errors import Conflict, InvalidInput
from masuka.requests import params
from masuka.requests.datasets import CAPTION_CHARS, EditCaptions
from masuka.store.pictures import Picture
from masuka.studio import Studio
from masuka.ui import captioning, forms
from masuka.ui.cards import selection_bar
from masuka.ui.kit import Outcome, Payload, Region, id_of, values_of
from masuka.ui.markup import VERSION_DIGITS, attributes, button, card, esc, picture
from masuka.ui.parts import nothing_yet
from masuka.ui.pictures import full, thumbnail
from masuka.ui.view import View
from masuka.ui.words import plural

PAGE = 80
GRID = "captions-grid"
REPLACE, AROUND = "captions-replace", "captions-around"
FROM = {"template": "the template", "file": "a file", "person": "a person"} | {
    entry.name: entry.title for entry in CAPTIONERS.values()
}
TOOLS = {"write": "Write captions", "replace": "Find and replace", "around": "Add words", "tags": "Tags"}
PLACES = [
    ("suffix", "After each caption"),
    ("prefix", "Before each caption"),
    ("set", "Instead of it"),
    ("template", "As the set's template"),
]
_MOST_TAGS = 200


@dataclass(frozen=True)
class Shown:
    """Which captions of a set are meant.

    Those that hold `query` in any case, and with `only_problems` those of the doctor.
    """

    dataset_id: int
    query: str = ""
    only_problems: bool = False


def draw_captions(studio: Studio, view: View) -> str:
    """The table's frame; the same for the same set, so that its rows stay."""
    if view.dataset is None or view.part != "captions":
        return ""
    dataset = studio.datasets.get(view.dataset)
    if not dataset.picture_count:
        return card(nothing_yet(studio, "No captions yet, as there are no pictures."))
    edits = studio.actor.role != "viewer"
    keys = (
        "Enter writes and goes on, Escape leaves, Space selects, Ctrl+Z undoes the last change."
        if edits
        else ""
    )
    about = {
        "class": "sheet", "role": "grid", "id": GRID, "data-grid": GRID, "data-captions": dataset.id,
        "data-first": f"fragment/captions/{dataset.id}", "aria-label": "Captions",
        "aria-describedby": f"{GRID}-keys" if keys else None, "aria-readonly": None if edits else "true",
        "data-longest": CAPTION_CHARS, "data-tokens": CLIP_TOKENS,
    }  # fmt: skip
    heads = "".join(
        f'<div role="columnheader" class="{name}">{title}</div>'
        for name, title in (
            ("pick-cell", '<span class="only-read">Selected</span>'),
            ("thumb-cell", '<span class="only-read">Picture</span>'),
            ("text-cell", "Caption"),
            ("marks-cell", "To look at"),
            ("from-cell", "Written by"),
        )
    )
    table = (
        f'<div{attributes(about)}><div role="rowgroup" class="sheet-head"><div role="row">{heads}</div></div>'
        '<div role="presentation" data-rows><div class="skeleton" aria-hidden="true"></div></div></div>'
        '<div data-rows-more aria-hidden="true"></div>'
    )
    return (
        f'<div class="captions whole">{_toolbar(dataset.id, edits, keys)}{_tools(dataset.id) if edits else ""}'
        f'<p class="only-read" role="status" data-captions-says></p>{table}'
        f"{_bar() if edits else ''}</div>"
    )


def more_rows(studio: Studio, shown: Shown, after: int) -> tuple[str, int | None, int]:
    """A page of rows, its last id where more follow, and how many there are in all."""
    marks = problems_of(studio, shown.dataset_id)
    found = list(chosen(studio, shown, marks))
    start = bisect_right(found, after)
    page = found[start : start + PAGE]
    following = page[-1] if start + PAGE < len(found) else None
    rows = "".join(row(p, marks.get(p.id, [])) for p in studio.datasets.some(page))
    return rows, following, len(found)


def chosen(studio: Studio, shown: Shown, marks: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """The captions that are meant by picture, in the order they came."""
    found = studio.captions.texts(shown.dataset_id, search=shown.query)
    return {id: text for id, text in found.items() if not shown.only_problems or marks.get(id)}


def problems_of(studio: Studio, dataset_id: int) -> dict[int, list[str]]:
    """What each caption should be looked at for, by picture.

    What kept a captioner from one comes first.
    """
    found = {id: list(said) for id, said in studio.doctor.lint(dataset_id).items()}
    for id, problem in studio.captions.problems(dataset_id).items():
        found[id] = [problem, *found.get(id, [])]
    return found


def row(shown: Picture, marks: Sequence[str]) -> str:
    """One row of the table; `data-v` changes with anything that it shows."""
    name = esc(shown.original_name)
    said = "".join(f"<li>{esc(mark)}</li>" for mark in marks)
    body = (
        f'<div role="gridcell" class="pick-cell"><label class="pick"><input type="checkbox" data-pick="{shown.id}" '
        f'data-cell tabindex="-1" aria-label="Select {name}"></label></div>'
        f'<div role="gridcell" class="thumb-cell"><figure class="tile" data-full="{full(shown)}" '
        f'data-side="fragment/picture/{shown.id}"><button type="button" class="open" data-open data-cell tabindex="-1" '
        f'aria-label="Show {name}">{picture(thumbnail(shown), "")}</button></figure></div>'
        f'<div role="gridcell" class="text-cell" data-text data-cell tabindex="-1" dir="auto" '
        f'data-name="{name}">{esc(shown.caption)}</div>'
        f'<div role="gridcell" class="marks-cell"><ul>{said}</ul><span class="tokens" data-count></span></div>'
        f'<div role="gridcell" class="from-cell"><span>{esc(FROM.get(shown.caption_from, shown.caption_from))}</span>'
        '<span class="save" data-save></span></div>'
    )
    version = f"{zlib.crc32(body.encode()):08x}"
    return f'<div role="row" class="caption" data-id="{shown.id}" data-file="{shown.sha256[:VERSION_DIGITS]}" data-v="{version}">{body}</div>'


def tags(studio: Studio, dataset_id: int) -> str:
    """What the captions say, each with how often; a click shows, renames or removes."""
    counts = studio.captions.statistics(dataset_id)
    if not counts:
        return '<p class="hint">No captions yet.</p>'
    rows = "".join(
        f'<li><button type="button" class="pill tag" data-tag="{esc(tag)}" dir="auto">{esc(tag)} '
        f'<span class="hint">{count:,}</span></button></li>'
        for tag, count in counts[:_MOST_TAGS]
    )
    more = f'<p class="hint">And {len(counts) - _MOST_TAGS:,} more.</p>' if len(counts) > _MOST_TAGS else ""
    even = button("Use one word for one thing", "datasets-captions-even", look="quiet", id=dataset_id)
    return f'<ul class="tags">{rows}</ul>{more}<div class="actions">{even}</div>'


def found_in(studio: Studio, shown: Shown, find: str) -> int:
    """How many of the captions hold this text, as it is written; raises NotFound."""
    studio.datasets.get(shown.dataset_id)
    marks = problems_of(studio, shown.dataset_id) if shown.only_problems else {}
    return sum(find in text for text in chosen(studio, shown, marks).values()) if find else 0


def save(studio: Studio, picture_id: int, given: Any) -> dict[str, Any]:
    """What is stored now, as caption and from; on a conflict what another one wrote.

    `given` is the browser's: 'text', and 'before', which it last knew as stored.
    """
    if not isinstance(given, dict) or not isinstance(given.get("text"), str):
        raise InvalidInput("The caption did not arrive.", "Reload the page.")
    before = given.get("before")
    try:
        stored = studio.captions.set(
            picture_id, given["text"], before=before if isinstance(before, str) else None
        )
    except Conflict as error:
        theirs = studio.datasets.picture(picture_id)
        return {**error.as_dict(), "caption": theirs.caption, "conflict": True}
    return {"caption": stored.caption, "from": FROM.get(stored.caption_from, stored.caption_from)}


def on_edit(studio: Studio, payload: Payload, view: View) -> Outcome:
    """One change to the selected captions, or to all that are shown."""
    values = {"action": payload.get("action"), **values_of(payload)}
    changed = studio.datasets.edit_captions(picture_ids=tuple(_meant(studio, payload)), **values)
    if not changed:
        return Outcome("No caption had to change.")
    return Outcome(f"{plural(changed, 'caption')} changed.", undo=_back(payload))


def on_undo(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The last change of the set's captions is taken back; says which that was."""
    return Outcome(studio.captions.undo(id_of(payload)))


def on_rename(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A tag under another name in every caption that has it."""
    changed = studio.captions.rename_tag(
        id_of(payload), str(payload.get("tag", "")), str(payload.get("to", ""))
    )
    return Outcome(f"{plural(changed, 'caption')} changed.", undo=_back(payload))


def on_remove(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A tag that is gone from every caption."""
    changed = studio.captions.remove_tag(id_of(payload), str(payload.get("tag", "")))
    return Outcome(f"{plural(changed, 'caption')} changed.", undo=_back(payload))


def on_even(studio: Studio, payload: Payload, view: View) -> Outcome:
    """Of words for one thing the one that the set uses most, everywhere."""
    changed = studio.captions.even_out(id_of(payload))
    if not changed:
        return Outcome("Every thing has one word already.")
    return Outcome(f"{plural(changed, 'caption')} changed.", undo=_back(payload))


def _back(payload: Payload) -> tuple[str, Payload]:
    return "datasets-captions-undo", {"id": id_of(payload)}


def _toolbar(dataset_id: int, edits: bool, keys: str) -> str:
    """Search, the filter, the tools' buttons, and in one line what is saved."""
    tools = "".join(
        f'<button type="button" class="button" data-tool="{name}" aria-expanded="false" '
        f'aria-controls="captions-tool-{name}">{title}</button>'
        for name, title in TOOLS.items()
    )
    undo = button("Undo", "datasets-captions-undo", look="quiet", name="captions-undo", id=dataset_id)
    return (
        '<div class="captions-bar"><input type="search" id="captions-search" placeholder="Search captions" '
        'aria-label="Search captions" autocomplete="off">'
        '<label class="switch"><input type="checkbox" role="switch" id="captions-only"><span>Only with problems</span></label>'
        f'<div class="actions tools">{tools + undo if edits else ""}</div></div>'
        '<div class="row between"><p class="hint captions-about"><span data-captions-count></span> '
        f'<span data-captions-state></span></p><p class="hint keys" id="{GRID}-keys">{keys}</p></div>'
    )


def _tools(dataset_id: int) -> str:
    described = params(EditCaptions)
    replace = forms.form(
        REPLACE,
        forms.field(REPLACE, described["find"], label="Find", help="As it is written, capitals too.")
        + forms.field(REPLACE, described["text"], label="Replace with", help="Nothing here removes it.")
        + button("Replace", "datasets-captions-edit", form=REPLACE, selection=GRID, name=f"{REPLACE}-go",
                 action="replace", id=dataset_id)
        + '<p class="hint full" data-found aria-live="polite"></p>',
        submit=f"{REPLACE}-go",
    )  # fmt: skip
    around = forms.form(
        AROUND,
        forms.field(AROUND, described["action"], label="Where", help="", choices=PLACES, value="suffix")
        + forms.field(AROUND, described["text"], label="Words", help="{trigger} and {class} are filled in.")
        + button("Add", "datasets-captions-edit", form=AROUND, selection=GRID, name=f"{AROUND}-go", id=dataset_id)
        + '<p class="hint full" data-scope-said aria-live="polite"></p>',
        submit=f"{AROUND}-go",
    )
    bodies = {
        "write": '<div data-write></div>',
        "replace": replace,
        "around": around,
        "tags": '<div data-tags aria-live="polite"></div>',
    }
    return "".join(
        f'<section class="card tool" id="captions-tool-{name}" aria-label="{TOOLS[name]}" hidden>{body}</section>'
        for name, body in bodies.items()
    )


def _bar() -> str:
    """What can be done with the selected rows."""
    opens = "".join(
        f'<button type="button" class="button" data-tool="{name}">{title}</button>'
        for name, title in TOOLS.items()
        if name != "tags"
    )
    everything = f'<button type="button" class="button quiet" data-select-all="{GRID}">Select all shown</button>'
    return selection_bar(GRID, opens + everything)


def _meant(studio: Studio, payload: Payload) -> list[int]:
    """The ids of the payload, else those of everything that the page shows."""
    given = payload.get("ids")
    if isinstance(given, list) and given:
        return [id for id in given if isinstance(id, int)]
    shown = Shown(
        id_of(payload), str(payload.get("q") or "")[:200], only_problems=payload.get("only") == "problems"
    )
    found = chosen(studio, shown, problems_of(studio, shown.dataset_id) if shown.only_problems else {})
    if not found:
        raise InvalidInput("No caption is meant.", "Select some, or clear the search.")
    return list(found)


REGIONS = (*captioning.REGIONS, Region("captions", draw_captions, live=False))
ACTIONS = {
    "captions-edit": on_edit,
    "captions-undo": on_undo,
    "captions-rename": on_rename,
    "captions-remove": on_remove,
    "captions-even": on_even,
    **captioning.ACTIONS,
}
