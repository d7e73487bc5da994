"""Datasets: the sets, and of the chosen one its head, its parts and its settings."""

from __future__ import annotations

from masuka.requests import params
from masuka.requests.datasets import CreateDataset
from masuka.requests.text import id_in
from masuka.store.datasets import Dataset
from masuka.studio import Studio
from masuka.ui import captions, cutting, doctor, exporting, forms, intake, pictures, sheet, varying
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, values_of
from masuka.ui.markup import address, button, card, empty, esc, go, picture
from masuka.ui.parts import draw_parts
from masuka.ui.pictures import thumbnail
from masuka.ui.view import View
from masuka.ui.words import plural

NEW, EDIT = "datasets-new", "datasets-edit"


def draw_head(studio: Studio, view: View) -> str:
    """The chosen set's name and its one next step, or the tab's title."""
    if view.dataset is None:
        return '<div class="title"><div><h1>Datasets</h1><p class="hint">The pictures and captions that one training learns from.</p></div></div>'
    dataset = studio.datasets.get(view.dataset)
    train = add = ""
    if dataset.picture_count:
        may = studio.actor.role != "viewer"
        if may and view.part not in ("add", "settings"):  # they have a next step of their own
            train = go("Train on this set", look="primary", tab="training", dataset=dataset.id)
        if may and view.part != "add":
            add = go("Add pictures", look="plain", part="add", name="datasets-add-more")
    about = f"{plural(dataset.picture_count, 'picture')} · called by <code>{esc(dataset.trigger_word)}</code> · {esc(dataset.class_word)}"
    return (
        f'<p class="hint">{go("All data sets", dataset=None)}</p>'
        f'<div class="title"><div><h1>{esc(dataset.name)}</h1><p class="hint">{about}</p></div>'
        f'<div class="actions sticky">{add}{train}</div></div>'
    )


def draw_sets(studio: Studio, view: View) -> str:
    """Cards of all sets, while none is chosen."""
    if view.dataset is not None:
        return ""
    sets = [d for d in studio.datasets.list() if view.character in (None, d.character_id)]
    if not sets:
        return card(empty("datasets", "No data set yet. Create one, then add ten to thirty pictures."))
    return f'<div class="cards">{"".join(_set_card(studio, d) for d in sets)}</div>'


def draw_new(studio: Studio, view: View) -> str:
    """The form for a new set, while none is chosen."""
    if view.dataset is not None:
        return ""
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


def draw_settings(studio: Studio, view: View) -> str:
    """Name and words of the chosen set, and its end."""
    if view.dataset is None or view.part != "settings":
        return ""
    dataset = studio.datasets.get(view.dataset)
    described = params(CreateDataset)
    fields = "".join(
        forms.field(
            EDIT,
            described[name],
            value=getattr(dataset, name),
            wide=name != "trigger_word" and name != "class_word",
        )
        for name in ("name", "trigger_word", "class_word", "caption_template")
    )
    save = button("Save", "datasets-update", look="primary", form=EDIT, id=dataset.id, name=f"{EDIT}-go")
    trained = studio.datasets.trainings(dataset.id)
    lost = (
        f" {plural(trained, 'training')} learnt from these pictures and cannot be repeated then."
        if trained
        else ""
    )
    delete = button(
        "Delete this set", "datasets-delete", look="danger", id=dataset.id, confirm=f"Delete {dataset.name}?",
        detail=f"{plural(dataset.picture_count, 'picture')} with captions go too. Trained LoRAs stay.{lost}", yes="Delete",
    )  # fmt: skip
    form = forms.form(EDIT, f'{fields}<div class="actions">{save}</div>', submit=f"{EDIT}-go")
    end = f'<div class="row between"><p class="hint">The pictures and captions go too. Trained LoRAs stay.{lost}</p>{delete}</div>'
    return card(form, title="Name and words") + card(end)


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


def _set_card(studio: Studio, dataset: Dataset) -> str:
    shown = studio.datasets.pictures(dataset.id, limit=3)
    cover = "".join(picture(thumbnail(p), "") for p in shown)
    link = f'<a href="{address(dataset=dataset.id)}" data-go>{esc(dataset.name)}</a>'
    return (
        f'<article class="card"><div class="cover">{cover}</div><div><h3>{link}</h3>'
        f'<p class="hint">{plural(dataset.picture_count, "picture")} · {esc(dataset.trigger_word)}</p></div></article>'
    )


TAB = Tab(
    "datasets",
    "Datasets",
    columns=(
        (
            Region("head", draw_head),
            Region("parts", draw_parts, live=False),
            Region("progress", intake.draw_progress),
            Region("add", intake.draw_add, live=False),
            Region("doctor", doctor.draw_doctor),
            *cutting.REGIONS,
            Region("sets", draw_sets, waiting='<div class="skeleton"></div>'),
            Region("body", pictures.draw_pictures),
            Region("many", pictures.draw_many, live=False),
            Region("settings", draw_settings, live=False),
            *captions.REGIONS,
            *varying.REGIONS,
            *sheet.REGIONS,
            *exporting.REGIONS,
        ),
        (Region("creating", draw_new, live=False),),
    ),
    actions={
        "create": on_create,
        "update": on_update,
        "delete": on_delete,
        "upload": intake.on_upload,
        "folder": intake.on_folder,
        "links": intake.on_links,
        "hub": intake.on_hub,
        "look": doctor.on_look,
        "embedder": doctor.on_embedder,
        "strictness": doctor.on_strictness,
        "remedy": doctor.on_remedy,
        "best": doctor.on_best,
        "aside": pictures.on_aside,
        "crop": pictures.on_crop,
        "reset": pictures.on_reset,
        "caption": pictures.on_caption,
        "delete-pictures": pictures.on_delete_pictures,
        "edit": pictures.on_edit,
        "unmask": pictures.on_unmask,
        **captions.ACTIONS,
        **varying.ACTIONS,
        **cutting.ACTIONS,
        **exporting.ACTIONS,
    },
    layout="aside",
)
