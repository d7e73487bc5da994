"""Datasets: create, fill, look through, edit captions, take out."""

from __future__ import annotations

from collections.abc import Sequence

from masuka.requests import params
from masuka.requests.datasets import CreateDataset, EditCaptions
from masuka.requests.text import id_in
from masuka.store.datasets import Dataset
from masuka.store.pictures import Picture
from masuka.studio import Studio
from masuka.ui import captions, exporting, forms, sheet
from masuka.ui.cards import grid, job_card, picture_tile, refusals, selection_bar, when
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, ids_of, key_of, values_of
from masuka.ui.markup import (
    address,
    attributes,
    button,
    card,
    download,
    empty,
    esc,
    facts,
    go,
    media,
    picture,
)
from masuka.ui.parts import draw_parts
from masuka.ui.uploads import batch_folder
from masuka.ui.view import View
from masuka.ui.words import plural

PAGE = 60
_FILLS = ("import_pictures", "sample_pictures")
NEW, EDIT, MANY, FOLDER = "datasets-new", "datasets-edit", "datasets-many", "datasets-folder"
ACTIONS_IN_WORDS = [
    ("suffix", "Add after"),
    ("prefix", "Add before"),
    ("replace", "Replace text"),
    ("set", "Set the whole caption"),
    ("template", "Fill the set's template"),
]


def draw_head(studio: Studio, view: View) -> str:
    """The chosen set's name and actions, or the tab's title."""
    if view.dataset is None:
        return '<div class="title"><div><h1>Datasets</h1><p class="hint">The pictures and captions that one training learns from.</p></div></div>'
    dataset = studio.datasets.get(view.dataset)
    train = go("Train on this set", look="primary", tab="training", dataset=dataset.id)
    if not dataset.picture_count:
        train = ""
    about = f"{plural(dataset.picture_count, 'picture')} · called by <code>{esc(dataset.trigger_word)}</code> · {esc(dataset.class_word)}"
    return (
        f'<p class="hint">{go("All data sets", dataset=None)}</p>'
        f'<div class="title"><div><h1>{esc(dataset.name)}</h1><p class="hint">{about}</p></div>'
        f'<div class="actions sticky">{train}</div></div>'
    )


def draw_body(studio: Studio, view: View) -> str:
    """Cards of all sets, or the pictures of the chosen one."""
    if view.dataset is None:
        sets = [d for d in studio.datasets.list() if view.character in (None, d.character_id)]
        if not sets:
            return card(empty("datasets", "No data set yet. Create one, then add ten to thirty pictures."))
        return f'<div class="cards">{"".join(_set_card(studio, d) for d in sets)}</div>'
    if view.part:
        return ""  # the parts draw themselves, in regions of their own
    return _jobs(studio, view.dataset) + _pictures(studio, view)


def draw_check(studio: Studio, view: View) -> str:
    """What stands in the way of a good training; not live, as it looks at each file."""
    if view.dataset is None or view.part or not studio.datasets.get(view.dataset).picture_count:
        return ""
    problems = "".join(f"<li>{esc(p)}</li>" for p in studio.datasets.check(view.dataset, read_files=False))
    return f'<div class="notice warn"><p>Before a training:</p><ul>{problems}</ul></div>' if problems else ""


def draw_add(studio: Studio, view: View) -> str:
    """How pictures get in, or the form for a new set."""
    if view.dataset is None:
        return _new_form(studio)
    if view.part:
        return ""
    dataset = studio.datasets.get(view.dataset)
    idle = "JPEG, PNG, WebP or a zip with captions, at most 50 MB a picture."
    drop = (
        f'<div class="drop" data-upload="{dataset.id}"><h3>Drop pictures here, or choose them</h3>'
        f'<p class="hint" data-upload-state data-idle="{idle}" aria-live="polite">{idle}</p>'
        '<input type="file" multiple accept="image/*,.zip,.txt" aria-label="Pictures to add"></div>'
    )
    return card(drop, title="Add pictures") + card(_folder_form(dataset)) + card(_edit_form(dataset))


def draw_many(studio: Studio, view: View) -> str:
    """What can be done with the selected pictures."""
    if view.dataset is None or view.part:
        return ""
    described = params(EditCaptions)
    fields = (
        forms.field(
            MANY, described["action"], label="Change", help="", choices=ACTIONS_IN_WORDS, value="suffix"
        )
        + forms.field(MANY, described["text"], help="")
        + forms.field(MANY, described["find"], label="Text to replace", help="Only for Replace text.")
    )
    change = button(
        "Change captions", "datasets-many", form=MANY, selection="datasets-grid", name=f"{MANY}-go"
    )
    editing = f"<details><summary>Edit captions</summary>{forms.form(MANY, fields + change, submit=f'{MANY}-go')}</details>"
    delete = button(
        "Delete", "datasets-delete-pictures", look="danger", selection="datasets-grid",
        confirm="Delete {count} pictures?", detail="The files go too. This cannot be undone.", yes="Delete",
    )  # fmt: skip
    everything = (
        '<button type="button" class="button quiet" data-select-all="datasets-grid">Select all shown</button>'
    )
    return selection_bar("datasets-grid", editing + delete + everything)


