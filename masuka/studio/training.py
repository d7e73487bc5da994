"""Trainings: check, start, look at."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masuka.errors import Conflict, InvalidInput, NotFound, OutOfDisk, OutOfMemory
from masuka.families import family_of, train_limits_of
from masuka.families.abilities import must_be_able
from masuka.models import programs
from masuka.requests import presets
from masuka.requests.base import Param, params
from masuka.requests.text import NAME_CHARS, clean_filename
from masuka.requests.training import TrainImage
from masuka.store import characters, checkpoints, runs
from masuka.store.jobs import Job
from masuka.store.runs import Metric, Run, Sample
from masuka.studio import content
from masuka.studio.content import Content, Difference
from masuka.studio.context import Context, given, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.handing import Handing
from masuka.studio.jobs import Jobs
from masuka.studio.models import Models
from masuka.studio.planning import Forecast, Planning, name_of

SHAPE = ("base", "method", "rank", "alpha", "lokr_factor", "layers", "blocks", "train_text_encoder")
"""Settings that a branch has from its checkpoint."""
_NUMBER = re.compile(r"(.*\S) ([1-9][0-9]{0,5})", re.ASCII)
_DIGITS = 8
"""Room at the end of a name for a space and the number."""


class Training:
    """Start trainings and read what they measured."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._datasets = Datasets(context)
        self._models = Models(context)
        self._planning = Planning(context)
        self._handing = Handing(context)

    def defaults(self, base: str = "pocket") -> dict[str, Param]:
        """Every setting with the base's own range and default, for form and command line."""
        return params(TrainImage, train_limits_of(base))

    def presets(self, base: str) -> list[presets.Preset]:
        """Named beginnings that suit the base; its own recipe is `defaults`."""
        return [preset for preset in presets.PRESETS if presets.suits(preset, train_limits_of(base))]

    def preset(self, name: str, *, base: str, dataset_id: int) -> dict[str, Any]:
        """The settings of that name for the set; raises NotFound."""
        count = self._datasets.get(dataset_id).picture_count
        return presets.values_of(
            presets.preset_named(name), pictures=count, steps=self.defaults(base)["steps"]
        )

    def plan(self, request: TrainImage | Mapping[str, Any] | None = None, /, **values: Any) -> Forecast:
        """What such a training takes here, and what is done where memory is short.

        Raises what `start` would for the settings; whether the base is here does not matter.
        """
        wanted, learnt, _ = self._asked(request, values)
        return self._planning.forecast(wanted, pictures=len(learnt.pictures))

    def start(
        self,
        request: TrainImage | Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        sweep_id: int | None = None,
        **values: Any,
    ) -> Job:
        """The queued training of a LoRA; the same `key` again gives the same job again.

        Raises InvalidInput for an empty set or a setting out of the base's range, Conflict
        when the base is not installed, OutOfMemory or OutOfDisk when it cannot fit here.
        """
        self._context.actor.must_edit()
        wanted, learnt, named = self._asked(request, values)
        return self._start(wanted, learnt, named, key, sweep_id=sweep_id)

    def trial(
        self,
        request: TrainImage | Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        **values: Any,
    ) -> Job:
        """The queued trial: three real steps, which tell the pace and what is taken.

        Raises what `start` raises, but not that it cannot fit: the trial finds out.
        """
        self._context.actor.must_edit()
        wanted, learnt, named = self._asked(request, values)
        self._models.must_be_trainable(wanted.base)
        forecast = self._planning.forecast(wanted, pictures=len(learnt.pictures))
        tried = forecast.plan.request
        params = self._handing.params(tried, learnt, name=named, folder=Path(), output=Path(), run_id=None)
        return self._jobs.add(
            "try_training",
            title=f"Trying a training of {named}",
            request=tried.as_dict(),
            params={**params, "machine": name_of(self._planning.machine())},
            character_id=tried.character_id or learnt.character_id,
            dataset_id=learnt.dataset_id,
            idempotency_key=key,
        )

    def repeat(self, run_id: int, *, key: str | None = None, **values: Any) -> Job:
        """The same training once more, from what it learnt then; `values` change settings.

        Its data set may have changed or be gone. Raises Conflict when its pictures are gone,
        or for a training of before MASUKA recorded where they lay.
        """
        self._context.actor.must_edit()
        run = self.run(run_id)
        then = self._then(run)
        given_before = {k: v for k, v in run.config.items() if k not in ("name", "character_id")}
        wanted = TrainImage.parse(
            {**given_before, "character_id": run.character_id, **values},
            limits=train_limits_of(str(values.get("base", run.base))),
        )
        return self._start(wanted, then, run.name, key)

    def extend(self, run_id: int, steps: int, *, key: str | None = None) -> Job:
        """The same training, going on for so many steps from its last checkpoint.

        Its learning rate follows its course as if it had been that long from here on.
        Raises Conflict while it runs, or when no checkpoint or picture is left.
        """
        self._context.actor.must_edit()
        run, last = self._ended(run_id), self._last_checkpoint(run_id)
        then = self._then(run)
        # So many more were asked for: an early stop would end them at once.
        config = {**run.config, "steps": last.step + steps, "stop_early": 0}
        wanted = TrainImage.parse(config, limits=train_limits_of(run.base))
        self._models.must_be_trainable(wanted.base)
        with self._context.store.write():
            before = self._jobs.asked_before(key)
            if before is not None:
                return before
            self._ended(run_id)  # again, now that nobody else can queue it meanwhile
            store, actor = self._context.store, self._context.actor
            run = runs.set_run(store, actor=actor, id=run.id, config=wanted.as_dict())
            name = f"{run.name} to {wanted.steps}"
            return self._queued(run, wanted, then, key, name=name, more={"until": wanted.steps})

    def branch(self, run_id: int, step: int, *, key: str | None = None, **values: Any) -> Job:
        """A new training that begins with what a checkpoint of another has learnt.

        `values` change settings; what shapes the LoRA stays. Its steps count from 0.
        Raises NotFound when the checkpoint is gone, InvalidInput for another shape.
        """
        self._context.actor.must_edit()
        run = self.run(run_id)
        found = next((c for c in self._checkpoints(run_id) if c.step == step), None)
        if found is None:
            raise NotFound(f"The checkpoint of step {step:,} is gone.", "Choose one that is still there.")
        then = self._then(run)
        config = {k: v for k, v in run.config.items() if k not in ("name", "character_id")}
        given_now = {**config, "character_id": run.character_id, **values}
        wanted = TrainImage.parse(given_now, limits=train_limits_of(run.base))
        _must_have_shape(run.config, wanted)
        folder = self._context.workspace.resolve(found.folder)
        return self._start(wanted, then, run.name, key, parent=run, begin=folder)

    def checkpoint_steps(self, run_id: int) -> list[int]:
        """The steps of the checkpoints that are still there; raises NotFound for the run."""
        return [checkpoint.step for checkpoint in self._checkpoints(run_id)]

    def waiting(self) -> list[Job]:
        """Trainings that wait for their turn, the next one first."""
        jobs = self._jobs.list(kind="train_image", states=["queued"], limit=100)
        return sorted(jobs, key=lambda job: job.position)

    def content(self, run_id: int) -> Difference:
        """What the run learnt from, against its data set as it is now; raises NotFound."""
        run = self.run(run_id)
        then = content.recorded(run.content, dataset_id=run.dataset_id, character_id=run.character_id)
        now = None
        if run.dataset_id is not None:
            try:
                dataset = self._datasets.get(run.dataset_id)
            except NotFound:  # shared is what came of it, not what it learnt from
                return content.unseen(then)
            kept = [p for p in self._datasets.every_picture(dataset.id) if not p.aside]
            now = content.of(dataset, kept)
        gone = {p["sha256"] for p in then.pictures if not then.problem and self._handing.is_gone(p)}
        return content.difference(then, now, gone)

    def runs(self, *, character_id: int | None = None, limit: int = 50) -> list[Run]:
        """Trainings, the newest first."""
        store, actor = self._context.store, self._context.actor
        return runs.list_runs(store, actor=actor, character_id=character_id, limit=limit)

    def run(self, run_id: int) -> Run:
        """One training; raises NotFound."""
        return runs.get_run(self._context.store, actor=self._context.actor, id=run_id)

    def metrics(self, run_id: int, *, max_points: int = 300) -> list[Metric]:
        """At most `max_points` of the run's measurements, evenly chosen, in step order."""
        store, actor = self._context.store, self._context.actor
        return runs.list_metrics(store, actor=actor, run_id=run_id, max_points=max_points)

    def samples(self, run_id: int) -> list[Sample]:
        """The run's sample pictures in step order."""
        return runs.list_samples(self._context.store, actor=self._context.actor, run_id=run_id)

    def delete(self, run_id: int, *, timeout_s: float = 30) -> None:
        """Stops the training and deletes it with jobs, figures, samples, checkpoints.

        A LoRA that it made stays. Raises Conflict when it does not stop.
        """
        self._context.actor.must_edit()
        run = self.run(run_id)
        # Its jobs too: without checkpoints and figures there is nothing to try again.
        jobs = self._jobs.list(run_id=run.id, limit=1000)
        self._jobs.delete([job.id for job in jobs], timeout_s=timeout_s)
        folder = self._folder(run.id)
        if folder.exists():
            shutil.rmtree(folder)
        runs.delete_run(self._context.store, actor=self._context.actor, id=run.id)

    def _folder(self, run_id: int) -> Path:
        return self._context.workspace.runs / f"{run_id:05d}"

    def _asked(
        self, request: TrainImage | Mapping[str, Any] | None, values: Mapping[str, Any]
    ) -> tuple[TrainImage, Content, str]:
        """The checked request, what it learns from, and what its name begins with."""
        wanted = parsed(TrainImage, request, values, train_limits_of(self._base_of(request, values)))
        self._must_be_sound(wanted)
        dataset = self._datasets.get(wanted.dataset_id)
        return wanted, self._handing.content_of(dataset.id, "dataset_id"), dataset.name

    def _must_be_sound(self, wanted: TrainImage) -> None:
        """Raises InvalidInput for what the base cannot do, NotFound for a foreign character."""
        must_be_able(family_of(wanted.base)[0], wanted)
        if wanted.character_id is not None:
            characters.get_character(self._context.store, actor=self._context.actor, id=wanted.character_id)

    def _start(
        self,
        wanted: TrainImage,
        learnt: Content,
        named: str,
        key: str | None,
        *,
        parent: Run | None = None,
        begin: Path | None = None,
        sweep_id: int | None = None,
    ) -> Job:
        """The queued training of that content; `named` is what its own name begins with."""
        self._must_be_sound(wanted)
        self._models.must_be_trainable(wanted.base)
        programs.must_be_installed(wanted.metrics_to)
        character_id = wanted.character_id or learnt.character_id
        name = wanted.name or self._next_name(named, character_id)
        forecast = self._planning.forecast(wanted, pictures=len(learnt.pictures))
        _must_fit(forecast)
        with self._context.store.write():
            before = self._jobs.asked_before(key)
            if before is not None:
                return before
            family, _ = family_of(wanted.base)
            planned = forecast.plan.request
            run = runs.add_run(
                self._context.store,
                actor=self._context.actor,
                name=name,
                base=wanted.base,
                family=family.name,
                dataset_id=learnt.dataset_id,
                character_id=character_id,
                config=planned.as_dict(),
                content=learnt.as_row(),
                parent_id=None if parent is None else parent.id,
                sweep_id=sweep_id,
                estimate=forecast.as_row(self._planning.machine()),
            )
            more = {} if begin is None else {"begins_with": str(_taken_along(begin, self._folder(run.id)))}
            return self._queued(run, planned, learnt, key, name=name, more=more)

    def _queued(
        self,
        run: Run,
        wanted: TrainImage,
        learnt: Content,
        key: str | None,
        *,
        name: str,
        more: dict[str, Any],
    ) -> Job:
        folder = clean_filename(name).replace(" ", "-").lower()
        params = self._handing.params(
            wanted,
            learnt,
            name=name,
            folder=self._folder(run.id),
            output=self._context.workspace.adapters / f"{run.id:05d}-{folder}",
            run_id=run.id,
        )
        return self._jobs.add(
            "train_image",
            title=f"Training {name}",
            request=wanted.as_dict(),
            params={**params, "character_id": run.character_id, **more},
            character_id=run.character_id,
            dataset_id=run.dataset_id,
            run_id=run.id,
            idempotency_key=key,
        )

    def _then(self, run: Run) -> Content:
        """What the run learnt from; raises Conflict where it cannot be learnt from again."""
        problem = self.content(run.id).problem
        if problem:
            raise Conflict(problem, "Start a new training of the data set as it is now.")
        return content.recorded(run.content, dataset_id=run.dataset_id, character_id=run.character_id)

    def _ended(self, run_id: int) -> Run:
        """The run, of which no job is under way; raises Conflict."""
        run = self.run(run_id)
        if run.status in ("queued", "running", "paused", "interrupted"):
            raise Conflict(f"{run.name} is {run.status}.", "Let it end, or cancel it, and then go on.")
        return run

    def _checkpoints(self, run_id: int) -> list[checkpoints.Checkpoint]:
        """Those that are still on the disk, in order of their steps."""
        known = checkpoints.list_checkpoints(self._context.store, actor=self._context.actor, run_id=run_id)
        return [c for c in known if self._context.here(self._context.workspace.resolve(c.folder)).exists()]

    def _last_checkpoint(self, run_id: int) -> checkpoints.Checkpoint:
        left = self._checkpoints(run_id)
        if not left:
            raise Conflict("No checkpoint of this training is left.", "Train again as then.")
        return left[-1]

    @staticmethod
    def _base_of(request: TrainImage | Mapping[str, Any] | None, values: Mapping[str, Any]) -> str:
        """The base whose ranges hold for everything else; raises InvalidInput or NotFound."""
        base = given(request, values, "base")
        return TrainImage.parse({"dataset_id": 1} | ({} if base is None else {"base": base})).base

    def _next_name(self, named: str, character_id: int | None) -> str:
        known = [run.name for run in self.runs(character_id=character_id, limit=1000)]
        return next_name(named, known)


