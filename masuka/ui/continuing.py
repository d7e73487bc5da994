"""After a training: more steps of it, a branch from a checkpoint, and which waits first."""

from __future__ import annotations

from dataclasses import replace

from masuka.requests.text import id_in
from masuka.store.jobs import Job
from masuka.store.runs import Run
from masuka.studio import Studio
from masuka.ui import forms
from masuka.ui.kit import Outcome, Payload, id_of, key_of, values_of
from masuka.ui.markup import address, button, card, disclosure, esc
from masuka.ui.report import shown_run
from masuka.ui.view import View
from masuka.ui.words import number

EXTEND, BRANCH = "training-extend-form", "training-branch-form"
MORE_STEPS = 300


def draw_continuing(studio: Studio, view: View) -> str:
    """More steps, or a branch; nothing while it runs or where no checkpoint is left."""
    run = shown_run(studio, view)
    if run is None or run.status in ("queued", "running", "paused", "interrupted", "created"):
        return ""
    kept = studio.training.checkpoint_steps(run.id)
    if not kept or not run.content:
        return ""
    return card(_extend(studio, run, kept[-1]) + _branch(studio, run, kept), title="Go on from here")


def draw_waiting(studio: Studio, view: View) -> str:
    """Trainings that wait, in their order, each of which can go first."""
    waiting = studio.training.waiting()
    if not waiting:
        return ""
    rows = "".join(_waits(job, first=number_ == 0) for number_, job in enumerate(waiting))
    return card(f'<div class="list bare">{rows}</div>', title="Next in the queue")


def on_extend(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued training, which goes on for so many steps."""
    more = id_in(values_of(payload).get("more")) or 0
    job = studio.training.extend(id_of(payload), more, key=key_of(payload))
    return Outcome(f"It goes on for {number(more)} steps.", go={"run": job.run_id}, clear=EXTEND)


def on_branch(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued training that begins with the chosen checkpoint."""
    values = values_of(payload)
    step = id_in(values.pop("checkpoint", None)) or 0
    job = studio.training.branch(id_of(payload), step, key=key_of(payload), **values)
    return Outcome("The branch is on its way.", go={"run": job.run_id}, clear=BRANCH)


def on_first(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The waiting training is the next one."""
    studio.jobs.put_first(id_of(payload))
    return Outcome("It is next.")


def _extend(studio: Studio, run: Run, last: int) -> str:
    steps = studio.training.defaults(run.base)["steps"]
    more = replace(steps, name="more", label="More steps", default=MORE_STEPS, minimum=1, unit="")
    field = forms.field(EXTEND, more, help=f"From step {number(last)}, as one training.")
    press = button("Train more", "training-extend", form=EXTEND, id=run.id, name="training-extend")
    body = f'{field}<div class="actions">{press}</div>'
    return forms.form(EXTEND, body, submit="training-extend")


def _branch(studio: Studio, run: Run, kept: list[int]) -> str:
    described = studio.training.defaults(run.base)
    rate = replace(described["learning_rate"], default=run.config.get("learning_rate"))
    steps = replace(described["steps"], default=run.config.get("steps"))
    best = int(run.report.get("best_step") or kept[-1])
    from_step = replace(described["steps"], name="checkpoint", label="From the checkpoint of step", default=best)
    body = (
        forms.field(
            BRANCH, from_step, help="A new training begins with what this one had learnt then.",
            choices=[(str(step), number(step)) for step in kept], value=best if best in kept else kept[-1],
        )
        + forms.field(BRANCH, steps)
        + forms.field(BRANCH, rate)
        + f'<div class="actions">{button("Start the branch", "training-branch", form=BRANCH, id=run.id, name="training-branch")}</div>'
    )  # fmt: skip
    inner = forms.form(BRANCH, body, submit="training-branch")
    return disclosure("Branch with other settings", inner, name="training-branching")


def _waits(job: Job, *, first: bool) -> str:
    link = f'<a href="{address(tab="training", run=job.run_id)}" data-go>{esc(job.title)}</a>'
    up = "" if first else button("Do this next", "training-first", look="quiet", id=job.id)
    cancel = button("Cancel", "library-cancel", look="quiet", ids=[job.id])
    return f'<div><div><h3>{link}</h3></div><div class="actions">{up}{cancel}</div></div>'
