"""Training: choose, start, watch it learn."""

from __future__ import annotations

from collections.abc import Sequence

from masuka.requests import Param
from masuka.store.jobs import Job
from masuka.store.runs import Run, Sample
from masuka.studio import Studio
from masuka.ui import continuing, forecast, forms, report, sweeps
from masuka.ui.cards import UNFINISHED, job_card, log_view, sample_tile, state_chip
from masuka.ui.charts import MOST_POINTS, Point, loss_chart
from masuka.ui.estimates import base_choices
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, key_of, values_of
from masuka.ui.markup import address, button, card, disclosure, empty, esc, facts, go
from masuka.ui.view import View
from masuka.ui.words import moment, number, plural, short

FORM = forecast.FORM
BASIC = ("dataset_id", "base", "name", "steps")
_HIDDEN = ("character_id",)
_SHOWN_RUNS = 12


def draw_form(studio: Studio, view: View) -> str:
    """Five fields at most, and the rest of the settings behind one click."""
    sets = [d for d in studio.datasets.list() if d.picture_count]
    if not sets:
        make = go("Make a data set", look="primary", tab="datasets")
        return card(
            empty("training", "A training learns from a data set, and there is none with pictures.", make)
        )
    bases = studio.models.bases()
    base = view.base if view.base in {b.id for b in bases} else "pocket"
    described = studio.training.defaults(base)
    chosen = _chosen_set(studio, view, [d.id for d in sets])
    fields = (
        forms.field(
            FORM, described["dataset_id"], label="Data set", help="", wide=True, value=chosen,
            choices=[(str(d.id), f"{d.name} ({plural(d.picture_count, 'picture')})") for d in sets],
        ).replace('name="dataset_id"', 'name="dataset_id" data-view-key="dataset"')
        + forms.field(
            FORM, described["base"], label="Base model", help="More are under Models.", wide=True,
            value=base, choices=base_choices(bases, base),
        ).replace('name="base"', 'name="base" data-view-key="base"')
        + forecast.presets_row(studio, base, chosen)
        + forms.field(FORM, described["name"], label="Name", help="", placeholder="the set's name and a number", wide=True)
        + forms.field(FORM, described["steps"], help="More is not always better.", wide=True)
    )  # fmt: skip
    usable = forecast.shown(described, base, studio.advice.machine())
    others = [("", "None"), *((str(d.id), d.name) for d in sets if d.id != chosen)]
    groups = [
        (title, "".join(_field(p, others) for p in members))
        for title, members in forms.grouped(usable, (*BASIC, *_HIDDEN), "Learning")
    ]
    groups.append(("Several settings at once", sweeps.fields(FORM)))
    body = forms.form(
        FORM,
        fields + _before(studio, base, chosen) + forms.advanced(FORM, groups),
        remember=f"training:{base}",
        submit="training-start",
    )
    return card(body, title="Train a LoRA")


def draw_run(studio: Studio, view: View) -> str:
    """The run that was chosen, else the one that runs, else the last one."""
    run = _run(studio, view)
    if run is None:
        if not any(d.picture_count for d in studio.datasets.list()):
            return ""  # the other column says what comes first
        return card(
            empty("training", "No training yet. It takes about three minutes with the built-in model.")
        )
    job = _jobs_by_run(studio).get(run.id)
    samples = studio.training.samples(run.id)
    config = run.config
    total = int(config.get("steps", 0))
    points = [
        Point(m.step, m.loss)
        for m in studio.training.metrics(run.id, max_points=MOST_POINTS)
        if m.loss is not None
    ]
    about = f"{esc(_title_of_base(studio, run.base))} · rank {config.get('rank', '?')} · started {moment(run.created_at)}"
    head = (
        f'<div class="title"><div><h1>{esc(run.name)}</h1><p class="hint">{about}</p></div>'
        f'<div class="actions">{_use(studio, run)}</div></div>'
    )
    progress = job_card(studio, job, log=False) if job else ""
    ended = job is None or job.state not in UNFINISHED
    chart = ""
    if points or not ended:
        chart = card(loss_chart(points, total_steps=total) + _verdict(points), title="Is it learning?")
    strip = card(
        _samples(samples, running=bool(job and job.state in UNFINISHED)), title="Samples", classes="samples"
    )
    log = log_view(studio, job) if job else ""
    more = card(log + _settings(run) + (_delete(run) if ended else ""))
    left = f'<div class="stack learning">{chart}{more}</div>'
    return f'{head}<div class="run">{progress}{left}{strip}</div>'


