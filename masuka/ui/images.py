"""Images: say what should happen, watch it being drawn, keep what is good."""

from __future__ import annotations

from dataclasses import replace

from masuka.families import preset_named
from masuka.requests import Param
from masuka.store.items import Item
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.cards import UNFINISHED, grid, item_tile, job_card, state_sentence, when
from masuka.ui.estimates import base_choices, drawing_sentence
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, ids_of, key_of, values_of
from masuka.ui.markup import attributes, bar, button, card, download, empty, esc, facts, go, media
from masuka.ui.view import View
from masuka.ui.words import duration, number, plural

FORM = "images-form"
PAGE = 40
SHAPES = (("Square", 1.0), ("Portrait", 1.5), ("Landscape", 2 / 3), ("Wide", 0.5))
"""Names and height by width; each keeps about the area of the base's default size."""
_LEFT_OUT = ("prompt", "adapter_id", "num_images", "adapter_weight", "base")


def draw_form(studio: Studio, view: View) -> str:
    """What to draw: five fields, and the rest behind one click."""
    adapters = studio.models.adapters()
    adapter = _chosen(adapters, view)
    bases = studio.models.bases()
    known = {b.id for b in bases}
    able = studio.images.bases_for(adapter) if adapter else ()
    own = adapter.base if adapter else "pocket"
    base = view.base if view.base in (able or known) else own
    described = studio.images.defaults(base)
    name = adapter.name if adapter else ""
    fields = (
        forms.field(
            FORM, described["prompt"], label=f"What should {name} do?" if name else "What should the picture show?",
            help="The trigger word is added for you." if name else "3 to 2,000 characters.", rows=4,
            placeholder=_example(base, adapter),
        )
        + forms.field(
            FORM, described["adapter_id"], label="Character", help="", wide=True, value=adapter.id if adapter else 0,
            choices=[("0", "None, the base model alone"), *((str(a.id), a.name) for a in adapters)],
        ).replace('name="adapter_id"', 'name="adapter_id" data-view-key="adapter"')
        + _base_field(described["base"], base_choices([b for b in bases if b.id in (able or known)], base), base, adapter)
        + _presets(studio, base)
        + _shape_field(described)
        + forms.field(FORM, described["num_images"], help="")
        + (_weight(described["adapter_weight"], adapter) if adapter else "")
    )  # fmt: skip
    left_out = _LEFT_OUT if studio.models.base(base).negative_prompt else (*_LEFT_OUT, "negative_prompt")
    groups = [
        (title, "".join(forms.field(FORM, p) for p in members if not _fixed(p)))
        for title, members in forms.grouped(described, left_out, "Size")
    ]
    groups = [(title, inner) for title, inner in groups if inner]
    body = forms.form(
        FORM,
        fields + _before(studio, base) + forms.advanced(FORM, groups),
        remember=f"images:{base}",
        submit="images-draw",
    )
    return card(body)


def draw_now(studio: Studio, view: View) -> str:
    """What is being drawn: finished pictures, the present one, places for the rest."""
    jobs = studio.jobs.list(kind="draw_images", limit=20)
    active = [j for j in reversed(jobs) if j.state in UNFINISHED]
    if not active:
        return job_card(studio, jobs[0]) if jobs and jobs[0].state == "failed" else ""
    running = next((j for j in active if j.state == "running"), active[0])
    waiting = [j for j in active if j.id != running.id]
    rest = "".join(job_card(studio, j, log=False) for j in waiting)
    return _being_drawn(studio, running) + (f"<h2>Next</h2>{rest}" if rest else "")


def draw_earlier(studio: Studio, view: View) -> str:
    """Earlier pictures, the newest first."""
    busy = {j.id for j in studio.jobs.list(kind="draw_images", states=["running"])}
    found = [i for i in first_items(studio, view) if i.job_id not in busy]
    if not found:
        if busy:
            return ""
        sentence = "Nothing drawn yet. Write a sentence and press the button."
        return card(empty("images", sentence))
    more = f"fragment/items?before={found[-1].id}{_filter(view)}" if len(found) >= PAGE or view.until else ""
    head = f'<div class="row between"><h2>Earlier</h2><span class="hint">{go("Select, search, download", tab="library", section="pictures")}</span></div>'
    return f'<div class="stack">{head}<div>{grid([item_tile(i) for i in found], name="images-grid", more=more, wide=True)}</div></div>'


def first_items(studio: Studio, view: View, *, starred: bool | None = None, query: str = "") -> list[Item]:
    """The first page, grown to meet the older ones that a browser has fetched."""
    found: list[Item] = []
    while True:
        page = studio.library.items(
            character_id=view.character, starred=starred, query=query or None,
            before_id=found[-1].id if found else None, limit=PAGE,
        )  # fmt: skip
        found.extend(page)
        if len(page) < PAGE or view.until is None or found[-1].id <= view.until or len(found) > 10 * PAGE:
            return [i for i in found if view.until is None or i.id >= view.until]


