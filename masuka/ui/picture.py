"""One picture shown large: what was found, its caption, its crop and turn, its measures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from masuka.datasets.doctor import KINDS
from masuka.requests.edits import PictureEdits
from masuka.store.findings import Finding
from masuka.store.pictures import Picture
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.cards import when
from masuka.ui.markup import attributes, button, chip, disclosure, esc, facts, media
from masuka.ui.pictures import full, remedy_button, thumbnail
from masuka.ui.words import number

TOOL = "picture-tool"
SHAPES = (
    ("", "Free"), ("1", "Square"), ("0.6667", "Portrait 2:3"), ("1.5", "Landscape 3:2"), ("0.75", "Portrait 3:4"),
    ("1.3333", "Landscape 4:3"), ("0.5625", "Tall 9:16"), ("1.7778", "Wide 16:9"),
)  # fmt: skip
"""Width by height of a crop, as the tool offers it."""


def side_of_picture(studio: Studio, picture_id: int) -> str:
    """The viewer's side: findings, caption, tools, measures, what can be done."""
    shown = studio.datasets.picture(picture_id)
    edits = studio.edits.recipe(picture_id)
    found = [f for f in studio.doctor.findings([shown.id]).get(shown.id, []) if f.kind in KINDS]
    may_edit = studio.actor.role != "viewer"
    given = {
        "class": "stack picture-side", "data-picture": shown.id, "data-shown": full(shown), "data-thumbnail": thumbnail(shown),
        "data-original": original(shown), "data-width": shown.width, "data-height": shown.height,
        "data-recipe": json.dumps(edits.as_dict()),
    }  # fmt: skip
    masked = studio.edits.mask(picture_id) is not None
    if masked:
        given["data-mask"] = f"mask/{shown.id}"
    tools = (
        _tools(shown, edits, masked=masked) + _caption(shown)
        if may_edit
        else f'<p class="prompt">{esc(shown.caption)}</p>'
    )
    return (
        f"<div{attributes(given)}>{_state(shown, found)}{tools}{_measures(shown, edits)}"
        f"{_end(shown)}</div>{_editor() + _painter(shown, masked=masked) if may_edit else ''}"
    )


def original(shown: Picture) -> str:
    """The address of the picture as it came."""
    return f"{media('picture', shown.id)}?original=1"


def _state(shown: Picture, found: Sequence[Finding]) -> str:
    mood = ("set aside", "quiet") if shown.aside else ("doubtful", "warn") if found else ("good", "good")
    if not shown.scores and not found and not shown.aside:
        mood = ("not looked at yet", "quiet")
    aside = button(
        "Take back" if shown.aside else "Set aside", "datasets-aside", ids=[shown.id], on=not shown.aside,
        name="picture-aside",
    )  # fmt: skip
    rows, offered = [], {"aside"}
    for f in found:
        about = KINDS[f.kind]
        remedy = "" if shown.aside or about.does in offered else remedy_button(shown.id, f.kind)
        offered.add(about.does)
        rows.append(f"<li><p><strong>{esc(about.label)}.</strong> {esc(about.sentence)}</p>{remedy}</li>")
    why = '<p class="hint">A training does not learn from it.</p>' if shown.aside else ""
    reasons = f'<ul class="reasons">{"".join(rows)}</ul>' if rows else ""
    return f'<div class="stack tight">{chip(*mood)}{why}{reasons}<div class="actions">{aside}</div></div>'


def _caption(shown: Picture) -> str:
    name = f"picture-{shown.id}"
    save = button(
        "Save caption", "datasets-caption", look="primary", form=name, id=shown.id, name=f"{name}-go"
    )
    text = (
        f'<div class="field wide"><label for="{name}-caption">Caption</label><textarea id="{name}-caption" name="caption" '
        f'rows="4" aria-describedby="{name}-caption-error">{esc(shown.caption)}</textarea>'
        f'<p class="error" id="{name}-caption-error" role="alert" hidden></p>'
        f'<input type="hidden" name="before" value="{esc(shown.caption)}">'
        '<p class="hint" data-unsaved hidden>Not saved yet.<span data-theirs dir="auto" hidden></span></p></div>'
    )
    return forms.form(name, text + save, submit=f"{name}-go")


