"""Runs (trainings), their figures step by step, and their sample pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from masuka.errors import NotFound, TrainingError
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import (
    add_row,
    broken_rules,
    decode,
    delete_row,
    encode,
    get_row,
    list_rows,
    now_at,
    set_row,
    visible,
)

FIGURES = ("loss", "learning_rate", "seconds_per_step")

PUT_METRIC = """
INSERT OR REPLACE INTO metrics (run_id, step, epoch, at, loss, learning_rate, seconds_per_step, extra)
VALUES (:run_id, :step, :epoch, :at, :loss, :learning_rate, :seconds_per_step, :extra)
"""

ENDS = "SELECT count(*) AS points, min(step) AS first, max(step) AS last FROM metrics WHERE run_id = :run_id"

COLUMNS = "run_id, step, epoch, at, loss, learning_rate, seconds_per_step, extra"
BUCKETS = "WHERE run_id = :run_id GROUP BY (step - :first) * :buckets / (:last - :first + 1)"

# In each bucket of neighbouring steps the lowest and the highest loss are kept, so that a
# spike stays visible. Beside min() or max(), SQLite gives the other columns of that very
# row (sqlite.org/lang_select.html, "bare columns").
THINNED = f"""
SELECT {COLUMNS} FROM (SELECT *, min(loss) FROM metrics {BUCKETS})
UNION SELECT {COLUMNS} FROM (SELECT *, max(loss) FROM metrics {BUCKETS})
UNION SELECT {COLUMNS} FROM metrics WHERE run_id = :run_id AND step IN (:first, :last)
ORDER BY step
"""  # noqa: S608 - of the constants above


@dataclass(frozen=True)
class Run:
    """A training; `content` holds hashes of the pictures and captions it learned from.

    `estimate` and `measured` have the same keys (see `models.memory`); `report` is what was
    found out about the result. `parent_id` is the run whose checkpoint it began with.
    """

    id: int
    user_id: int
    job_id: int | None
    character_id: int | None
    dataset_id: int | None
    name: str
    base: str
    family: str
    config: dict[str, Any]
    content: dict[str, Any]
    folder: str
    status: str
    created_at: str
    finished_at: str | None
    change: int
    parent_id: int | None
    sweep_id: int | None
    estimate: dict[str, Any]
    measured: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """The figures of one step; what has no column of its own is in `extra`."""

    run_id: int
    step: int
    epoch: int
    at: str
    loss: float | None
    learning_rate: float | None
    seconds_per_step: float | None
    extra: dict[str, float]


@dataclass(frozen=True)
class Sample:
    """A picture drawn during a training."""

    id: int
    run_id: int
    step: int
    prompt: str
    seed: int
    file: str
    created_at: str


class RunChanges(TypedDict, total=False):
    """The columns of a run that may be changed."""

    job_id: int | None
    character_id: int | None
    dataset_id: int | None
    name: str
    base: str
    family: str
    config: Mapping[str, Any]
    content: Mapping[str, Any]
    folder: str
    status: str
    finished_at: str | None
    estimate: Mapping[str, Any]
    measured: Mapping[str, Any]
    report: Mapping[str, Any]


def add_run(
    db: Store,
    *,
    actor: Actor,
    name: str,
    base: str,
    family: str,
    config: Mapping[str, Any],
    content: Mapping[str, Any] | None = None,
    folder: str = "",
    job_id: int | None = None,
    character_id: int | None = None,
    dataset_id: int | None = None,
    status: str = "created",
    created_at: str | None = None,
    finished_at: str | None = None,
    parent_id: int | None = None,
    sweep_id: int | None = None,
    estimate: Mapping[str, Any] | None = None,
) -> Run:
    """The new run, still without figures."""
    actor.must_edit()
    values = {
        "user_id": actor.user_id, "job_id": job_id, "character_id": character_id, "dataset_id": dataset_id,
        "name": name, "base": base, "family": family, "config": config, "content": content or {},
        "folder": folder, "status": status, "created_at": created_at or now_at(), "finished_at": finished_at,
        "parent_id": parent_id, "sweep_id": sweep_id, "estimate": estimate or {},
    }  # fmt: skip
    with db.write():
        return get_run(db, actor=actor, id=add_row(db, "runs", values))


def get_run(db: Store, *, actor: Actor, id: int) -> Run:
    """The run; raises NotFound."""
    return get_row(db, Run, table="runs", noun="training", id=id, actor=actor)


def list_runs(
    db: Store,
    *,
    actor: Actor,
    character_id: int | None = None,
    dataset_id: int | None = None,
    sweep_id: int | None = None,
    limit: int | None = None,
) -> list[Run]:
    """Runs, the newest first."""
    filters = {"character_id = ?": character_id, "dataset_id = ?": dataset_id, "sweep_id = ?": sweep_id}
    where = {condition: value for condition, value in filters.items() if value is not None}
    return list_rows(db, Run, table="runs", actor=actor, where=where, limit=limit)


def count_runs(db: Store, *, actor: Actor, dataset_id: int) -> int:
    """How many trainings learnt from the data set."""
    sql = f"SELECT count(*) FROM runs WHERE dataset_id = ? AND {visible(actor, 'runs')}"  # noqa: S608 - a number
    with db.read() as conn:
        return int(conn.execute(sql, [dataset_id]).fetchone()[0])


def set_run(db: Store, *, actor: Actor, id: int, **changes: Unpack[RunChanges]) -> Run:
    """The changed run; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_run(db, actor=actor, id=id)
        set_row(db, "runs", id, changes)
        return get_run(db, actor=actor, id=id)