def more_items(
    studio: Studio,
    *,
    before_id: int,
    character_id: int | None,
    starred: bool | None,
    query: str,
    selectable: bool,
) -> tuple[str, int | None]:
    """The next page of tiles, and the id to go on from (None at the end)."""
    page = studio.library.items(
        character_id=character_id, starred=starred, query=query or None, before_id=before_id, limit=PAGE
    )
    tiles = "".join(item_tile(i, selectable=selectable) for i in page)
    return tiles, page[-1].id if len(page) == PAGE else None


def side_of_item(studio: Studio, item_id: int) -> str:
    """The viewer's side: how it was made, and what can be done with it."""
    item = studio.library.get(item_id)
    record = item.settings
    request = record.get("request", {})
    actions = (
        button("Use again", "images-again", look="primary", id=item.id)
        + button("Remove star" if item.starred else "Star", "images-star", ids=[item.id], on=not item.starred)
        + download("Download", f"download/item/{item.id}")
        + button("Delete", "images-delete", look="danger", ids=[item.id])
    )
    adapter = record.get("adapter") or {}
    rows = [
        ("Seed", str(item.seed)),
        ("Size", f"{item.width:,} × {item.height:,} px"),
        ("Character", esc(adapter.get("name", ""))),
        ("How much", number(adapter["weight"]) if "weight" in adapter else ""),
        ("Layers", f"applied to {adapter['applied']} of {adapter['total']}" if "applied" in adapter else ""),
        ("Base", esc(request.get("base", ""))),
        ("Steps", esc(request.get("num_inference_steps", ""))),
        ("Guidance", number(request["guidance_scale"]) if "guidance_scale" in request else ""),
        ("Not", esc(request.get("negative_prompt", ""))),
        ("Drawn", when(item.created_at)),
    ]
    return f'<div class="stack"><p class="prompt">{esc(item.prompt)}</p><div class="actions">{actions}</div>{facts(rows)}</div>'


