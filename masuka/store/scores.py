"""Scores of a training's checkpoints: validation, likeness and what else was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masuka.errors import TrainingError
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import decode, encode
from masuka.store.runs import get_run

PUT = """
INSERT OR REPLACE INTO scores (run_id, step, name, weight, value, about)
VALUES (:run_id, :step, :name, :weight, :value, :about)
"""


@dataclass(frozen=True)
class Score:
    """One measurement of the LoRA after `step` steps, used at `weight`.

    Names: `validation` and `validation_<band>` (lower is better), `likeness`, `variety`,
    `prompt` (higher is better).
    """

    run_id: int
    step: int
    name: str
    weight: float
    value: float
    about: dict[str, Any]


def put_score(
    db: Store,
    *,
    run_id: int,
    step: int,
    name: str,
    value: float,
    weight: float = 1.0,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Writes the score; one of the same step, name and weight is replaced.

    Raises TrainingError for a value that is not finite.
    """
    if not math.isfinite(value):
        raise TrainingError(f"The {name} at step {step} is no number.", "Lower the learning rate.")
    row = {"run_id": run_id, "step": step, "name": name, "weight": weight, "value": value, "about": about or {}}
    with db.write() as conn:
        conn.execute(PUT, encode(row))
        conn.execute("UPDATE runs SET status = status WHERE id = ?", [run_id])


def list_scores(db: Store, *, actor: Actor, run_id: int) -> list[Score]:
    """The run's scores by step, name and weight; raises NotFound for the run."""
    get_run(db, actor=actor, id=run_id)
    with db.read() as conn:
        rows = conn.table("scores").rows_where("run_id = ?", [run_id], order_by="step, name, weight")
        return [decode(Score, row) for row in rows]
