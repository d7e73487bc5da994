"""Captions that a model writes: who can, how, for which pictures; and how that goes."""

from __future__ import annotations

from masuka.requests import params
from masuka.requests.captions import STYLES, CaptionPictures
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.studio.captions import KINDS, Captioner
from masuka.ui import forms
from masuka.ui.cards import UNFINISHED, job_card
from masuka.ui.kit import Outcome, Payload, Region, id_of, key_of, values_of
from masuka.ui.markup import attributes, button, chip, esc, go
from masuka.ui.view import View
from masuka.ui.words import gib, plural

FORM = "captions-write"
WHICH = [("all", "All pictures that are kept"), ("empty", "Only those without a caption of their own")]
SELECTED = ("selected", "The selected ones")
WHERE = {"here": "on this machine", "hub": "on this machine, after a download", "hosted": "at a service"}
_MOST_TRAITS = 6


def draw_captioning(studio: Studio, view: View) -> str:
    """The job that writes captions now, or what kept the last one from some of them."""
    if view.dataset is None or view.part != "captions":
        return ""
    jobs = _jobs(studio, view.dataset)
    cards = [job_card(studio, job) for job in jobs if job.state in UNFINISHED]
    if not cards and jobs and jobs[0].state == "failed":
        cards = [job_card(studio, jobs[0])]
    downloads = studio.jobs.list(kind="download_model", states=UNFINISHED, limit=10)
    cards += [job_card(studio, job) for job in downloads if "captioner" in job.request]
    problems = "" if cards else _problems(studio, view.dataset)
    body = "".join(cards) + problems
    return f'<div class="captioning stack">{body}</div>' if body else ""


def panel(studio: Studio, dataset_id: int) -> str:
    """The form that starts a captioner, filled as it was filled the last time."""
    known, described = studio.captions.captioners(), params(CaptionPictures)
    last = studio.captions.style(dataset_id)
    ready = [c.name for c in known if c.ready]
    chosen = last.captioner if last.captioner in ready else next(iter(ready), "")
    who = _list([_captioner(c, chosen=c.name == chosen) for c in known if c.ready], "Who writes") + _others(known)
    always = [t for t in studio.captions.always(dataset_id) if t not in last.constant][:_MOST_TRAITS]
    seen = f"Nearly every caption says: {', '.join(always)}." if always else ""
    which = (
        f'<div class="field"><label for="{FORM}-which">Which pictures</label>'
        f'<select id="{FORM}-which" name="which" data-default="all">'
        + "".join(f'<option value="{value}">{label}</option>' for value, label in (*WHICH, SELECTED))
        + "</select></div>"
    )
    fields = (
        who
        + which
        + forms.field(FORM, described["style"], help="", choices=list(STYLES.items()), value=last.style)
        + forms.field(
            FORM, described["constant"], rows=2, value=last.constant, placeholder="brown hair\nfreckles",
            help=f"{described['constant'].help} One a line. {seen}",
        )
        + forms.field(FORM, described["keep_partial"], value=last.keep_partial)
        + forms.field(FORM, described["consistent"], value=last.consistent)
    )  # fmt: skip
    if any(c.where == "hosted" and c.ready for c in known):
        fields += forms.field(
            FORM, described["model"], value=last.model, placeholder="the usual one",
            help="Only for a service: the name of another model there.",
        )  # fmt: skip
    start = button(
        "Write captions", "datasets-captions-start", look="primary", form=FORM, selection="captions-grid",
        name=f"{FORM}-go", disabled=not ready, id=dataset_id,
    )  # fmt: skip
    note = '<p class="hint">What was there before can be had back with Undo.</p>'
    return forms.form(FORM, f'{fields}<div class="row full">{start}{note}</div>', submit=f"{FORM}-go")


