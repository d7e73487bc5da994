"""The request to train the same set several times with other settings, to be compared."""

from __future__ import annotations

import itertools
import math
from typing import Any

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field

SWEPT = {"learning_rates": "learning_rate", "ranks": "rank", "steps_each": "steps"}
"""Each list of choices, and the setting of a training that it varies."""


class SweepTraining(Request):
    """Train with every combination of these choices.

    A list that is empty keeps the one setting.
    """

    learning_rates: tuple[float, ...] = field(
        (), label="Learning rates", help="One a line, for example 0.0001 and 0.0003.",
        group="Several settings", max_length=8,
    )  # fmt: skip
    ranks: tuple[int, ...] = field(
        (), label="Ranks", help="One a line, for example 8 and 32.", group="Several settings", max_length=8
    )
    steps_each: tuple[int, ...] = field(
        (), label="Numbers of steps", help="One a line, for example 600 and 1200.",
        group="Several settings", max_length=8,
    )  # fmt: skip
    most_runs: int = field(
        8, label="At most", help="More combinations than this are refused.", unit="trainings",
        group="Several settings", ge=2, le=48,
    )  # fmt: skip

    def must_fit_together(self) -> None:
        count = math.prod(len(values) or 1 for values in self._choices().values())
        if count < 2:
            raise InvalidInput(
                "There is nothing to compare.", "Give two or more learning rates, ranks or numbers of steps.",
                field="learning_rates",
            )  # fmt: skip
        if count > self.most_runs:
            raise InvalidInput(
                f"That is {count} trainings, and at most {self.most_runs} are wanted.",
                "Give fewer choices, or allow more trainings.",
                field="most_runs",
            )

    def combinations(self) -> list[dict[str, Any]]:
        """The settings of each training, in an order in which the last list turns fastest."""
        varied = {name: values for name, values in self._choices().items() if values}
        return [dict(zip(varied, one, strict=True)) for one in itertools.product(*varied.values())]

    def _choices(self) -> dict[str, tuple[Any, ...]]:
        return {setting: tuple(dict.fromkeys(getattr(self, name))) for name, setting in SWEPT.items()}
