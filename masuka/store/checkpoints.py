"""Checkpoints of trainings: at which step, and in which folder they lie."""

from __future__ import annotations

from dataclasses import dataclass

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import decode, now_at
from masuka.store.runs import get_run

PUT = """
INSERT INTO checkpoints (run_id, step, folder, created_at) VALUES (:run_id, :step, :folder, :created_at)
ON CONFLICT (run_id, step) DO UPDATE SET folder = excluded.folder
"""


@dataclass(frozen=True)
class Checkpoint:
    """`folder` is as the workspace stores paths; rotation may have deleted it since."""

    id: int
    run_id: int
    step: int
    folder: str
    created_at: str


def put_checkpoint(db: Store, *, run_id: int, step: int, folder: str) -> None:
    """Notes the checkpoint; one of the same step is replaced."""
    with db.write() as conn:
        conn.execute(PUT, {"run_id": run_id, "step": step, "folder": folder, "created_at": now_at()})
        conn.execute("UPDATE runs SET status = status WHERE id = ?", [run_id])


def list_checkpoints(db: Store, *, actor: Actor, run_id: int) -> list[Checkpoint]:
    """The run's checkpoints in order of their steps; raises NotFound for the run."""
    get_run(db, actor=actor, id=run_id)
    with db.read() as conn:
        rows = conn.table("checkpoints").rows_where("run_id = ?", [run_id], order_by="step")
        return [decode(Checkpoint, row) for row in rows]