def delete_run(db: Store, *, actor: Actor, id: int) -> Run:
    """The run that is gone now with its figures; its folder is the caller's."""
    actor.must_edit()
    with db.write():
        run = get_run(db, actor=actor, id=id)
        delete_row(db, "runs", id)
        return run


def add_metrics(db: Store, *, run_id: int, rows: Iterable[Mapping[str, Any]]) -> int:
    """How many steps were written, all or none; a step that is there is replaced.

    A row has `step`, and as it likes `epoch`, `at`, `loss`, `learning_rate`,
    `seconds_per_step` and any other figure. Replacing is what a training needs that went
    on from its checkpoint and repeats the steps after it.
    Raises TrainingError for a figure that is not finite, InvalidInput for a negative one.
    """
    ready = [_metric(run_id, row) for row in rows]
    if not ready:
        return 0
    with db.write() as conn, broken_rules():
        conn.conn.executemany(PUT_METRIC, ready)
        conn.execute("UPDATE runs SET status = status WHERE id = ?", [run_id])
    return len(ready)


def list_metrics(db: Store, *, actor: Actor, run_id: int, max_points: int = 300) -> list[Metric]:
    """The figures in order of steps, thinned to at most `max_points` (4 or more).

    Every peak and valley of the loss that a chart of that width can show is kept.
    """
    get_run(db, actor=actor, id=run_id)
    with db.read() as conn:
        ends = next(conn.query(ENDS, {"run_id": run_id}))
        if ends["points"] <= max_points:
            rows = conn.table("metrics").rows_where("run_id = ?", [run_id], order_by="step")
        else:
            rows = conn.query(THINNED, {**ends, "run_id": run_id, "buckets": max(1, (max_points - 2) // 2)})
        return [decode(Metric, row) for row in rows]


def add_sample(
    db: Store, *, actor: Actor, run_id: int, step: int, prompt: str, seed: int, file: str
) -> Sample:
    """The new sample picture of a run; raises NotFound for the run."""
    actor.must_edit()
    values = {
        "run_id": run_id, "step": step, "prompt": prompt, "seed": seed, "file": file, "created_at": now_at(),
    }  # fmt: skip
    with db.write() as conn:
        get_run(db, actor=actor, id=run_id)
        id = add_row(db, "samples", values)
        conn.execute("UPDATE runs SET status = status WHERE id = ?", [run_id])
        return decode(Sample, next(conn.table("samples").rows_where("id = ?", [id])))


def list_samples(db: Store, *, actor: Actor, run_id: int) -> list[Sample]:
    """The samples of a run in order of their steps; raises NotFound for the run."""
    get_run(db, actor=actor, id=run_id)
    with db.read() as conn:
        rows = conn.table("samples").rows_where("run_id = ?", [run_id], order_by="step, id")
        return [decode(Sample, row) for row in rows]


def get_sample(db: Store, *, actor: Actor, id: int) -> Sample:
    """The sample, if its run is the actor's; raises NotFound."""
    with db.read() as conn:
        seen = f"run_id IN (SELECT id FROM runs WHERE {visible(actor, 'runs')})"  # noqa: S608 - a number
        row = next(conn.table("samples").rows_where(f"id = ? AND {seen}", [id]), None)
    if row is None:
        raise NotFound(f"There is no sample with the number {id}.", "It may have been deleted.")
    return decode(Sample, row)


def _metric(run_id: int, row: Mapping[str, Any]) -> dict[str, Any]:
    step, epoch = row["step"], row.get("epoch", 0)
    figures = {name: value for name, value in row.items() if name not in ("step", "epoch", "at", "run_id")}
    for name, value in figures.items():
        if value is not None and not math.isfinite(value):
            raise TrainingError(
                f"The {name.replace('_', ' ')} is no longer a number at step {step}.",
                "Lower the learning rate, or train in another precision.",
            )
    known = {name: figures.pop(name, None) for name in FIGURES}
    return encode(
        {
            "run_id": run_id,
            "step": step,
            "epoch": epoch,
            "at": row.get("at") or now_at(),
            **known,
            "extra": figures,
        }
    )
