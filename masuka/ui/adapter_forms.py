"""The forms of what can be made of a LoRA, and of a LoRA that comes from elsewhere."""

from __future__ import annotations

from masuka.models.adapter_files import Found
from masuka.requests import params
from masuka.requests.adapters import (
    BakeAdapter,
    BringAdapter,
    ConvertAdapter,
    ExtractAdapter,
    MergeAdapters,
    PushAdapter,
    ResizeAdapter,
)
from masuka.store.models import Model
from masuka.studio import Studio
from masuka.studio.adapters import conventions_of
from masuka.ui import forms
from masuka.ui.markup import attributes, button, card, disclosure, esc, go

CONVERT, RESIZE, MERGE = "adapter-convert", "adapter-resize", "adapter-merge"
BAKE, PUSH, BRING, EXTRACT = "adapter-bake", "adapter-push", "adapter-bring", "adapter-extract"
READ_BY = {
    "diffusers": "diffusers and ComfyUI", "native": "ComfyUI, as the model's publisher names layers",
    "kohya": "A1111, Forge, ComfyUI, as kohya's trainers name layers",
}  # fmt: skip


def tools(studio: Studio, adapter: Model, found: Found) -> str:
    """What can be made of one LoRA, each form behind one click."""
    made = [_convert(adapter, found), _resize(adapter), _merge(studio, adapter), _push(studio, adapter)]
    if studio.actor.role == "owner":
        made.insert(3, _bake(adapter))
    return card("".join(made), title="Make something of it")


def _convert(adapter: Model, found: Found) -> str:
    described = params(ConvertAdapter)
    offered = conventions_of(adapter)
    choices = [(name, READ_BY[name]) for name in offered]
    fields = forms.field(CONVERT, described["convention"], label="For", choices=choices, value=offered[0], wide=True)
    fields += forms.field(CONVERT, described["dtype"])
    if found.kind != "lora":
        fields += forms.field(CONVERT, described["plain"], label="As a plain LoRA")
    return _form("For another program", CONVERT, fields, "Write it", "library-adapter-convert", adapter)


def _resize(adapter: Model) -> str:
    described = params(ResizeAdapter)
    fields = forms.field(RESIZE, described["rank"]) + forms.field(RESIZE, described["name"])
    return _form("Another rank", RESIZE, fields, "Make it", "library-adapter-resize", adapter)


def _merge(studio: Studio, adapter: Model) -> str:
    others = [a for a in studio.models.adapters() if a.family == adapter.family and a.id != adapter.id]
    if not others:
        return ""
    options = "".join(f'<option value="{a.id}">{esc(a.name)}</option>' for a in others)
    described = params(MergeAdapters)
    fields = (
        f'<div class="field wide"><label for="{MERGE}-other">With</label><select id="{MERGE}-other" name="other">{options}</select>'
        f'<p class="error" id="{MERGE}-other-error" role="alert" hidden></p></div>'
        + _number("weight", "Weight of this one")
        + _number("other_weight", "Weight of the other")
        + forms.field(MERGE, described["rank"])
        + forms.field(MERGE, described["name"])
    )
    return _form("Merge with another", MERGE, fields, "Merge", "library-adapter-merge", adapter)


def _bake(adapter: Model) -> str:
    described = params(BakeAdapter)
    note = '<p class="hint full">A copy of the base that has the LoRA inside: it takes as much disk as the base.</p>'
    fields = note + forms.field(BAKE, described["weight"]) + forms.field(BAKE, described["name"])
    return _form("Bake into a base", BAKE, fields, "Make the base", "library-adapter-bake", adapter)


