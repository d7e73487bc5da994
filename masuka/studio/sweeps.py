"""Sweeps: the same training with several settings, and which of them came out best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masuka.requests.sweeps import SWEPT, SweepTraining
from masuka.requests.text import id_in
from masuka.store import runs, scores, sweeps
from masuka.store.runs import Run
from masuka.store.sweeps import Sweep
from masuka.studio.context import Context, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.jobs import Jobs
from masuka.studio.training import Training

HIGHER, LOWER = ("likeness", "prompt", "variety"), ("validation",)


@dataclass(frozen=True)
class Row:
    """One training of a sweep: what was varied, and the scores of its best checkpoint."""

    run: Run
    settings: Mapping[str, Any]
    scores: Mapping[str, float]
    best: bool = False


class Sweeps:
    """Start sweeps and compare what came of them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._training = Training(context)
        self._datasets = Datasets(context)

    def start(
        self,
        choices: SweepTraining | Mapping[str, Any],
        settings: Mapping[str, Any],
        *,
        key: str | None = None,
    ) -> Sweep:
        """The sweep, whose trainings are queued; `settings` hold for all of them.

        The same `key` again gives the same sweep. Raises InvalidInput for too many or too
        few combinations, and whatever starting one of the trainings raises: then none starts.
        """
        self._context.actor.must_edit()
        wanted = parsed(SweepTraining, choices, {})
        with self._context.store.write():
            before = self._jobs.asked_before(key and f"{key} 0")
            if before is not None and before.run_id is not None:
                return self.get(self._training.run(before.run_id).sweep_id or 0)
            dataset = self._datasets.get(id_in(settings.get("dataset_id")) or 0)
            named = str(settings.get("name") or dataset.name)
            sweep = sweeps.add_sweep(
                self._context.store,
                actor=self._context.actor,
                name=named,
                request={**wanted.as_dict(), "settings": dict(settings)},
            )
            for number, varied in enumerate(wanted.combinations()):
                own_key = None if key is None else f"{key} {number}"
                one = {**settings, **varied, **({"name": f"{named} {number + 1}"} if settings.get("name") else {})}
                self._training.start(one, key=own_key, sweep_id=sweep.id)
        return sweep

    def list(self, *, limit: int = 20) -> Sequence[Sweep]:
        """Sweeps, the newest first."""
        return sweeps.list_sweeps(self._context.store, actor=self._context.actor, limit=limit)

    def get(self, sweep_id: int) -> Sweep:
        """One sweep; raises NotFound."""
        return sweeps.get_sweep(self._context.store, actor=self._context.actor, id=sweep_id)

    def table(self, sweep_id: int) -> Sequence[Row]:
        """Its trainings in the order of their start, the best scored one marked.

        The best has the highest likeness, or where nobody tells likeness the lowest
        validation loss.
        """
        sweep = self.get(sweep_id)
        varied = [SWEPT[name] for name in SWEPT if len(sweep.request.get(name, ())) > 1]
        found = runs.list_runs(self._context.store, actor=self._context.actor, sweep_id=sweep_id)
        rows = [
            Row(run, {name: run.config.get(name) for name in varied}, self._scores(run))
            for run in sorted(found, key=lambda run: run.id)
        ]
        best = best_of(rows)
        return [Row(row.run, row.settings, row.scores, row.run.id == best) for row in rows]

    def cancel(self, sweep_id: int) -> int:
        """How many of its trainings were asked to stop."""
        jobs = [run.job_id for run in (row.run for row in self.table(sweep_id)) if run.job_id is not None]
        return self._jobs.cancel(jobs)

    def _scores(self, run: Run) -> dict[str, float]:
        """Of the best checkpoint, else of the last that was scored."""
        known = scores.list_scores(self._context.store, actor=self._context.actor, run_id=run.id)
        full = [score for score in known if score.weight == 1 and score.name in (*HIGHER, *LOWER)]
        if not full:
            return {}
        step = int(run.report.get("best_step") or full[-1].step)
        return {score.name: score.value for score in full if score.step == step}


def best_of(rows: Sequence[Row]) -> int | None:
    """The run of the best row; None while none is scored."""
    liked = [row for row in rows if "likeness" in row.scores]
    if liked:
        return max(liked, key=lambda row: row.scores["likeness"]).run.id
    measured = [row for row in rows if "validation" in row.scores]
    return min(measured, key=lambda row: row.scores["validation"]).run.id if measured else None