def side_of_picture(studio: Studio, picture_id: int) -> str:
    """The viewer's side: the caption to edit, where the picture came from."""
    shown = studio.datasets.picture(picture_id)
    name = f"picture-{shown.id}"
    save = button(
        "Save caption", "datasets-caption", look="primary", form=name, id=shown.id, name=f"{name}-go"
    )
    delete = button(
        "Delete picture", "datasets-delete-pictures", look="danger", ids=[shown.id],
        confirm="Delete this picture?", detail="The file goes too. This cannot be undone.", yes="Delete",
    )  # fmt: skip
    text = (
        f'<div class="field wide"><label for="{name}-caption">Caption</label><textarea id="{name}-caption" name="caption" '
        f'rows="6" aria-describedby="{name}-caption-error">{esc(shown.caption)}</textarea>'
        f'<p class="error" id="{name}-caption-error" role="alert" hidden></p></div>'
    )
    about = facts([
        ("File", esc(shown.original_name)),
        ("Size", f"{shown.width:,} × {shown.height:,} px"),
        ("Added", when(shown.created_at)),
    ])  # fmt: skip
    body = forms.form(name, text + save, submit=f"{name}-go")
    return f'<div class="stack">{body}{about}<div class="actions">{delete}</div></div>'


def more_pictures(studio: Studio, dataset_id: int, after_id: int) -> tuple[str, str]:
    """The next page of tiles, and the address of the one after it ('' at the end).

    Raises NotFound for a data set that is not there, or not this person's.
    """
    studio.datasets.get(dataset_id)
    page = studio.datasets.pictures(dataset_id, after=after_id, limit=PAGE)
    return "".join(picture_tile(p) for p in page), _next(dataset_id, page)