def _push(studio: Studio, adapter: Model) -> str:
    described = params(PushAdapter)
    ready = studio.adapters.may_push()
    settings = go("Open Settings", look="quiet", tab="settings") if studio.actor.role == "owner" else ""
    note = (
        ""
        if ready
        else '<div class="notice full"><p>There is no Hugging Face token yet. One with write access is needed; it is '
        f'entered in Settings.</p><div class="actions">{settings}</div></div>'
    )
    fields = note + forms.field(PUSH, described["repo"], label="Name there", placeholder="mira/film-look", wide=True)
    fields += "".join(forms.field(PUSH, described[name]) for name in ("private", "pictures", "settings"))
    send = button(
        "Send to Hugging Face", "library-adapter-push", form=PUSH, name=f"{PUSH}-go", id=adapter.id, disabled=not ready,
        confirm="Send this LoRA to Hugging Face?", yes="Send",
        detail="It leaves this machine. Without Private, everybody can see and fetch it.",
    )  # fmt: skip
    return disclosure("Put it on Hugging Face", forms.form(PUSH, f"{fields}{send}", submit=f"{PUSH}-go"), name=f"{PUSH}-box")


def _form(title: str, name: str, fields: str, label: str, do: str, adapter: Model) -> str:
    make = button(label, do, form=name, name=f"{name}-go", id=adapter.id)
    body = forms.form(name, f'{fields}<div class="actions full">{make}</div>', submit=f"{name}-go")
    return disclosure(title, body, name=f"{name}-box")


def _number(name: str, label: str) -> str:
    given = {
        "id": f"{MERGE}-{name}", "name": name, "type": "number", "inputmode": "decimal", "step": "0.05", "value": "1",
        "min": -4, "max": 4, "aria-describedby": f"{MERGE}-{name}-error",
    }  # fmt: skip
    return (
        f'<div class="field"><label for="{MERGE}-{name}">{label}</label><input{attributes(given)}>'
        f'<p class="error" id="{MERGE}-{name}-error" role="alert" hidden></p></div>'
    )


def bring(studio: Studio) -> str:
    """A place to drop a file, and a path for what lies on this machine."""
    takes = "A safetensors file of a LoRA for one of the bases. It is recognised by its layers."
    choose = {"type": "file", "accept": ".safetensors", "multiple": True, "aria-label": "LoRA files to add"}
    drop = (
        '<div class="drop" data-upload="0" data-upload-do="library-adapter-sent"><h3>Drop a LoRA here, or choose it</h3>'
        f'<p class="hint" data-upload-state data-idle="{takes}" aria-live="polite">{takes}</p><input{attributes(choose)}></div>'
    )
    described = params(BringAdapter)
    fields = "".join(
        forms.field(BRING, described[name], wide=name == "path") for name in ("path", "base", "name", "trigger_word")
    )
    if studio.actor.role != "owner":
        return card(drop, title="Bring a LoRA")
    take = button("Take it in", "library-adapter-bring", form=BRING, name=f"{BRING}-go")
    form = forms.form(BRING, f'{fields}<div class="actions full">{take}</div>', submit=f"{BRING}-go")
    path = disclosure("From a path of this machine", form, name=f"{BRING}-box")
    return card(drop + path + _extract(studio), title="Bring a LoRA")


def _extract(studio: Studio) -> str:
    """What one base knows beyond another, where there are two of a kind."""
    here = [base for base in studio.models.bases() if base.folder is not None]
    families = [base.family for base in here]
    alike = [(base.id, base.title) for base in here if families.count(base.family) > 1]
    if not alike:
        return ""
    described = params(ExtractAdapter)
    fields = (
        forms.field(EXTRACT, described["base"], label="For", choices=alike, value=alike[0][0])
        + forms.field(EXTRACT, described["tuned"], label="Knows more", choices=alike, value=alike[-1][0])
        + forms.field(EXTRACT, described["rank"])
        + forms.field(EXTRACT, described["name"])
    )
    make = button("Extract", "library-adapter-extract", form=EXTRACT, name=f"{EXTRACT}-go")
    body = forms.form(EXTRACT, f'{fields}<div class="actions full">{make}</div>', submit=f"{EXTRACT}-go")
    return disclosure("From what one base knows beyond another", body, name=f"{EXTRACT}-box")
