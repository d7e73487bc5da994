"""How pictures get into a set, what is being taken in now, and what was refused."""

from __future__ import annotations

from dataclasses import replace

from masuka.requests import params
from masuka.requests.intake import AddFromHub, AddLinks, given_name
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.cards import UNFINISHED, job_card
from masuka.ui.kit import Outcome, Payload, id_of, key_of, values_of
from masuka.ui.markup import attributes, button, esc, go
from masuka.ui.uploads import batch_folder
from masuka.ui.view import View
from masuka.ui.words import plural

FILLS = ("import_pictures", "import_links", "import_hub", "sample_pictures")
FOLDER, LINKS, HUB = "datasets-folder", "datasets-links", "datasets-hub"
REFUSED_SHOWN = 50
_NONE_YET = (
    '<div class="empty"><img src="drawing/datasets" alt="" width="112" height="112">'
    "<p>No pictures yet. Add ten to thirty that show the same character.</p></div>"
)
_TAKES = "Photos, a whole folder, or a zip or tar with captions. JPEG, PNG, WebP, HEIC, AVIF, TIFF; at most 50 MB each."


def draw_add(studio: Studio, view: View) -> str:
    """Every way in, where asked for or nothing is in yet; else a place to drop."""
    if view.dataset is None or view.part not in ("", "add"):
        return ""
    dataset = studio.datasets.get(view.dataset)
    if view.part == "" and (dataset.picture_count or _fills(studio, dataset.id)):
        return _drop(dataset, "drop slim", "")
    if dataset.picture_count:
        head = f'<div class="row between"><h2>Add pictures</h2>{go("Back to the pictures", part=None)}</div>'
        drop = _drop(dataset, "drop", "")
    else:
        head, drop = "", _drop(dataset, "drop roomy", _NONE_YET)
    ways = (
        f'<div class="ways">{_links_form(dataset)}{_hub_form(dataset)}{_folder_form(studio, dataset)}</div>'
    )
    return f'<section class="card adding" aria-label="Add pictures">{head}{drop}{_folder_choice(dataset)}{ways}</section>'


def draw_progress(studio: Studio, view: View) -> str:
    """What fills the set now, what failed last, and what the last import did not take."""
    if view.dataset is None or view.part not in ("", "add"):
        return ""
    jobs = studio.jobs.list(dataset_id=view.dataset, limit=20)
    fills = [j for j in jobs if j.kind in FILLS]
    looks = [j for j in jobs if j.kind == "check_dataset"]
    # What failed is told until it was tried again; looking is told by the doctor.
    shown = [j for j in fills if j.state in UNFINISHED]
    shown += [jobs_of[0] for jobs_of in (fills, looks) if jobs_of and jobs_of[0].state == "failed"]
    told = [job_card(studio, replace(j, message=given_name(j.message))) for j in shown]
    if fills and fills[0].state == "done":
        told.append(left_out(fills[0]))
        if not looks or looks[0].id < fills[0].id:
            told.append(_unlooked(studio, fills[0]))
    return "".join(told)


def _fills(studio: Studio, dataset_id: int) -> bool:
    """Whether pictures are on their way: this is drawn once, and they arrive meanwhile."""
    jobs = studio.jobs.list(dataset_id=dataset_id, states=("queued", "running"), limit=20)
    return any(job.kind in FILLS for job in jobs)


def _unlooked(studio: Studio, job: Job) -> str:
    """That nobody compared what came in, with the way to have it done; else ''.

    The app has it done by itself; only one that was ended at that moment did not.
    """
    if not (job.result or {}).get("unlooked"):
        return ""
    look = ""
    if studio.actor.role != "viewer":
        look = button("Look at all of them", "datasets-look", id=job.dataset_id)
    return f'<div class="notice"><p>The new pictures were not compared with the others yet.</p>{look}</div>'


def left_out(job: Job) -> str:
    """What an import did not take and why, to be put away; '' when it took all."""
    result = job.result or {}
    refused, known = result.get("refused", []), result.get("duplicates", 0)
    if not refused and not known:
        return ""
    parts = [f"{plural(len(refused), 'file')} not added"] if refused else []
    parts += [f"{plural(known, 'picture')} here already"] if known else []
    away = {"type": "button", "class": "button quiet", "data-hide": f"left-out-{job.id}"}
    rows = "".join(
        f"<li><strong>{esc(given_name(r.get('name', '')))}</strong> {esc(r.get('message', ''))} {esc(r.get('hint', ''))}</li>"
        for r in refused[:REFUSED_SHOWN]
    )
    more = len(refused) - REFUSED_SHOWN
    rest = f"<p>And {plural(more, 'further file')}, named in the job's log.</p>" if more > 0 else ""
    return (
        f'<div class="notice warn left-out" id="left-out-{job.id}"><div class="row between">'
        f"<p>{' · '.join(parts)}</p><button{attributes(away)}>Put away</button></div>"
        f"{f'<ul>{rows}</ul>' if rows else ''}{rest}</div>"
    )


