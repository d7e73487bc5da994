"""Trainings: check, start, look at."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from masuka.datasets import masks
from masuka.datasets.edits import Recipe
from masuka.errors import Conflict, InvalidInput, NotFound
from masuka.families import family_of, train_limits_of
from masuka.generation import prompts
from masuka.models import judges
from masuka.requests.base import Param, params
from masuka.requests.text import NAME_CHARS, clean_filename
from masuka.requests.training import TrainImage
from masuka.store import characters, runs
from masuka.store.jobs import Job
from masuka.store.runs import Metric, Run, Sample
from masuka.studio import content
from masuka.studio.content import Content, Difference
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
        every = self._datasets.every_picture(dataset.id)
        pictures = [picture for picture in every if not picture.aside]
        if not pictures:
            raise InvalidInput(
                f"The data set {dataset.name} has no pictures"
                + (" that are not set aside." if every else "."),
                "Take some back, or add others." if every else "Add some first.",
                field="dataset_id",
            )
        return self._start(wanted, content.of(dataset, pictures), dataset.name, key)

    def repeat(self, run_id: int, *, key: str | None = None, **values: Any) -> Job:
        """The same training once more, from what it learnt then; `values` change settings.

        Its data set may have changed or be gone. Raises Conflict when its pictures are gone,
        or for a training of before MASUKA recorded where they lay.
        """
        self._context.actor.must_edit()
        run = self.run(run_id)
        then = content.recorded(run.content, dataset_id=run.dataset_id, character_id=run.character_id)
        problem = self.content(run_id).problem
        if problem:
            raise Conflict(problem, "Start a new training of the data set as it is now.")
        given_before = {k: v for k, v in run.config.items() if k not in ("name", "character_id")}
        wanted = TrainImage.parse(
            {**given_before, "character_id": run.character_id, **values},
            limits=train_limits_of(str(values.get("base", run.base))),
        )
        return self._start(wanted, then, run.name, key)

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
        gone = {p["sha256"] for p in then.pictures if not then.problem and self._is_gone(p)}
        return content.difference(then, now, gone)

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

    def _start(self, wanted: TrainImage, learnt: Content, named: str, key: str | None) -> Job:
        """The queued training of that content; `named` is what its own name begins with."""
        self._models.must_be_trainable(wanted.base)
        character_id = wanted.character_id or learnt.character_id
        name = wanted.name or self._next_name(named, character_id)
        with self._context.store.write():
            before = self._jobs.asked_before(key)
            if before is not None:
                return before
            family, _ = family_of(wanted.base)
            run = runs.add_run(
                self._context.store,
                actor=self._context.actor,
                name=name,
                base=wanted.base,
                family=family.name,
                dataset_id=learnt.dataset_id,
                character_id=character_id,
                config=wanted.as_dict(),
                content=learnt.as_row(),
            )
            return self._jobs.add(
                "train_image",
                title=f"Training {name}",
                request=wanted.as_dict(),
                params=self._params(wanted, learnt, run),
                character_id=run.character_id,
                dataset_id=run.dataset_id,
                run_id=run.id,
                idempotency_key=key,
            )

    @staticmethod
    def _base_of(request: TrainImage | Mapping[str, Any] | None, values: Mapping[str, Any]) -> str:
        """The base whose ranges hold for everything else; raises InvalidInput or NotFound."""
        base = given(request, values, "base")
        return TrainImage.parse({"dataset_id": 1} | ({} if base is None else {"base": base})).base

    def _next_name(self, named: str, character_id: int | None) -> str:
        known = [run.name for run in self.runs(character_id=character_id, limit=1000)]
        return next_name(named, known)

    def _params(self, wanted: TrainImage, learnt: Content, run: Run) -> dict[str, Any]:
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
            "trigger_word": learnt.trigger_word,
            "class_word": learnt.class_word,
            "character_id": run.character_id,
            "augment": learnt.augment,
            "pictures": [self._picture(p) for p in learnt.pictures],
            "sample_prompts": _sample_prompts(wanted, learnt),
            "device": self._context.settings.device,
            "caches": str(workspace.caches),
            "judges": judges.folders(workspace.models),
        }

    def _picture(self, picture: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker must know of a picture; its files are here when it begins."""
        recipe = Recipe.from_row(picture["edits"])
        mask = self._mask(picture, "masks", recipe.mask_sha256) if recipe.masks else None
        matte = self._mask(picture, "mattes", recipe.matte_sha256) if recipe.cuts_out else None
        return {
            **picture,
            "file": str(self._context.here(self._context.workspace.resolve(picture["file"]))),
            "mask": mask and str(self._context.here(mask)),
            "matte": matte and str(self._context.here(matte)),
        }

    def _is_gone(self, picture: Mapping[str, Any]) -> bool:
        """Whether a file that the picture was learnt from is nowhere any more."""
        recipe = Recipe.from_row(picture["edits"])
        files = [self._context.workspace.resolve(picture["file"])]
        files += [self._mask(picture, "masks", recipe.mask_sha256)] if recipe.masks else []
        files += [self._mask(picture, "mattes", recipe.matte_sha256)] if recipe.cuts_out else []
        return not all(self._context.here(file, patient=False).exists() for file in files)

    def _mask(self, picture: Mapping[str, Any], kind: masks.Kind, sha256: str) -> Path:
        folder = self._context.workspace.datasets / f"{picture['dataset_id']:05d}"
        return masks.file_of(kind, folder, picture["sha256"], sha256)


def _sample_prompts(wanted: TrainImage, learnt: Content) -> list[str]:
    if not wanted.sample_every:
        return []
    captions = dict.fromkeys(p["caption"] for p in learnt.pictures if p["caption"])
    chosen = wanted.sample_prompts or tuple(captions)[:SAMPLES_FROM_CAPTIONS]
    words = {"trigger_word": learnt.trigger_word, "class_word": learnt.class_word}
    return [prompts.fill(text, **words) for text in chosen]


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
