"""Before a training: will it fit, how long, what is done where memory is short; and a trial."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from masuka.errors import InvalidInput, MasukaError, NotFound
from masuka.families import family_of
from masuka.models.memory import GIB, Machine
from masuka.requests import Param
from masuka.requests.text import id_in
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.studio.planning import Forecast
from masuka.ui import forms
from masuka.ui.cards import UNFINISHED, job_card
from masuka.ui.kit import Outcome, Payload, key_of, values_of
from masuka.ui.markup import button, disclosure, esc, facts
from masuka.ui.view import View
from masuka.ui.words import duration, gib, per_step, plural

FORM = "training-form"
_ON_CUDA_ONLY = ("quantize", "compile_blocks", "blocks_on_host")
_SNR_ONLY = ("min_snr_gamma", "noise_offset")
_LONGEST_VALUES = 20_000


def plan_piece(studio: Studio, text: str) -> str:
    """The panel for the form's values as the browser has them, as JSON."""
    try:
        values = json.loads(text) if len(text) <= _LONGEST_VALUES else None
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise InvalidInput("The form did not arrive.", "Reload the page.")
    given = {str(name): value for name, value in values.items() if value not in ("", None)}
    given = {name: value for name, value in given.items() if not name.startswith("sweep_")}
    try:
        found = studio.training.plan(given)
        fit = studio.advice.fit(found.plan.request.base, "train")
        return panel(found, slow=found.fits and not fit.works)
    except NotFound:
        raise
    except MasukaError as error:
        return f'<p><strong>{esc(error.message)}</strong> {esc(error.hint)}</p>'


def panel(forecast: Forecast, *, slow: bool = False) -> str:
    """Whether it fits, what is changed, how long it takes, where the memory goes.

    `slow` is said of a base that a machine without a GPU can hold but hardly train.
    """
    plan = forecast.plan
    changes = "".join(f"<li>{esc(change)}</li>" for change in plan.changes)
    told = f"<p>So that it fits:</p><ul>{changes}</ul>" if changes else ""
    told += "<p>Without a GPU each step of it takes minutes.</p>" if slow else ""
    return (
        f"<p><strong>{esc(forecast.sentence)}</strong></p>{told}"
        f'<p class="hint">{esc(time_sentence(forecast))}</p>{_parts(forecast)}'
    )


def shown(described: Mapping[str, Param], base: str, machine: Machine) -> dict[str, Param]:
    """The settings that mean something for this base on this machine."""
    able = family_of(base)[0].capabilities
    hidden = {name for name, param in described.items() if _fixed(param)}
    hidden |= set() if able.snr_weighting else set(_SNR_ONLY)
    hidden |= set() if able.text_encoder_lora else {"train_text_encoder"}
    on_cuda = machine.device.startswith("cuda")
    hidden |= set() if on_cuda else set(_ON_CUDA_ONLY)
    hidden |= set() if machine.devices > 1 else {"processes"}
    left = {name: param for name, param in described.items() if name not in hidden}
    if not on_cuda and "optimizer" in left:
        kinds = tuple(c for c in left["optimizer"].choices if c != "adamw8bit")
        left["optimizer"] = replace(left["optimizer"], choices=kinds, help="")
    return left


def presets_row(studio: Studio, base: str, dataset_id: int) -> str:
    """The base's own recipe and what others start from; '' without those."""
    offered = studio.training.presets(base)
    if not offered:
        return ""
    named = [("Recommended", ""), *((p.name, p.name) for p in offered)]
    buttons = "".join(
        button(label, "training-preset", look="quiet", preset=name, base=base, dataset=dataset_id)
        for label, name in named
    )
    return (
        f'<div class="field wide"><span class="label" id="training-presets">Start from</span>'
        f'<div class="actions" role="group" aria-labelledby="training-presets">{buttons}</div>'
        f'<p class="help">{esc(" ".join(f"{p.name}: {p.about}" for p in offered))}</p></div>'
    )


def draw_trial(studio: Studio, view: View) -> str:
    """The trial that runs or waits, or why the last one failed."""
    job = _last_trial(studio)
    if job is None or (job.state not in UNFINISHED and job.state != "failed"):
        return f'<i data-trial="{job.id if job else 0}" hidden></i>'
    return job_card(studio, job)


def on_trial(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued trial of the form's settings."""
    values = {name: value for name, value in values_of(payload).items() if not name.startswith("sweep_")}
    studio.training.trial(values, key=key_of(payload))
    return Outcome("Three steps are being tried. What they take shows beside the button.")


def on_preset(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The form, filled with a preset's settings; base, data set and name stay."""
    base, name = str(payload.get("base", "")), str(payload.get("preset", ""))
    described = studio.training.defaults(base)
    defaults = {p.name: p.default for p in described.values() if p.name not in ("name", "dataset_id", "base")}
    chosen = studio.training.preset(name, base=base, dataset_id=id_in(payload.get("dataset")) or 0) if name else {}
    values = {k: forms.as_text(v) for k, v in {**defaults, **chosen}.items()}
    return Outcome(
        f"The form holds {name or 'the recommended settings'} now.",
        fill={"form": FORM, "remember": f"training:{base}", "values": values},
    )


def time_sentence(forecast: Forecast) -> str:
    """Steps, pictures and the time, with where it is from."""
    request = forecast.plan.request
    text = f"{plural(request.steps, 'step')} on {plural(forecast.pictures, 'picture')}"
    disk = forecast.plan.estimate.disk_bytes / GIB if forecast.plan.estimate else 0
    room = f" It takes {gib(disk)} of disk." if disk else ""
    if forecast.seconds is None or forecast.seconds_per_step is None:
        return f"{text}. How long it takes shows after the first steps, or after a trial.{room}"
    source = "the last training" if forecast.pace_from == "run" else "the trial"
    pace = per_step(forecast.seconds_per_step)
    return f"{text}, about {duration(forecast.seconds)}: {pace}, as measured by {source}.{room}"


def _parts(forecast: Forecast) -> str:
    estimate = forecast.plan.estimate
    if estimate is None:
        return ""
    rows = [(name, gib(size / GIB)) for name, size in estimate.parts.items() if size > GIB / 1000]
    rows += [(f"peak of {name}", gib(size / GIB)) for name, size in estimate.phases.items() if size > GIB / 1000]
    about = '<p class="hint">Estimated; the hungriest of these decides.</p>'
    return disclosure("Where the memory goes", facts([(n, esc(v)) for n, v in rows]) + about, name="training-parts")


def _last_trial(studio: Studio) -> Job | None:
    jobs: Sequence[Job] = studio.jobs.list(kind="try_training", limit=1)
    return jobs[0] if jobs else None


def _fixed(param: Param) -> bool:
    """A setting that this base does not leave open is not shown."""
    return param.minimum is not None and param.minimum == param.maximum


def preview(studio: Studio, values: Mapping[str, Any]) -> str:
    """The panel in its place, for the values that the form is drawn with."""
    piece = plan_piece(studio, json.dumps(dict(values), default=str))
    return f'<div class="notice plan full" id="training-plan" aria-live="polite">{piece}</div>'
