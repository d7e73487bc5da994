"""A data set that goes elsewhere: as a file to download, or to Hugging Face."""

from __future__ import annotations

from masuka.errors import InvalidInput, NotFound
from masuka.requests import params
from masuka.requests.exchange import PushDataset
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.cards import UNFINISHED, job_card, when
from masuka.ui.kit import Outcome, Payload, Region, id_of, values_of
from masuka.ui.markup import attributes, button, card, chip, download, esc, go
from masuka.ui.parts import nothing_yet
from masuka.ui.view import View
from masuka.ui.words import plural

PACK, PUSH = "export-pack", "export-push"
LAYOUTS = {
    "zip": ("Zip", "Pictures, a .txt caption beside each, and what masuka needs to take it in again."),
    "kohya": ("Kohya folder", "A folder named by repeats and class, with .txt captions: for kohya's scripts and those that read the same."),
    "imagefolder": ("Imagefolder", "Pictures and one metadata.jsonl with the captions: for diffusers and datasets."),
}  # fmt: skip
LICENCES = {
    "other": "Another one, or none", "cc0-1.0": "CC0: anybody, anything", "cc-by-4.0": "CC BY 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0", "cc-by-nc-4.0": "CC BY-NC 4.0: not for commercial use",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0", "cc-by-nd-4.0": "CC BY-ND 4.0", "cc-by-nc-nd-4.0": "CC BY-NC-ND 4.0",
    "mit": "MIT", "apache-2.0": "Apache 2.0", "openrail": "OpenRAIL",
}  # fmt: skip
TOKEN = "HF_TOKEN"  # noqa: S105 - a name
_FILES_SHOWN = 1
_MIB = 2**20


def draw_export(studio: Studio, view: View) -> str:
    """The two forms; drawn only when the view changed, so that nothing typed is lost."""
    if view.dataset is None or view.part != "export":
        return ""
    dataset = studio.datasets.get(view.dataset)
    if not dataset.picture_count:
        return f'<div class="whole">{card(nothing_yet(studio, "Nothing to export yet."))}</div>'
    if studio.actor.role == "viewer":
        now = download("Download as zip", f"download/dataset/{dataset.id}", look="primary")
        return f'<div class="whole">{card(now, title="Download")}</div>'
    return f'<div class="whole exports">{_pack(studio, dataset.id)}{_push(studio, dataset.id)}</div>'


def draw_exports(studio: Studio, view: View) -> str:
    """What is being packed or sent, and what can be fetched."""
    if view.dataset is None or view.part != "export":
        return ""
    packed = studio.jobs.list(dataset_id=view.dataset, kind="export_dataset", limit=10)
    sent = studio.jobs.list(dataset_id=view.dataset, kind="push_dataset", limit=10)
    cards = [job_card(studio, j) for j in (*packed, *sent) if j.state in UNFINISHED]
    cards += [job_card(studio, jobs[0]) for jobs in (packed, sent) if jobs and jobs[0].state == "failed"]
    cards += [_file(studio, j) for j in [j for j in packed if j.state == "done"][:_FILES_SHOWN]]
    cards += [_place(j) for j in [j for j in sent if j.state == "done"][:_FILES_SHOWN]]
    body = "".join(c for c in cards if c)
    return f'<div class="whole stack" aria-live="polite">{body}</div>' if body else ""