def draw_content(studio: Studio, view: View) -> str:
    """What the run learnt from, against its set now, and the button to do it again."""
    run = _run(studio, view)
    if run is None or not run.content:
        return ""
    found = studio.training.content(run.id)
    said = "".join(f"<li>{esc(s)}</li>" for s in found.sentences)
    now = f'<div class="notice"><ul>{said}</ul></div>' if said else '<p class="hint">Its data set is as it was.</p>'
    if studio.actor.role == "viewer":
        again = ""
    elif found.problem:
        again = f'<p class="hint">{esc(found.problem)}</p>'
    else:
        again = (
            '<p class="hint">The same pictures, captions, crops and seed as then.</p><div class="actions">'
            + button("Train again as then", "training-repeat", id=run.id, name="training-repeat")
            + "</div>"
        )
    return card(now + again, title="What it learnt from")


def draw_runs(studio: Studio, view: View) -> str:
    """Earlier trainings, each a link."""
    runs = studio.training.runs(character_id=view.character, limit=_SHOWN_RUNS)
    shown = _run(studio, view)
    if len(runs) < 2:
        return ""
    jobs = _jobs_by_run(studio)
    rows = "".join(
        _row(studio, r, jobs.get(r.id), current=shown is not None and r.id == shown.id) for r in runs
    )
    return card(f'<div class="list bare">{rows}</div>', title="Trainings")


