"""What is measured of a training between its steps, and what follows from it.

Scores are kept in the run's folder, so that a training that goes on knows them. Measuring
leaves the training's own randomness as it was: with and without it the losses are the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from masuka.jobs.reporter import Reporter
from masuka.training import best
from masuka.training.best import Scored, Scores
from masuka.training.learner import Learner
from masuka.training.plan import Plan
from masuka.training.randomness import random_state, restore_random_state
from masuka.training.samples import Sampler, shots_of
from masuka.training.scoring import Judges, Vectors, compared, scores_of
from masuka.training.validation import Validator

FILE = "scores.json"
WITHOUT = 0
"""The step under which the base without the LoRA is scored."""
WEIGHED = frozenset({"lora", "dora", "lokr"})
"""What can be drawn at another weight than it was learnt."""


class Assessor:
    """Scores checkpoints, says when to stop, which is best and at which weight."""

    def __init__(
        self, plan: Plan, validator: Validator, sampler: Sampler, reporter: Reporter, judges: Judges | None, why: str
    ) -> None:
        self._plan, self._validator, self._sampler, self._reporter = plan, validator, sampler, reporter
        self._judges, self._why = judges, why
        self._shots = shots_of(plan)
        self._known: Vectors | None = None
        self._scores = Scores(plan.run_folder / FILE)
        self._seconds = 0.0
        self._began = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Whether that step is scored; the last one of a training always is."""
        request = self._plan.request
        return step > 0 and step % (request.score_every or request.checkpoint_every) == 0

    def is_scored(self, step: int) -> bool:
        return self._scores.at(step) is not None

    def assess(self, learner: Learner, step: int) -> None:
        """The scores of the LoRA after that many steps, told and kept."""
        with self._measuring():
            if self._judges is not None and self._weighed and self._scores.without() is None:
                self._tell(Scored(WITHOUT, 0.0, self._judged(learner, 0.0)))
            values = self._validator.measure(learner, self._reporter.progress)
            self._tell(Scored(step, 1.0, values | self._judged(learner, 1.0)))

    def stops(self, step: int) -> str:
        """A sentence where the training is to end early; '' where it goes on."""
        patience = self._plan.request.stop_early
        scores = self._scores.until(step)
        if not patience or best.scores_since_best(scores) < patience:
            return ""
        found = best.best_of(scores)
        assert found is not None
        return f"Stopped at step {step:,}: {patience} scores without a better one than at step {found.step:,}."

    def best(self, step: int, *, among: Collection[int] | None = None) -> Scored | None:
        """The best of what was scored up to that step; of these steps alone, if given."""
        scored = self._scores.until(step)
        return best.best_of([one for one in scored if among is None or one.step in among])

    def find_weight(self, learner: Learner, step: int) -> float | None:
        """The best weight of the LoRA held now, by a small grid; None: not told."""
        if self._judges is None or not self._weighed:
            return None
        with self._measuring():
            tried = []
            for number, weight in enumerate(best.WEIGHTS):
                scored = self._scores.at(step, weight)
                if scored is None or "likeness" not in scored.values:
                    scored = Scored(step, weight, self._judged(learner, weight, (number, len(best.WEIGHTS))))
                    self._tell(scored)
                tried.append(scored)
        return best.best_weight_of(tried)

    def tell_report(self, step: int, chosen: int, weight: float | None, stopped: str) -> None:
        """What was found out, in figures and in sentences."""
        scores, held = self._scores.until(step), self._validator.held
        told: dict[str, Any] = {
            "best_step": chosen,
            "stopped_early": bool(stopped),
            "overfit": best.overfit(scores, self._scores.without(), held=held),
            "rule": f"{best.RULE} {best.WEIGHT_RULE if weight is not None else ''}".strip(),
            "scoring_s": round(self._seconds, 1),
        }
        if weight is not None:
            told["best_weight"] = weight
        told["sentences"] = [s for s in (stopped, *self._sentences(chosen, weight, scores), self._cost()) if s]
        self._reporter.tell("report", **told)

    @property
    def _weighed(self) -> bool:
        return self._plan.request.method in WEIGHED

    def _judged(self, learner: Learner, weight: float, place: tuple[int, int] = (0, 1)) -> dict[str, float]:
        if self._judges is None:
            return {}
        if self._known is None:
            self._known = compared(self._plan, self._judges.likeness)
        pictures = self._sampler.judged(learner, self._shots, weight=weight, place=place)
        # A word that only this LoRA knows says nothing to a model that reads prompts.
        trigger = self._plan.trigger_word
        prompts = [s.prompt.replace(trigger, " ") if trigger else s.prompt for s in self._shots]
        return scores_of(self._judges, pictures, prompts, self._known)

    def _tell(self, scored: Scored) -> None:
        # What is no number would end the training, and tells no two checkpoints apart.
        finite = {name: value for name, value in scored.values.items() if math.isfinite(value)}
        scored = Scored(scored.step, scored.weight, finite)
        for name, value in scored.values.items():
            about = {"held": self._validator.held, "pictures": self._validator.pictures} if name == "validation" else {}
            self._reporter.tell(
                "score", step=scored.step, name=name, value=value, weight=scored.weight, about=about
            )
        self._scores.add(scored)

    @contextmanager
    def _measuring(self) -> Iterator[None]:
        tensors, plain = random_state()
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds += time.monotonic() - started
            restore_random_state(tensors, plain)

    def _sentences(self, chosen: int, weight: float | None, scores: list[Scored]) -> Iterator[str]:
        validator, found = self._validator, self._scores.at(chosen)
        if found is not None and len(scores) > 1:
            figures = " and ".join(
                f"{name} {found.values[name]:.3f}" for name in ("likeness", "validation") if name in found.values
            )
            yield f"The checkpoint of step {chosen:,} is the best of {len(scores)}: {figures}."
        without = self._scores.without()
        if without is not None and found is not None and "likeness" in found.values:
            yield (
                f"Likeness is {found.values['likeness']:.2f} with the LoRA "
                f"and {without.values['likeness']:.2f} without it."
            )
        if weight is not None:
            yield f"Of the weights {', '.join(f'{w:g}' for w in best.WEIGHTS)} the best is {weight:g}."
        elif self._judges is not None:
            yield "It has no weight to choose."
        of = "picture" if validator.pictures == 1 else "pictures"
        yield (
            f"Validation is measured on {validator.pictures} {of} "
            + ("that it did not learn from." if validator.held else "that it learnt from: none were kept for it.")
        )
        yield self._judges.about if self._judges is not None else self._why

    def _cost(self) -> str:
        whole = time.monotonic() - self._began
        if self._seconds < 1 or whole <= 0:
            return ""
        return f"Scoring took {_spoken(self._seconds)}, {self._seconds / whole:.0%} of this training's time."


def _spoken(seconds: float) -> str:
    """'48 s', '10 min'."""
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"