def on_start(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that writes captions for all, for the empty ones, or for the selected."""
    values = values_of(payload)
    which = values.pop("which", "all")
    given = payload.get("ids")
    ids = given if which == "selected" and isinstance(given, list) else []
    if which == "selected" and not ids:
        return Outcome("Nothing is selected. Select rows first, or choose other pictures.")
    wanted = {**values, "only_empty": which == "empty", "picture_ids": tuple(ids)}
    studio.captions.start(id_of(payload), CaptionPictures.parse(wanted), key=key_of(payload))
    return Outcome("Captions are being written. You can go on meanwhile.")


def on_retry(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The last captioner again, for the pictures that it could not do."""
    dataset_id = id_of(payload)
    ids = tuple(studio.captions.problems(dataset_id))
    again = {**studio.captions.style(dataset_id).as_dict(), "picture_ids": ids, "only_empty": False}
    studio.captions.start(dataset_id, again, key=key_of(payload))
    return Outcome(f"{plural(len(ids), 'picture')} once more.")


def on_download(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches a captioner."""
    job = studio.captions.download(str(payload.get("captioner", "")))
    return Outcome(f"{job.title}. It can be chosen once it is here.")


def _list(cards: list[str], legend: str) -> str:
    body = "".join(cards)
    return f'<fieldset class="full captioners"><legend>{legend}</legend>{body}</fieldset>' if cards else ""


def _others(known: list[Captioner]) -> str:
    """Those that cannot start now, behind one click where there are others."""
    missing = [_captioner(c, chosen=False) for c in known if not c.ready]
    if len(missing) == len(known):
        return _list(missing, "Who could write")
    body = _list(missing, "Not ready")
    title = plural(len(missing), "more captioner")
    return f'<details class="full" id="captions-others"><summary>{title}, not ready yet</summary>{body}</details>' if body else ""


def _captioner(shown: Captioner, *, chosen: bool) -> str:
    """One captioner to choose, or why it cannot be, with the remedy."""
    radio = {
        "type": "radio", "name": "captioner", "value": shown.name, "id": f"{FORM}-{shown.name}",
        "checked": chosen, "disabled": not shown.ready, "aria-describedby": f"{FORM}-{shown.name}-about",
    }  # fmt: skip
    size = f"{gib(shown.size_gib)} · " if shown.where != "hosted" and shown.size_gib else ""
    licence = shown.licence if shown.commercial else f"{shown.licence} (not for commercial use)"
    remedy = ""
    if shown.can_download:
        remedy = button(
            f"Download {gib(shown.size_gib)}", "datasets-captions-download", look="quiet", captioner=shown.name
        )
    elif shown.where == "hosted" and not shown.ready:
        remedy = go("Open Settings", look="quiet", tab="settings")
    state = chip("ready", "good") if shown.ready else chip("not ready")
    why = "" if shown.ready else f'<span class="why">{esc(shown.why_not)}</span>'
    return (
        f'<div class="captioner{"" if shown.ready else " off"}"><input{attributes(radio)}>'
        f'<label for="{FORM}-{shown.name}">{esc(shown.title)}</label>{state}'
        f'<p class="hint" id="{FORM}-{shown.name}-about">{esc(shown.about)} {size}{esc(licence)} · {WHERE[shown.where]}. {why}</p>{remedy}</div>'
    )


def _problems(studio: Studio, dataset_id: int) -> str:
    """How many pictures the captioner could not do, with 'try again'."""
    found = studio.captions.problems(dataset_id)
    if not found:
        return ""
    id, problem = next(iter(found.items()))
    again = button("Try again", "datasets-captions-retry", id=dataset_id)
    those = '<button type="button" class="button quiet" data-captions-problems>Show them</button>'
    return (
        f'<div class="notice warn"><p>{plural(len(found), "picture")} could not be captioned. '
        f"{esc(studio.datasets.picture(id).original_name)}: {esc(problem)}</p>"
        f'<div class="actions">{again}{those}</div></div>'
    )


def _jobs(studio: Studio, dataset_id: int) -> list[Job]:
    """The captioners' jobs of the set, the newest first."""
    found = [job for kind in KINDS for job in studio.jobs.list(dataset_id=dataset_id, kind=kind, limit=5)]
    return sorted(found, key=lambda job: job.id, reverse=True)


REGIONS = (Region("captioning", draw_captioning),)
ACTIONS = {"captions-start": on_start, "captions-retry": on_retry, "captions-download": on_download}
