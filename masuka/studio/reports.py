"""What a training came to: its scores, its checkpoints, and itself beside others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masuka.errors import Conflict, NotFound
from masuka.families import train_limits_of
from masuka.models import judges
from masuka.requests import recipes
from masuka.requests.text import clean_filename
from masuka.requests.training import TrainImage
from masuka.store import checkpoints, runs, scores
from masuka.store import jobs as job_rows
from masuka.store import models as model_rows
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.store.runs import Run
from masuka.store.scores import Score
from masuka.studio.context import Context
from masuka.studio.jobs import Jobs
from masuka.studio.training import Training

MOST_COMPARED = 6
SIDECAR = "masuka.json"
"""As `training.export` names it, which needs torch and is not read here."""
_ALWAYS_DIFFERENT = frozenset({"name", "character_id", "dataset_id"})


@dataclass(frozen=True)
class Kept:
    """A checkpoint that is still on the disk, with what is known of it."""

    step: int
    scores: Mapping[str, float]
    sample_id: int | None
    best: bool
    adapter: Model | None
    """The LoRA that was made of it, if one was."""


@dataclass(frozen=True)
class Difference:
    """A setting in which trainings differ, and its value in each, in their order."""

    name: str
    values: tuple[Any, ...]


class Reports:
    """Look at what trainings came to, and make more of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._training = Training(context)

    def scores(self, run_id: int) -> list[Score]:
        """Every score of a training by step, name and weight; raises NotFound."""
        return scores.list_scores(self._context.store, actor=self._context.actor, run_id=run_id)

    def checkpoints(self, run_id: int) -> list[Kept]:
        """The checkpoints that are still there, in order of their steps; raises NotFound."""
        run = self._training.run(run_id)
        rows = checkpoints.list_checkpoints(self._context.store, actor=self._context.actor, run_id=run_id)
        told: dict[int, dict[str, float]] = {}
        for score in self.scores(run_id):
            if score.weight == 1:
                told.setdefault(score.step, {})[score.name] = score.value
        samples = {sample.step: sample.id for sample in reversed(self._training.samples(run_id))}
        made = {step: model for model in self._made_of(run) if (step := _step_of(model, run)) is not None}
        return [
            Kept(
                step=row.step,
                scores=told.get(row.step, {}),
                sample_id=samples.get(row.step),
                best=row.step == run.report.get("best_step"),
                adapter=made.get(row.step),
            )
            for row in rows
            if self._context.workspace.resolve(row.folder).exists()
        ]

    def export(self, run_id: int, step: int, *, key: str | None = None) -> Job:
        """The job that makes a LoRA of that checkpoint, beside the one the training made.

        Raises NotFound when the checkpoint is gone, Conflict while the training runs or where
        what it learns is no LoRA.
        """
        self._context.actor.must_edit()
        run = self._training.run(run_id)
        if not exports(run):
            raise Conflict(f"{run.name} learns no LoRA.", "Draw with what it made, or train a LoRA.")
        if step not in [kept.step for kept in self.checkpoints(run_id)]:
            raise NotFound(f"The checkpoint of step {step:,} is gone.", "Choose one that is still there.")
        asked = self._asked(run)
        if asked.state in ("queued", "running"):
            raise Conflict("The training still runs.", "Wait until it has ended, or pause it.")
        name = f"{run.name} step {step}"
        folder = clean_filename(name).replace(" ", "-").lower()
        given: dict[str, Any] = {
            **asked.params,
            "step": step,
            "name": name,
            "output": str(self._context.workspace.adapters / f"{run.id:05d}-{folder}"),
            "sample": self._sample(run_id, step),
        }
        return self._jobs.add(
            "export_checkpoint",
            title=f"Making a LoRA of step {step:,}",
            request={"run_id": run_id, "step": step},
            params=given,
            character_id=run.character_id,
            run_id=run.id,
            idempotency_key=key,
        )

    def differences(self, run_ids: Sequence[int]) -> list[Difference]:
        """The settings in which trainings differ, in the form's order; may raise NotFound."""
        found = [self._training.run(run_id) for run_id in run_ids[:MOST_COMPARED]]
        named = [name for name in TrainImage.model_fields if name not in _ALWAYS_DIFFERENT]
        rows = [Difference(name, tuple(run.config.get(name) for run in found)) for name in named]
        return [row for row in rows if any(value != row.values[0] for value in row.values)]

    def environment(self, run_id: int) -> dict[str, str]:
        """The versions, device and precision that made the LoRA; {} before it is there."""
        for model in self._made_of(self._training.run(run_id)):
            sidecar = self._context.workspace.resolve(model.path).parent / SIDECAR
            if sidecar.is_file():
                told = json.loads(sidecar.read_text(encoding="utf-8"))
                about = {"device": str(told.get("device", "")), "precision": str(told.get("precision", ""))}
                return about | {str(name): str(version) for name, version in told.get("versions", {}).items()}
        return {}

    def recipe(self, run_id: int, form: recipes.Form = "yaml") -> str:
        """The training's settings as a file's text, to be kept and run again."""
        run = self._training.run(run_id)
        about = {
            "name": run.name,
            "base": run.base,
            "family": run.family,
            "started_at": run.created_at,
            "report": {name: run.report[name] for name in ("best_step", "best_weight") if name in run.report},
        }
        return recipes.as_text(recipes.recipe_of(run.config, about=about), form)

    def train_by(
        self, recipe: str, *, dataset_id: int, key: str | None = None, **values: Any
    ) -> Job:
        """The queued training of a set by a recipe's text; `values` change settings.

        Raises InvalidInput for what is no recipe or out of the base's range.
        """
        settings = {**recipes.settings_in(recipe), **values, "dataset_id": dataset_id}
        limits = train_limits_of(TrainImage.parse({"dataset_id": 1, "base": settings.get("base", "pocket")}).base)
        return self._training.start(TrainImage.parse(settings, limits=limits), key=key)

    def missing_judges(self) -> dict[str, tuple[str, float]]:
        """(title, GiB) of the models that would tell more of a training and are not here."""
        found = judges.missing(self._context.workspace.models)
        return {name: (title, gib) for name, (title, gib, _) in found.items()}

    def download_judges(self) -> list[Job]:
        """The jobs that fetch what is not here; raises Conflict when all is."""
        self._context.actor.must_own()
        found = judges.missing(self._context.workspace.models)
        if not found:
            raise Conflict("The models that judge trainings are on this machine already.")
        return [
            self._jobs.add("download_model", title=f"Downloading {title}", request={"judge": name}, params=params)
            for name, (title, _, params) in found.items()
        ]

    def _asked(self, run: Run) -> Job:
        """The job of the training, which knows all that a worker must know."""
        found = self._jobs.list(run_id=run.id, kind="train_image", limit=1)
        if not found:
            raise NotFound("What this training was asked for is gone.", "Train it again.")
        return job_rows.get_job(self._context.store, actor=self._context.actor, id=found[0].id)

    def _made_of(self, run: Run) -> list[Model]:
        return model_rows.list_models(
            self._context.store, actor=self._context.actor, kind="adapter", run_id=run.id
        )

    def _sample(self, run_id: int, step: int) -> str | None:
        found = [s for s in runs.list_samples(self._context.store, actor=self._context.actor, run_id=run_id) if s.step == step]
        file = self._context.workspace.resolve(found[0].file) if found else None
        return str(file) if file is not None and file.exists() else None


def exports(run: Run) -> bool:
    """Whether a LoRA can be made of the run's checkpoints."""
    return run.config.get("method", "lora") in ("lora", "dora", "lokr")


def _step_of(model: Model, run: Run) -> int | None:
    """Of which checkpoint the LoRA was made."""
    told = model.config.get("checkpoint_step", run.report.get("best_step"))
    return told if isinstance(told, int) else None