def on_upload(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in what was uploaded."""
    folder = batch_folder(studio, str(payload.get("batch", "")))
    studio.datasets.add_pictures(id_of(payload), [folder], forget_sources=True, key=key_of(payload))
    return _begun(view)


def on_folder(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in a folder or an archive of this machine."""
    studio.actor.must_own()  # it reads any path this process may read
    paths = str(values_of(payload).get("paths", ""))
    studio.datasets.add_pictures(id_of(payload), paths, key=key_of(payload))
    return _begun(view, FOLDER)


def on_links(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches pictures from a list of addresses."""
    links = str(values_of(payload).get("links", ""))
    studio.datasets.add_links(id_of(payload), links, key=key_of(payload))
    return _begun(view, LINKS)


def on_hub(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that takes in a data set of the Hugging Face Hub."""
    values = values_of(payload)
    revision = str(values.get("revision", "")) or None
    studio.datasets.add_from_hub(id_of(payload), str(values.get("repo", "")), revision, key=key_of(payload))
    return _begun(view, HUB)


def _begun(view: View, form: str = "") -> Outcome:
    """The pictures are shown, where they will appear."""
    return Outcome(clear=form, go={"part": None} if view.part else {})


def _drop(dataset: Dataset, classes: str, above: str) -> str:
    choose = {
        "type": "file", "multiple": True, "aria-label": "Pictures to add",
        "accept": "image/*,.heic,.zip,.tar,.tgz,.gz,.txt,.caption,.jsonl,.csv",
    }  # fmt: skip
    return (
        f'<div class="{classes}" data-upload="{dataset.id}" data-whole-page>{above}<h3>Drop pictures here, or choose them</h3>'
        f'<p class="hint" data-upload-state data-idle="{_TAKES}" aria-live="polite">{_TAKES}</p><input{attributes(choose)}></div>'
    )


def _folder_choice(dataset: Dataset) -> str:
    return (
        '<label class="folder-choice hint">or <span>choose a whole folder</span><input type="file" webkitdirectory '
        f'multiple data-upload-folder="{dataset.id}" aria-label="Folder to add"></label>'
    )


def _links_form(dataset: Dataset) -> str:
    described = params(AddLinks)
    body = forms.field(
        LINKS, described["links"], label="Addresses, one a line", rows=4, placeholder="https://example.com/mira-01.jpg", wide=True,
        help="Pictures that anybody may see. Only http and https, and no address of this machine or its network.",
    ) + button("Fetch them", "datasets-links", form=LINKS, id=dataset.id, name=f"{LINKS}-go")  # fmt: skip
    return _way("datasets-from-links", "From a list of links", forms.form(LINKS, body, submit=f"{LINKS}-go"))


def _hub_form(dataset: Dataset) -> str:
    described = params(AddFromHub)
    body = (
        forms.field(HUB, described["repo"], label="Data set on Hugging Face", placeholder="someone/pictures")
        + forms.field(HUB, described["revision"], label="Version", placeholder="the newest")
        + button("Take it in", "datasets-hub", form=HUB, id=dataset.id, name=f"{HUB}-go")
    )
    return _way("datasets-from-hub", "From Hugging Face", forms.form(HUB, body, submit=f"{HUB}-go"))


def _folder_form(studio: Studio, dataset: Dataset) -> str:
    if studio.actor.role != "owner":
        return ""
    given = {"id": f"{FOLDER}-paths", "name": "paths", "type": "text", "placeholder": "pictures/mira",
             "data-default": "", "aria-describedby": f"{FOLDER}-paths-error"}  # fmt: skip
    body = (
        f'<div class="field wide"><label for="{FOLDER}-paths">Folder, zip or tar on this machine</label>'
        f"<input{attributes(given)}>"
        f'<p class="error" id="{FOLDER}-paths-error" role="alert" hidden></p></div>'
        + button("Add from there", "datasets-folder", form=FOLDER, id=dataset.id, name=f"{FOLDER}-go")
    )
    return _way(
        "datasets-from-folder",
        "From a folder on this machine",
        forms.form(FOLDER, body, submit=f"{FOLDER}-go"),
    )


def _way(name: str, title: str, body: str) -> str:
    return f'<details id="{name}"><summary>{esc(title)}</summary>{body}</details>'