def on_draw(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued drawing."""
    values = values_of(payload)
    width, _, height = str(values.pop("shape", "")).partition("x")
    if width and height:
        values |= {"width": width, "height": height}
    if values.get("adapter_id") == "0":
        values.pop("adapter_id")
    elif values.get("adapter_id"):
        able = studio.images.bases_for(studio.models.adapter(int(values["adapter_id"])))
        if values.get("base") not in able:
            values.pop("base", None)
    studio.images.draw(values, key=key_of(payload))
    return Outcome()


def on_again(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The form, filled with an earlier picture's settings."""
    item = studio.library.get(id_of(payload))
    request = {"prompt": item.prompt, **item.settings.get("request", {}), "seed": item.seed}
    values = {k: forms.as_text(v) for k, v in request.items()}
    values["shape"] = f"{item.width}x{item.height}"
    base = str(request.get("base", "pocket"))
    return Outcome(
        "The form holds its settings now.",
        go={"tab": "images", "adapter": item.adapter_id or 0, "base": base, "item": None},
        fill={"form": FORM, "remember": f"images:{base}", "values": values},
    )


def on_preset(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The form, filled with a preset's settings; the prompt stays."""
    entry, preset = preset_named(str(payload.get("preset", "")))
    values = {k: forms.as_text(v) for k, v in preset.values.items()}
    values["shape"] = ""  # its own size
    return Outcome(
        f"The form holds {preset.name} now.",
        fill={"form": FORM, "remember": f"images:{entry.id}", "values": values},
    )


def on_star(studio: Studio, payload: Payload, view: View) -> Outcome:
    """Stars on, or off."""
    studio.library.star(ids_of(payload), bool(payload.get("on", True)))
    return Outcome()


def on_delete(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are in the bin; undo brings them back."""
    ids = ids_of(payload)
    gone = studio.library.delete(ids)
    return Outcome(
        f"{plural(gone, 'picture')} deleted.", undo=("images-restore", {"ids": ids}), go={"item": None}
    )


def on_restore(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are back."""
    return Outcome(f"{plural(studio.library.restore(ids_of(payload)), 'picture')} brought back.")


def _being_drawn(studio: Studio, job: Job) -> str:
    done = studio.library.items(job_id=job.id, limit=8)
    wanted = int(job.request.get("num_images", 1))
    tiles = [item_tile(i) for i in reversed(done)]
    if job.state == "running" and len(tiles) < wanted:
        tiles.append(_preview(job))
    tiles += ['<div class="tile empty-slot"></div>'] * max(0, wanted - len(tiles))
    left = studio.jobs.eta_s(job)
    place = f"picture {min(len(done) + 1, wanted)} of {wanted} · {state_sentence(studio, job)}"
    aside = esc(place) + (f" · {duration(left)} left" if left is not None and "left" not in place else "")
    cancel = button("Cancel", "library-cancel", look="quiet", ids=[job.id])
    return (
        f'<div class="stack" data-job="{job.id}"><div class="row between"><h2>Now</h2><span class="hint">{aside}</span></div>'
        f"{grid(tiles, wide=True)}{bar(job.step, job.total, f'Progress of {job.title}')}"
        f'<div class="row between"><span class="hint">{esc(job.title)}</span>{cancel}</div></div>'
    )


def _preview(job: Job) -> str:
    """The picture in the making; until its first preview there is an empty place."""
    given = {
        "src": f"{media('preview', job.id)}?step={job.step}",
        "alt": "The picture in the making",
        "class": "preview",
    }
    return f'<figure class="tile making"><div class="open"><img{attributes(given)} onerror="this.remove()"></div></figure>'


def _chosen(adapters: list[Model], view: View) -> Model | None:
    if view.adapter == 0:
        return None
    by_id = {a.id: a for a in adapters}
    if view.adapter in by_id:
        return by_id[view.adapter]
    return next((a for a in adapters if view.character and a.character_id == view.character), None)


def shapes(described: dict[str, Param]) -> list[tuple[str, str]]:
    """(value, words) of the sizes this base can draw; at most one means no choice."""
    wide, high = described["width"], described["height"]
    step = int(wide.step or 1)
    found: dict[str, str] = {}
    for name, ratio in SHAPES:
        width = round((wide.default * high.default / ratio) ** 0.5 / step) * step
        height = round(width * ratio / step) * step
        fits = (wide.minimum or 1) <= width <= (wide.maximum or width)
        if fits and (high.minimum or 1) <= height <= (high.maximum or height):
            found.setdefault(f"{width}x{height}", f"{name} {width:,} × {height:,}")
    return list(found.items())


def _shape_field(described: dict[str, Param]) -> str:
    choices = shapes(described)
    if len(choices) < 2:
        return ""
    param = replace(described["width"], name="shape", kind="text", label="Shape", default="", help="")
    return forms.field(FORM, param, choices=[*choices, ("", "Own size, in Advanced")], value=choices[0][0])


def _base_field(param: Param, choices: list[tuple[str, str]], base: str, adapter: Model | None) -> str:
    """What draws; with a LoRA that only one base draws there is nothing to choose."""
    if adapter is not None and len(choices) < 2:
        return ""
    shown = forms.field(FORM, param, label="Base model", help="More are under Models.", choices=choices, value=base, wide=True)
    return shown.replace('name="base"', 'name="base" data-view-key="base"')


def _weight(param: Param, adapter: Model) -> str:
    """How much of the LoRA; what its training measured as best is what it starts from."""
    if adapter.best_weight is None:
        return forms.field(FORM, param, help="")
    measured = replace(param, default=adapter.best_weight)
    return forms.field(FORM, measured, help="The best weight that its training measured.")


def _before(studio: Studio, base: str) -> str:
    chosen = studio.models.base(base)
    if chosen.folder is None:
        fetch = button(f"Download {chosen.title}", "training-download", base=base)
        return f'<div class="notice warn full"><p>{esc(chosen.title)} is not on this machine ({chosen.size_gib:,.1f} GiB).</p>{fetch}</div>'
    start = button("Draw 1 picture", "images-draw", look="primary wide", form=FORM, name="images-draw")
    start = start.replace(
        "<button",
        '<button data-counts="num_images" data-one="Draw 1 picture" data-many="Draw {n} pictures"',
        1,
    )
    estimate = drawing_sentence(studio, base)
    said = f'<p class="hint full">{esc(estimate)}</p>' if estimate else ""
    return f'{said}<div class="sticky full">{start}</div>'


def _presets(studio: Studio, base: str) -> str:
    """Settings by name, where the base has some."""
    offered = "".join(
        button(p.name, "images-preset", look="quiet", preset=p.name) for p in studio.images.presets(base)
    )
    return f'<div class="actions full">{offered}</div>' if offered else ""


def _fixed(param: Param) -> bool:
    """A setting that this base does not leave open is not shown."""
    return param.minimum is not None and param.minimum == param.maximum


def _example(base: str, adapter: Model | None) -> str:
    if base == "pocket":
        return "wearing a crown on a beach" if adapter else "a happy blue robot wearing a top hat in the snow"
    return "reading a map on a windy beach at sunset, wide shot"


def _filter(view: View) -> str:
    return f"&character={view.character}" if view.character else ""


TAB = Tab(
    "images",
    "Images",
    columns=(
        (Region("choices", draw_form, live=False, waiting='<div class="skeleton"></div>'),),
        (Region("now", draw_now), Region("earlier", draw_earlier, waiting='<div class="skeleton"></div>')),
    ),
    actions={
        "draw": on_draw,
        "again": on_again,
        "preset": on_preset,
        "star": on_star,
        "delete": on_delete,
        "restore": on_restore,
    },
    layout="side",
)
