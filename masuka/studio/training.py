"""Trainings: check, start, look at."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masuka.errors import InvalidInput
from masuka.families import family_of, train_limits_of
from masuka.generation import prompts
from masuka.requests.base import Param, params
from masuka.requests.text import NAME_CHARS, clean_filename
from masuka.requests.training import TrainImage
from masuka.store import characters, runs
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.store.runs import Metric, Run, Sample
from masuka.studio.context import Context, given, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.jobs import Jobs
from masuka.studio.models import Models

SAMPLES_FROM_CAPTIONS = 2
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

    def defaults(self, base: str = "pocket") -> dict[str, Param]:
        """Every setting with the base's own range and default, for form and command line."""
        return params(TrainImage, train_limits_of(base))

    def start(
        self,
        request: TrainImage | Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        **values: Any,
    ) -> Job:
        """The queued training of a LoRA; the same `key` again gives the same job again.

        Raises InvalidInput for an empty set or a setting out of the base's range, Conflict
        when the base is not installed.
        """
        self._context.actor.must_edit()
        wanted = parsed(TrainImage, request, values, train_limits_of(self._base_of(request, values)))
        dataset = self._datasets.get(wanted.dataset_id)
        if wanted.character_id is not None:
            characters.get_character(self._context.store, actor=self._context.actor, id=wanted.character_id)
        pictures = self._datasets.every_picture(dataset.id)
        if not pictures:
            raise InvalidInput(
                f"The data set {dataset.name} has no pictures.", "Add some first.", field="dataset_id"
            )
        self._models.must_be_trainable(wanted.base)
        name = wanted.name or self._next_name(dataset, wanted.character_id or dataset.character_id)
        with self._context.store.write():
            before = self._jobs.asked_before(key)
            if before is not None:
                return before
            run = self._add_run(wanted, dataset, pictures, name)
            return self._jobs.add(
                "train_image",
                title=f"Training {name}",
                request=wanted.as_dict(),
                params=self._params(wanted, dataset, pictures, run),
                character_id=run.character_id,
                dataset_id=dataset.id,
                run_id=run.id,
                idempotency_key=key,
            )

    def runs(self, *, character_id: int | None = None, limit: int = 50) -> list[Run]:
        """Trainings, the newest first."""
        return runs.list_runs(
            self._context.store, actor=self._context.actor, character_id=character_id, limit=limit
        )

    def run(self, run_id: int) -> Run:
        """One training; raises NotFound."""
        return runs.get_run(self._context.store, actor=self._context.actor, id=run_id)

    def metrics(self, run_id: int, *, max_points: int = 300) -> list[Metric]:
        """At most `max_points` of the run's measurements, evenly chosen, in step order."""
        return runs.list_metrics(
            self._context.store, actor=self._context.actor, run_id=run_id, max_points=max_points
        )

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

    def _add_run(self, wanted: TrainImage, dataset: Dataset, pictures: Sequence[Picture], name: str) -> Run:
        family, _ = family_of(wanted.base)
        return runs.add_run(
            self._context.store,
            actor=self._context.actor,
            name=name,
            base=wanted.base,
            family=family.name,
            dataset_id=dataset.id,
            character_id=wanted.character_id or dataset.character_id,
            config=wanted.as_dict(),
            content={p.sha256: p.caption for p in pictures},
        )

    @staticmethod
    def _base_of(request: TrainImage | Mapping[str, Any] | None, values: Mapping[str, Any]) -> str:
        """The base whose ranges hold for everything else; raises InvalidInput or NotFound."""
        base = given(request, values, "base")
        return TrainImage.parse({"dataset_id": 1} | ({} if base is None else {"base": base})).base

    def _next_name(self, dataset: Dataset, character_id: int | None) -> str:
        known = [run.name for run in self.runs(character_id=character_id, limit=1000)]
        return next_name(dataset.name, known)

    def _params(
        self, wanted: TrainImage, dataset: Dataset, pictures: Sequence[Picture], run: Run
    ) -> dict[str, Any]:
        workspace = self._context.workspace
        folder = clean_filename(run.name).replace(" ", "-").lower()
        return {
            "request": wanted.as_dict(),
            "family": run.family,
            "base": self._models.base_params(wanted.base),
            "run_id": run.id,
            "run_folder": str(self._folder(run.id)),
            "output": str(workspace.adapters / f"{run.id:05d}-{folder}"),
            "name": run.name,
            "trigger_word": dataset.trigger_word,
            "class_word": dataset.class_word,
            "character_id": run.character_id,
            "pictures": [self._picture(p) for p in pictures],
            "sample_prompts": self._sample_prompts(wanted, dataset, pictures),
            "device": self._context.settings.device,
        }

    def _picture(self, picture: Picture) -> dict[str, Any]:
        return {
            "id": picture.id,
            "file": str(self._context.here(self._context.workspace.resolve(picture.file))),
            "sha256": picture.sha256,
            "caption": picture.caption,
            "width": picture.width,
            "height": picture.height,
        }

    @staticmethod
    def _sample_prompts(wanted: TrainImage, dataset: Dataset, pictures: Sequence[Picture]) -> list[str]:
        if not wanted.sample_every:
            return []
        chosen = (
            wanted.sample_prompts
            or tuple(dict.fromkeys(p.caption for p in pictures if p.caption))[:SAMPLES_FROM_CAPTIONS]
        )
        return [
            prompts.fill(text, trigger_word=dataset.trigger_word, class_word=dataset.class_word)
            for text in chosen
        ]


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