def on_create(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A new set, and its character where a new one is wanted."""
    values = values_of(payload)
    wanted = CreateDataset.parse({k: v for k, v in values.items() if k != "character_id"})
    chosen = id_in(values.get("character_id"))
    if chosen is not None:
        character_id = studio.characters.get(chosen).id
    else:
        character_id = studio.characters.create(
            name=wanted.name, trigger_word=wanted.trigger_word, class_word=wanted.class_word
        ).id
    dataset = studio.datasets.create(wanted, character_id=character_id)
    return Outcome(
        f"{dataset.name} is ready for pictures.",
        go={"dataset": dataset.id, "character": character_id},
        clear=NEW,
    )


def on_update(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The changed set."""
    studio.datasets.update(id_of(payload), values_of(payload))
    return Outcome("Saved.")


def on_delete(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The set is gone, with its pictures."""
    studio.datasets.delete(id_of(payload))
    return Outcome("The data set is deleted.", go={"dataset": None})


def on_upload(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in what was uploaded."""
    folder = batch_folder(studio, str(payload.get("batch", "")))
    studio.datasets.add_pictures(id_of(payload), [folder], forget_sources=True, key=key_of(payload))
    return Outcome()


def on_folder(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in a folder or a zip of this machine."""
    studio.actor.must_own()  # it reads any path this process may read
    paths = str(values_of(payload).get("paths", ""))
    studio.datasets.add_pictures(id_of(payload), paths, key=key_of(payload))
    return Outcome(clear=FOLDER)


def on_caption(studio: Studio, payload: Payload, view: View) -> Outcome:
    """One new caption."""
    studio.datasets.set_caption(id_of(payload), str(values_of(payload).get("caption", "")))
    return Outcome("Caption saved.")


def on_many(studio: Studio, payload: Payload, view: View) -> Outcome:
    """One change to many captions."""
    changed = studio.datasets.edit_captions(picture_ids=tuple(ids_of(payload)), **values_of(payload))
    return Outcome(f"{plural(changed, 'caption')} changed.")


def on_delete_pictures(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The pictures are gone, with their files."""
    gone = studio.datasets.delete_pictures(ids_of(payload))
    return Outcome(f"{plural(gone, 'picture')} deleted.", go={"item": None})


def _set_card(studio: Studio, dataset: Dataset) -> str:
    shown = studio.datasets.pictures(dataset.id, limit=3)
    cover = "".join(picture(media("picture", p.id, thumbnail=True, sha256=p.sha256), "") for p in shown)
    link = f'<a href="{address(dataset=dataset.id)}" data-go>{esc(dataset.name)}</a>'
    return (
        f'<article class="card"><div class="cover">{cover}</div><div><h3>{link}</h3>'
        f'<p class="hint">{plural(dataset.picture_count, "picture")} · {esc(dataset.trigger_word)}</p></div></article>'
    )


def _jobs(studio: Studio, dataset_id: int) -> str:
    """What fills the set now, and what the last import refused."""
    jobs = [j for j in studio.jobs.list(dataset_id=dataset_id, limit=20) if j.kind in _FILLS]
    shown = [job_card(studio, j) for j in jobs if j.state not in ("done", "cancelled")]
    if jobs and jobs[0].state == "done":
        shown.append(refusals(jobs[0]))
    return "".join(f'<div style="margin-bottom:16px">{s}</div>' for s in shown if s)


def _pictures(studio: Studio, view: View) -> str:
    assert view.dataset is not None
    dataset = studio.datasets.get(view.dataset)
    page = [p for p in studio.datasets.pictures(dataset.id, limit=PAGE) if p.id <= (view.until or p.id)]
    if not page:
        return card(empty("datasets", "No pictures yet. Add ten to thirty that show the same character."))
    more = _after(dataset.id, page) if view.until else _next(dataset.id, page)
    return grid([picture_tile(p) for p in page], name="datasets-grid", more=more)


def _next(dataset_id: int, page: Sequence[Picture]) -> str:
    return _after(dataset_id, page) if len(page) == PAGE else ""


def _after(dataset_id: int, page: Sequence[Picture]) -> str:
    return f"fragment/pictures/{dataset_id}?after={page[-1].id}"


def _new_form(studio: Studio) -> str:
    described = params(CreateDataset)
    characters = [("", "A new character"), *((str(c.id), c.name) for c in studio.characters.list())]
    fields = (
        forms.field(NEW, described["name"], placeholder="Mira", wide=True)
        + forms.field(NEW, described["trigger_word"], placeholder="mira7x")
        + forms.field(NEW, described["class_word"])
        + forms.field(NEW, described["caption_template"], wide=True)
        + forms.field(NEW, described["character_id"], label="Character", choices=characters, wide=True)
    )
    create = f'<div class="sticky full">{button("Create data set", "datasets-create", look="primary", form=NEW, name=f"{NEW}-go")}</div>'
    return card(forms.form(NEW, fields + create, submit=f"{NEW}-go"), title="New data set")


def _edit_form(dataset: Dataset) -> str:
    described = params(CreateDataset)
    fields = "".join(
        forms.field(EDIT, described[name], value=getattr(dataset, name), wide=True)
        for name in ("name", "trigger_word", "class_word", "caption_template")
    )
    save = button("Save", "datasets-update", form=EDIT, id=dataset.id, name=f"{EDIT}-go")
    delete = button(
        "Delete this set", "datasets-delete", look="danger", id=dataset.id, confirm=f"Delete {dataset.name}?",
        detail=f"{plural(dataset.picture_count, 'picture')} with captions go too. Trained LoRAs stay.", yes="Delete",
    )  # fmt: skip
    export = download("Download as zip", f"download/dataset/{dataset.id}")
    inner = forms.form(
        EDIT, f'{fields}<div class="actions">{save}{export}{delete}</div>', submit=f"{EDIT}-go"
    )
    return f'<details id="datasets-settings"><summary>Name, words and export</summary>{inner}</details>'


def _folder_form(dataset: Dataset) -> str:
    given = {"id": f"{FOLDER}-paths", "name": "paths", "type": "text", "placeholder": "pictures/mira",
             "data-default": "", "aria-describedby": f"{FOLDER}-paths-error"}  # fmt: skip
    body = (
        f'<div class="field wide"><label for="{FOLDER}-paths">Folder or zip on this machine</label>'
        f"<input{attributes(given)}>"
        f'<p class="error" id="{FOLDER}-paths-error" role="alert" hidden></p></div>'
        + button("Add from there", "datasets-folder", form=FOLDER, id=dataset.id, name=f"{FOLDER}-go")
    )
    inner = forms.form(FOLDER, body, submit=f"{FOLDER}-go")
    return f'<details id="datasets-from-folder"><summary>From a folder on this machine</summary>{inner}</details>'


TAB = Tab(
    "datasets",
    "Datasets",
    columns=(
        (
            Region("head", draw_head),
            Region("parts", draw_parts, live=False),
            Region("check", draw_check, live=False),
            Region("body", draw_body, waiting='<div class="skeleton"></div>'),
            Region("many", draw_many, live=False),
            *captions.REGIONS,
            *sheet.REGIONS,
            *exporting.REGIONS,
        ),
        (Region("add", draw_add, live=False),),
    ),
    actions={
        "create": on_create,
        "update": on_update,
        "delete": on_delete,
        "upload": on_upload,
        "folder": on_folder,
        "caption": on_caption,
        "many": on_many,
        "delete-pictures": on_delete_pictures,
        **captions.ACTIONS,
        **exporting.ACTIONS,
    },
    layout="aside",
)