def _tools(shown: Picture, edits: PictureEdits, *, masked: bool) -> str:
    parts = "".join(
        button(label, "datasets-crop", ids=[shown.id], part=part, name=f"picture-crop-{part}")
        for part, label in (("face", "Face"), ("half", "Half"), ("body", "Body"), ("smart", "Smart"))
    )
    reset = ""
    if edits != PictureEdits():
        reset = button(
            "Back to the original", "datasets-reset", look="quiet", ids=[shown.id], name="picture-reset"
        )
    return (
        '<div class="tools"><p class="name">Crop to</p>'
        f'<div class="parts">{parts}</div><div class="actions"><button type="button" class="button" data-editor="open" '
        f'id="picture-edit">Crop and turn</button>{_mask_button(masked)}{reset}</div></div>'
    )


def _editor() -> str:
    """The tools that the page's script works; hidden until they are asked for."""
    shapes = "".join(f"<option{attributes({'value': value})}>{label}</option>" for value, label in SHAPES)
    turns = "".join(
        f'<button type="button" class="button" data-editor="{name}">{label}</button>'
        for name, label in (("left", "Turn left"), ("right", "Turn right"), ("flip", "Mirror"))
    )
    return (
        '<div class="stack picture-editor" hidden><h2>Crop and turn</h2>'
        f'<div class="thirds">{turns}</div>'
        f'<div class="field"><div class="row between"><label for="{TOOL}-straighten">Straighten</label>'
        f'<output for="{TOOL}-straighten">0°</output></div>'
        f'<input id="{TOOL}-straighten" type="range" min="-15" max="15" step="0.5" value="0"></div>'
        f'<div class="field"><label for="{TOOL}-shape">Shape</label><select id="{TOOL}-shape">{shapes}</select></div>'
        '<p class="hint">Drag the frame or its corners. The file stays as it is. '
        '<span class="by-keys">By keyboard, arrows move the frame, and with Shift they change its size.</span></p>'
        '<div class="actions"><button type="button" class="button primary" data-editor="save">Save</button>'
        '<button type="button" class="button" data-editor="all">Whole picture</button>'
        '<button type="button" class="button quiet" data-editor="close">Cancel</button></div></div>'
    )


def _mask_button(masked: bool) -> str:
    label = "Change the mask" if masked else "Paint a mask"
    return f'<button type="button" class="button" data-painter="open" id="picture-mask">{label}</button>'


def _painter(shown: Picture, *, masked: bool) -> str:
    """What the page's script paints with; hidden until it is asked for."""
    brushes = "".join(
        f'<button type="button" class="button" data-painter="{name}">{label}</button>'
        for name, label in (("paint", "Paint"), ("erase", "Erase"), ("clear", "Start over"))
    )
    remove = button("Remove the mask", "datasets-unmask", look="quiet", id=shown.id) if masked else ""
    return (
        '<div class="stack picture-editor mask-painter" hidden><h2>What to learn from</h2>'
        '<p class="hint">Paint over what belongs to the character. A training learns mostly from that, '
        "and hardly from the rest.</p>"
        f'<div class="thirds">{brushes}</div>'
        f'<div class="field"><label for="{TOOL}-brush">Size of the brush</label>'
        f'<input id="{TOOL}-brush" type="range" min="1" max="30" step="1" value="8"></div>'
        '<p class="hint" id="picture-painter-keys">By keyboard, in the picture: arrows move the brush, Space paints, '
        "Shift+Space erases, [ and ] change its size. Hold Space to draw a line.</p>"
        '<p class="only-read" role="status" data-painter-says></p>'
        '<div class="actions"><button type="button" class="button primary" data-painter="save">Save</button>'
        f'<button type="button" class="button quiet" data-painter="close">Cancel</button>{remove}</div></div>'
    )


def _measures(shown: Picture, edits: PictureEdits) -> str:
    scores: dict[str, Any] = shown.scores
    rows = [("File", esc(shown.original_name)), ("Size", f"{shown.width:,} × {shown.height:,} px")]
    rows += [
        (label, f"{float(scores[name]):.0%}")
        for name, label in (("sharpness", "Sharpness"), ("exposure", "Light"), ("contrast", "Contrast"))
        if isinstance(scores.get(name), int | float)
    ]
    if isinstance(scores.get("jpeg_quality"), int | float):
        rows.append(("JPEG quality", number(scores["jpeg_quality"])))
    faces = scores.get("faces")
    if isinstance(faces, list):
        rows.append(("Faces found", number(len(faces))))
    rows.append(("Added", when(shown.created_at)))
    return disclosure("Measures and file", facts(rows), name="picture-measures")


def _end(shown: Picture) -> str:
    delete = button(
        "Delete", "datasets-delete-pictures", look="danger", ids=[shown.id],
        confirm="Delete this picture?", detail="The file goes too. This cannot be undone.", yes="Delete",
    )  # fmt: skip
    return f'<div class="actions ends">{delete}</div>'