def _must_fit(forecast: Forecast) -> None:
    """Raises OutOfMemory or OutOfDisk with what would fit; without an estimate the training finds out."""
    if not forecast.fits:
        said, _, hint = forecast.plan.sentence.partition(". ")
        error = OutOfDisk if forecast.plan.short_of == "disk" else OutOfMemory
        raise error(f"{said.rstrip('.')}.", hint or "Choose a smaller base.")


def _must_have_shape(config: Mapping[str, Any], wanted: TrainImage) -> None:
    """Raises InvalidInput for a setting by which the LoRA would have another shape."""
    asked = wanted.as_dict()
    for name in SHAPE:
        if name in config and asked[name] != config[name]:
            raise InvalidInput(
                f"A branch keeps its {name.replace('_', ' ')}, which is {config[name]}.",
                "Change other settings, or start a new training.",
                field=name,
            )


def _taken_along(checkpoint: Path, folder: Path) -> Path:
    """The weights of the checkpoint in the new run's folder: the old one's may be rotated away."""
    target = folder / "begins_with"
    target.mkdir(parents=True, exist_ok=True)
    for file in checkpoint.glob("*.safetensors"):
        if file.stem in ("adapter", "average"):
            shutil.copyfile(file, target / file.name)
    return target


def next_name(name: str, known: Sequence[str]) -> str:
    """'Bolt 1' for the set 'Bolt', 'Bolt 2' for 'Bolt 1'; never a known name."""
    stem, own = _numbered(name)
    stem = stem[: NAME_CHARS - _DIGITS].rstrip()
    taken = [number for text in known for other, number in [_numbered(text)] if other == stem]
    return f"{stem} {1 + max([own, *taken])}"


def _numbered(name: str) -> tuple[str, int]:
    """A name without the number at its end, and that number; 0 when there is none."""
    found = _NUMBER.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 0)
