"""What a training was expected to take and took, how its checkpoints score, and sweeps.

`runs.estimate` and `runs.measured` have the same keys, so that they can be set side by
side; `report` is what was found out about the result (best checkpoint, best weight).
"""

from __future__ import annotations

from sqlite_utils import Database

from masuka.store.migrations.m001_initial import change_triggers

TABLES = """
CREATE TABLE sweeps (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    name TEXT NOT NULL,
    request TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    folder TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (run_id, step)
) STRICT;

CREATE TABLE scores (
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    name TEXT NOT NULL,
    weight REAL NOT NULL DEFAULT 1,
    value REAL NOT NULL CHECK (value BETWEEN -1.7e308 AND 1.7e308),
    about TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, step, name, weight)
) STRICT, WITHOUT ROWID
"""

COLUMNS = (
    "parent_id INTEGER REFERENCES runs ON DELETE SET NULL",
    "sweep_id INTEGER REFERENCES sweeps ON DELETE SET NULL",
    "estimate TEXT NOT NULL DEFAULT '{}'",
    "measured TEXT NOT NULL DEFAULT '{}'",
    "report TEXT NOT NULL DEFAULT '{}'",
)


def m004_training(db: Database) -> None:
    """Estimates, measurements, scores, checkpoints, sweeps."""
    for statement in TABLES.split(";\n\n"):
        db.execute(statement)
    for trigger in change_triggers("sweeps"):
        db.execute(trigger)
    for column in COLUMNS:
        db.execute(f"ALTER TABLE runs ADD COLUMN {column}")
    for column in ("parent_id", "sweep_id"):
        db.table("runs").create_index([column])
    db.table("sweeps").create_index(["user_id"])
