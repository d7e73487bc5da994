"""masuka train plan|try|extend|branch|sweep|memory: before a training, and after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.cli.make import BASES, BY_BASE_TRAINING, Later, Preset, settings_of
from masuka.models import memory
from masuka.models.memory import GIB
from masuka.requests.sweeps import SweepTraining
from masuka.requests.training import TrainImage
from masuka.studio import Studio

SHAPES = ((512, "none"), (1024, "none"), (512, "nf4"), (1024, "nf4"))


def add_to(group: typer.Typer) -> None:
    """The commands, in the group that trains."""
    _add_before(group)
    _add_after(group)
    _add_beside(group)


def _add_before(group: typer.Typer) -> None:

    @command(group, "plan", request=TrainImage, argument="dataset_id", by_base=BY_BASE_TRAINING)
    def plan(studio: Studio, values: dict[str, object], preset: Preset = "") -> Answer:
        """Says whether a training fits here, how long it takes, what is changed."""
        forecast = studio.training.plan(settings_of(studio, values, preset))
        estimate = forecast.plan.estimate
        parts = [] if estimate is None else [f"  {n}: {b / GIB:.1f} GiB" for n, b in estimate.parts.items()]
        time = "" if forecast.seconds is None else f"About {forecast.seconds / 60:,.0f} min."
        lines = [forecast.sentence, *forecast.plan.changes, time, *parts]
        data = {
            "fits": forecast.fits, "sentence": forecast.sentence, "changes": forecast.plan.changes,
            "request": forecast.plan.request.as_dict(), "estimate": estimate, "seconds": forecast.seconds,
            "seconds_per_step": forecast.seconds_per_step,
        }  # fmt: skip
        return Answer(data, "\n".join(line for line in lines if line), code=0 if forecast.fits else 1)

    @command(group, "try", request=TrainImage, argument="dataset_id", by_base=BY_BASE_TRAINING)
    def try_training(
        studio: Studio, values: dict[str, object], preset: Preset = "", as_json: bool = False
    ) -> Answer:
        """Trains three steps that nothing comes of, and tells their pace and memory."""
        job = show.run(studio, studio.training.trial(settings_of(studio, values, preset)), quiet=as_json)
        found = job.result or {}
        peak = max(found["peak_gpu_bytes"], found["peak_ram_bytes"] if not found["peak_gpu_bytes"] else 0)
        return Answer(
            {"job": job}, f"{found['seconds_per_step']:.2f} s/step, {peak / GIB:.1f} GiB at the peak."
        )


def _add_after(group: typer.Typer) -> None:

    @command(group, "extend")
    def extend(
        studio: Studio, run_id: int, steps: int, later: Later = False, as_json: bool = False
    ) -> Answer:
        """Goes on with a training that has ended, for so many steps more."""
        return _queued(studio, studio.training.extend(run_id, steps), later, as_json)

    @command(group, "branch")
    def branch(
        studio: Studio,
        run_id: int,
        checkpoint: int,
        steps: int | None = None,
        learning_rate: float | None = None,
        later: Later = False,
        as_json: bool = False,
    ) -> Answer:
        """Begins a new training with what another had learnt at a checkpoint."""
        given = {"steps": steps, "learning_rate": learning_rate}
        changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return _queued(studio, studio.training.branch(run_id, checkpoint, **changed), later, as_json)


def _add_beside(group: typer.Typer) -> None:

    @command(group, "sweep", request=SweepTraining)
    def sweep(
        studio: Studio,
        values: dict[str, object],
        dataset_id: int,
        base: str = "pocket",
        preset: Preset = "",
        later: Later = False,
        as_json: bool = False,
    ) -> Answer:
        """Trains with every combination of settings and says which came out best."""
        settings = settings_of(studio, {"dataset_id": dataset_id, "base": base}, preset)
        made = studio.sweeps.start(values, settings)
        for row in studio.sweeps.table(made.id):
            if not later and row.run.job_id is not None:
                show.run(studio, studio.jobs.get(row.run.job_id), quiet=as_json)
        rows = studio.sweeps.table(made.id)
        lines = [
            (row.run.id, _told(row.settings), row.run.status, _told(row.scores), "best" if row.best else "")
            for row in rows
        ]
        head = ("id", "settings", "state", "scores", "")
        return Answer({"sweep": made, "rows": rows}, show.table(head, lines, empty="Nothing was started."))

    @command(group, "memory")
    def needs() -> Answer:
        """Prints what training each base takes of a GPU's memory."""
        return Answer(list(memory_rows()), memory_table())


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )


def memory_rows() -> list[dict[str, Any]]:
    """Estimated GiB of GPU memory of each base, by resolution and format."""
    rows = []
    for entry in BASES:
        if entry.size is None or entry.size.denoiser < memory.LARGE_PARAMETERS or not entry.trainable:
            continue
        row: dict[str, Any] = {"base": entry.id, "title": entry.title}
        for side, kind in SHAPES:
            request = TrainImage(dataset_id=1, base=entry.id, resolution_px=side, quantize=kind)  # type: ignore[arg-type]
            found = memory.training(entry, request, pictures=20, dtype="bf16")
            assert found is not None
            row[f"{side}_{kind}"] = round(found.gpu_bytes / GIB, 1)
        rows.append(row)
    return rows


def memory_table() -> str:
    """The same as Markdown."""
    head = "| Base | 512 px, bf16 | 1024 px, bf16 | 512 px, nf4 | 1024 px, nf4 |\n|---|---|---|---|---|\n"
    lines = [
        f"| {row['title']} | " + " | ".join(f"{row[f'{s}_{k}']} GiB" for s, k in SHAPES) + " |"
        for row in memory_rows()
    ]
    return head + "\n".join(lines)


def _queued(studio: Studio, job: Any, later: bool, as_json: bool) -> Answer:
    if not later:
        job = show.run(studio, job, quiet=as_json)
    return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