def on_start(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued training; its run is shown at once."""
    job = studio.training.start(sweeps.without(values_of(payload)), key=key_of(payload))
    return Outcome("Training is on its way. You can close this page; it goes on.", go={"run": job.run_id})


def on_repeat(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The same training once more, from what it learnt then."""
    job = studio.training.repeat(id_of(payload), key=key_of(payload))
    return Outcome("Training is on its way, from what it learnt then.", go={"run": job.run_id})


def on_delete(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The training is gone, with its folder."""
    studio.training.delete(id_of(payload))
    return Outcome("The training is deleted.", go={"run": None})


def on_download(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that fetches a base model."""
    studio.models.download(str(payload.get("base", "")))
    return Outcome("The download is on its way.")


def _field(param: Param, others: forms.Choices) -> str:
    """One of the advanced settings; another data set is chosen by its name."""
    return forms.field(FORM, param, choices=others if param.name == "prior_dataset_id" else None)


def _before(studio: Studio, base: str, dataset_id: int) -> str:
    """Before, not after: will it work, how long, what is missing; and the button."""
    chosen = studio.models.base(base)
    start = button("Start training", "training-start", look="primary wide", form=FORM, name="training-start")
    plan = forecast.preview(studio, {"base": base, "dataset_id": dataset_id})
    if chosen.folder is None:
        fetch = button(f"Download {chosen.title}", "training-download", base=base)
        here = f"<p>{esc(chosen.title)} is not on this machine ({chosen.size_gib:,.1f} GiB).</p>"
        return f'{plan}<div class="notice warn full">{here}{fetch}</div>'
    problems = "".join(f"<p>{esc(p)}</p>" for p in studio.datasets.check(dataset_id, read_files=False))
    notice = f'<div class="notice warn full">{problems}</div>' if problems else ""
    trial = button("Try three steps", "training-trial", look="quiet", form=FORM, name="training-trial-go")
    return f'{notice}{plan}<div class="actions full">{trial}</div><div class="sticky full">{start}</div>'


def _chosen_set(studio: Studio, view: View, known: list[int]) -> int:
    if view.dataset in known:
        return int(view.dataset)
    own = [d.id for d in studio.datasets.list() if d.character_id == view.character and d.id in known]
    return own[0] if view.character and own else known[0]


def _run(studio: Studio, view: View) -> Run | None:
    if view.run is not None:
        return studio.training.run(view.run)
    runs = studio.training.runs(character_id=view.character, limit=_SHOWN_RUNS)
    active = {j.run_id for j in studio.jobs.list(kind="train_image", states=["running"])}
    return next((r for r in runs if r.id in active), runs[0] if runs else None)


def _jobs_by_run(studio: Studio) -> dict[int, Job]:
    """The newest job of each run."""
    found: dict[int, Job] = {}
    for job in studio.jobs.list(kind="train_image", limit=200):
        if job.run_id is not None:
            found.setdefault(job.run_id, job)
    return found


def _title_of_base(studio: Studio, base: str) -> str:
    return next((b.title for b in studio.models.bases() if b.id == base), base)


def _use(studio: Studio, run: Run) -> str:
    made = next((a for a in studio.models.adapters() if a.run_id == run.id), None)
    return go("Draw with it", look="plain", tab="images", adapter=made.id) if made else ""


def _samples(samples: Sequence[Sample], *, running: bool) -> str:
    if not samples:
        text = "They come at fixed steps, with the same seeds." if running else "None were drawn."
        return f'<p class="hint">{text}</p>'
    tiles = "".join(sample_tile(s.id, s.prompt, s.step) for s in samples[-12:])
    return f'<div class="strip">{tiles}</div>'


def _verdict(points: list[Point]) -> str:
    if len(points) < 20:
        return '<p class="hint">The loss of single steps jumps; the strong line is what counts.</p>'
    tenth = max(1, len(points) // 10)
    first = sum(p.value for p in points[:tenth]) / tenth
    last = sum(p.value for p in points[-tenth:]) / tenth
    change = (first - last) / first if first else 0
    text = f"Down by {change:.0%} since the start" if change > 0.02 else "Not falling yet"
    return f'<p class="hint">{text}, from {short(first)} to {short(last)}. The samples tell more than the loss.</p>'


def _settings(run: Run) -> str:
    rows = [(k.replace("_", " "), esc(number(v) if isinstance(v, (int, float)) and not isinstance(v, bool) else v))
            for k, v in run.config.items() if v not in (None, "", [], ())]  # fmt: skip
    return disclosure("All settings of this run", facts(rows), name="training-settings")


def _delete(run: Run) -> str:
    delete = button(
        "Delete this training", "training-delete", look="danger", id=run.id, confirm=f"Delete {run.name}?",
        detail="Its checkpoints, samples and measurements go too. A LoRA that it finished stays.", yes="Delete",
    )  # fmt: skip
    return f'<div class="actions">{delete}</div>'


def _row(studio: Studio, run: Run, job: Job | None, *, current: bool) -> str:
    link = f'<a href="{address(run=run.id)}" data-go{" aria-current=true" if current else ""}>{esc(run.name)}</a>'
    chip = state_chip(job) if job else ""
    return (
        f"<div{' class=selected' if current else ''}><div><h3>{link}</h3>"
        f"<p>{esc(_title_of_base(studio, run.base))} · {moment(run.created_at)}</p></div>{chip}</div>"
    )


TAB = Tab(
    "training",
    "Training",
    columns=(
        (
            Region("choices", draw_form, live=False, waiting='<div class="skeleton"></div>'),
            Region("trial", forecast.draw_trial),
            Region("waiting", continuing.draw_waiting),
            Region("runs", draw_runs),
        ),
        (
            Region("run", draw_run, waiting='<div class="skeleton"></div>'),
            Region("sweep", sweeps.draw_sweep),
            Region("report", report.draw_report),
            Region("continue", continuing.draw_continuing),
            Region("content", draw_content, live=False),
            Region("compare", report.draw_compare, live=False),
        ),
    ),
    actions={
        "start": on_start,
        "repeat": on_repeat,
        "delete": on_delete,
        "download": on_download,
        "export": report.on_export,
        "recipe": report.on_recipe,
        "judges": report.on_judges,
        "trial": forecast.on_trial,
        "preset": forecast.on_preset,
        "extend": continuing.on_extend,
        "branch": continuing.on_branch,
        "first": continuing.on_first,
        "sweep": sweeps.on_sweep,
        "sweep-cancel": sweeps.on_cancel,
    },
    layout="side",
)