def on_pack(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that packs the set."""
    layout = str(values_of(payload).get("layout", "zip"))
    studio.datasets.export_job(id_of(payload), layout)
    return Outcome("It is being packed. The download shows here when it is done.")


def on_push(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that sends the set to Hugging Face."""
    values = values_of(payload)
    if not values.get("licence"):
        raise InvalidInput(
            "It is not said how others may use the pictures.", "Choose a licence.", field="licence"
        )
    studio.datasets.push(
        id_of(payload), str(values.get("repo", "")), values.get("private") is not False,
        licence=str(values["licence"]), consent=str(values.get("consent", "")),
    )  # fmt: skip
    return Outcome("It is on its way. You can close this page; it goes on.")


def _pack(studio: Studio, dataset_id: int) -> str:
    kept = studio.doctor.report(dataset_id).kept
    choices = "".join(
        f'<div class="captioner layout"><input type="radio" name="layout" value="{value}" id="{PACK}-{value}" '
        f'aria-describedby="{PACK}-{value}-about"{attributes({"checked": value == "zip"})}>'
        f'<label for="{PACK}-{value}">{title}</label><p class="hint" id="{PACK}-{value}-about">{about}</p></div>'
        for value, (title, about) in LAYOUTS.items()
    )
    make = button(
        "Pack for download", "datasets-export", form=PACK, name=f"{PACK}-go", id=dataset_id
    )
    note = f'<p class="hint">{plural(kept, "picture")} as edited, with captions. Those that are set aside stay here.</p>'
    body = f'<fieldset class="full captioners"><legend>As</legend>{choices}</fieldset><div class="row full">{make}{note}</div>'
    return card(forms.form(PACK, body, submit=f"{PACK}-go"), title="Download")


def _push(studio: Studio, dataset_id: int) -> str:
    described = params(PushDataset)
    licences = [("", "Choose one"), *((name, LICENCES[name]) for name in described["licence"].choices)]
    fields = (
        forms.field(PUSH, described["repo"], label="Name there", placeholder="mira/portraits", wide=True)
        + forms.field(PUSH, described["licence"], choices=licences, value="", wide=True)
        + forms.field(PUSH, described["consent"], label="Consent", rows=3, placeholder="Nobody real is shown.")
        + forms.field(PUSH, described["private"])
    )
    ready = bool(_token(studio))
    send = button(
        "Send to Hugging Face", "datasets-push", form=PUSH, name=f"{PUSH}-go", id=dataset_id, disabled=not ready,
        confirm="Send these pictures to Hugging Face?", yes="Send",
        detail="They leave this machine. Without Private, everybody can see and fetch them.",
    )  # fmt: skip
    settings = go("Open Settings", look="quiet", tab="settings") if studio.actor.role == "owner" else ""
    note = (
        ""
        if ready
        else '<div class="notice full"><p>There is no Hugging Face token yet. One with write access is needed; it is '
        f'entered in Settings.</p><div class="actions">{settings}</div></div>'
    )
    return card(forms.form(PUSH, f"{note}{fields}{send}", submit=f"{PUSH}-go"), title="Hugging Face")


def _token(studio: Studio) -> str:
    try:
        return studio.preferences.value(TOKEN)
    except NotFound:
        return ""


def _file(studio: Studio, job: Job) -> str:
    """The packed file, to fetch; what went meanwhile is not offered."""
    try:
        file = studio.datasets.exported(job.id)
    except NotFound:
        return ""
    size = (job.result or {}).get("bytes", 0) / _MIB
    count = int((job.result or {}).get("pictures", 0))
    about = f"{plural(count, 'picture')} · {max(size, 0.1):,.1f} MiB · packed {when(job.finished_at)}"
    link = download("Download", f"download/export/{job.id}", look="primary")
    return (
        f'<article class="card"><div class="row between"><div><h3>{esc(file.name)}</h3>'
        f'<p class="hint">{about}</p></div>{link}</div></article>'
    )


def _place(job: Job) -> str:
    """Where the set is on Hugging Face now."""
    result = job.result or {}
    url, repo = str(result.get("url", "")), str(result.get("repo", ""))
    link = f'<a href="{esc(url)}" target="_blank" rel="noopener noreferrer">{esc(repo)}</a>'
    shown = link if url.startswith(("https://", "http://")) else esc(repo)
    seen = "private" if job.request.get("private") is not False else "everybody can see it"
    return (
        f'<article class="card"><div class="row between"><div><h3>{shown}</h3>'
        f'<p class="hint">{plural(int(result.get("pictures", 0)), "picture")} · sent {when(job.finished_at)}</p></div>'
        f"{chip(seen, 'good' if seen == 'private' else 'warn')}</div></article>"
    )


REGIONS = (Region("exports", draw_exports), Region("export", draw_export, live=False))
ACTIONS = {"export": on_pack, "push": on_push}
