"""The first schema: people, characters, data sets, jobs, trainings, finished items, models.

Times are ISO 8601 in UTC. Paths are relative to the workspace where they lie inside it.
JSON columns hold an object unless said otherwise. `change` is stamped by triggers from
one counter, so that a page may ask what changed since a number, whoever wrote it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlite_utils import Database

TABLES = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username TEXT NOT NULL UNIQUE COLLATE NOCASE,
    email TEXT UNIQUE COLLATE NOCASE,
    password_hash TEXT,
    role TEXT NOT NULL DEFAULT 'viewer' CHECK (role IN ('owner', 'editor', 'viewer')),
    active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE characters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    name TEXT NOT NULL,
    trigger_word TEXT NOT NULL DEFAULT '',
    class_word TEXT NOT NULL DEFAULT 'person',
    base TEXT NOT NULL DEFAULT '',
    dataset_id INTEGER REFERENCES datasets ON DELETE SET NULL,
    picture TEXT,
    consent TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'created',
    created_at TEXT NOT NULL,
    completed_at TEXT,
    change INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user_id, name)
) STRICT;

CREATE TABLE datasets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    character_id INTEGER REFERENCES characters ON DELETE SET NULL,
    name TEXT NOT NULL,
    trigger_word TEXT NOT NULL DEFAULT '',
    class_word TEXT NOT NULL DEFAULT 'person',
    caption_template TEXT NOT NULL DEFAULT '',
    options TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'created',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE pictures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset_id INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    file TEXT NOT NULL,
    original_name TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL,
    width INTEGER NOT NULL DEFAULT 0 CHECK (width >= 0),
    height INTEGER NOT NULL DEFAULT 0 CHECK (height >= 0),
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    caption TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    UNIQUE (dataset_id, sha256)
) STRICT;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    kind TEXT NOT NULL,
    lane TEXT NOT NULL CHECK (lane IN ('gpu', 'cpu', 'net')),
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN (
        'queued', 'running', 'paused', 'done', 'failed', 'cancelled', 'interrupted', 'uncertain')),
    title TEXT NOT NULL DEFAULT '',
    request TEXT NOT NULL DEFAULT '{}',
    params TEXT NOT NULL DEFAULT '{}',
    character_id INTEGER REFERENCES characters ON DELETE SET NULL,
    dataset_id INTEGER REFERENCES datasets ON DELETE SET NULL,
    run_id INTEGER REFERENCES runs ON DELETE SET NULL,
    stage TEXT NOT NULL DEFAULT '',
    step INTEGER NOT NULL DEFAULT 0 CHECK (step >= 0),
    total INTEGER NOT NULL DEFAULT 0 CHECK (total >= 0),
    seconds_per_step REAL,
    message TEXT NOT NULL DEFAULT '',
    error TEXT,
    result TEXT,
    asked TEXT NOT NULL DEFAULT '' CHECK (asked IN ('', 'cancel', 'pause')),
    attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    failures_without_checkpoint INTEGER NOT NULL DEFAULT 0 CHECK (failures_without_checkpoint >= 0),
    fence INTEGER NOT NULL DEFAULT 0 CHECK (fence >= 0),
    pid INTEGER,
    pid_started REAL,
    events_offset INTEGER NOT NULL DEFAULT 0 CHECK (events_offset >= 0),
    events_seen INTEGER NOT NULL DEFAULT 0 CHECK (events_seen >= 0),
    position REAL NOT NULL DEFAULT 0,
    idempotency_key TEXT UNIQUE,
    created_at TEXT NOT NULL,
    started_at TEXT,
    finished_at TEXT,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE job_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    at TEXT NOT NULL,
    type TEXT NOT NULL,
    data TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    job_id INTEGER REFERENCES jobs ON DELETE SET NULL,
    character_id INTEGER REFERENCES characters ON DELETE SET NULL,
    dataset_id INTEGER REFERENCES datasets ON DELETE SET NULL,
    name TEXT NOT NULL DEFAULT '',
    base TEXT NOT NULL DEFAULT '',
    family TEXT NOT NULL DEFAULT '',
    config TEXT NOT NULL DEFAULT '{}',
    content TEXT NOT NULL DEFAULT '{}',
    folder TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL DEFAULT 'created',
    created_at TEXT NOT NULL,
    finished_at TEXT,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE metrics (
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    epoch INTEGER NOT NULL DEFAULT 0 CHECK (epoch >= 0),
    at TEXT NOT NULL,
    loss REAL CHECK (loss BETWEEN 0 AND 1.7e308),
    learning_rate REAL CHECK (learning_rate BETWEEN 0 AND 1.7e308),
    seconds_per_step REAL CHECK (seconds_per_step BETWEEN 0 AND 1.7e308),
    extra TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (run_id, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    step INTEGER NOT NULL CHECK (step >= 0),
    prompt TEXT NOT NULL DEFAULT '',
    seed INTEGER NOT NULL DEFAULT 0,
    file TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE models (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('base', 'adapter')),
    name TEXT NOT NULL,
    base TEXT NOT NULL DEFAULT '',
    family TEXT NOT NULL DEFAULT '',
    task TEXT NOT NULL DEFAULT '',
    strategy TEXT NOT NULL DEFAULT '',
    provider TEXT NOT NULL DEFAULT '',
    tier TEXT NOT NULL DEFAULT '',
    path TEXT NOT NULL DEFAULT '',
    sha256 TEXT NOT NULL DEFAULT '',
    trigger_word TEXT NOT NULL DEFAULT '',
    class_word TEXT NOT NULL DEFAULT '',
    character_id INTEGER REFERENCES characters ON DELETE SET NULL,
    run_id INTEGER REFERENCES runs ON DELETE SET NULL,
    best_weight REAL,
    config TEXT NOT NULL DEFAULT '{}',
    active INTEGER NOT NULL DEFAULT 1 CHECK (active IN (0, 1)),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    job_id INTEGER REFERENCES jobs ON DELETE SET NULL,
    character_id INTEGER REFERENCES characters ON DELETE SET NULL,
    adapter_id INTEGER REFERENCES models ON DELETE SET NULL,
    kind TEXT NOT NULL DEFAULT 'image',
    file TEXT NOT NULL,
    width INTEGER NOT NULL DEFAULT 0 CHECK (width >= 0),
    height INTEGER NOT NULL DEFAULT 0 CHECK (height >= 0),
    prompt TEXT NOT NULL DEFAULT '',
    seed INTEGER NOT NULL DEFAULT 0,
    settings TEXT NOT NULL DEFAULT '{}',
    starred INTEGER NOT NULL DEFAULT 0 CHECK (starred IN (0, 1)),
    deleted_at TEXT,
    created_at TEXT NOT NULL,
    change INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE settings (
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL DEFAULT '',
    encrypted INTEGER NOT NULL DEFAULT 0 CHECK (encrypted IN (0, 1)),
    needs_reentry INTEGER NOT NULL DEFAULT 0 CHECK (needs_reentry IN (0, 1)),
    updated_at TEXT NOT NULL,
    PRIMARY KEY (user_id, key)
) STRICT;

CREATE TABLE imported (
    fingerprint TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    old_table TEXT NOT NULL,
    old_id INTEGER NOT NULL,
    new_id INTEGER NOT NULL,
    row TEXT NOT NULL,
    imported_at TEXT NOT NULL
) STRICT;

CREATE TABLE changes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    number INTEGER NOT NULL
) STRICT
"""

INDEXES = {
    "characters": ("dataset_id", "change"),
    "datasets": ("user_id", "character_id", "created_at", "change"),
    "pictures": ("user_id",),
    "jobs": (
        "user_id", "state, lane, position", "character_id", "dataset_id", "run_id", "kind", "created_at", "change",
    ),
    "job_events": ("job_id",),
    "runs": ("user_id", "job_id", "character_id", "dataset_id", "created_at", "change"),
    "metrics": ("run_id, epoch", "at"),
    "samples": ("run_id, step",),
    "models": ("user_id", "kind, active", "family", "task", "character_id", "run_id", "created_at", "change"),
    "items": ("user_id", "job_id", "character_id", "adapter_id", "starred", "deleted_at", "created_at", "change"),
}  # fmt: skip
"""Everything that is listed by, filtered by, or followed when a parent is deleted."""

COUNTED = ("characters", "datasets", "jobs", "runs", "models", "items")
"""Tables whose every write takes the next change number."""


def m001_initial(db: Database) -> None:
    """An empty database with its tables, and the owner as user 1."""
    for statement in TABLES.split(";\n\n"):
        db.execute(statement)
    for table, indexes in INDEXES.items():
        for columns in indexes:
            db.table(table).create_index([c.strip() for c in columns.split(",")])
    # A page lists the pictures of a data set in the order they came.
    db.table("pictures").create_index(["dataset_id", "id"])
    db.table("changes").insert({"id": 1, "number": 0})
    for table in COUNTED:
        for statement in change_triggers(table):
            db.execute(statement)
    for statement in PICTURE_TRIGGERS:
        db.execute(statement)
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    db.table("users").insert({"id": 1, "username": "owner", "role": "owner", "active": 1, "created_at": now})


def change_triggers(table: str) -> tuple[str, str, str]:
    """The statements that keep `change` of one table true, also on deletion."""
    count = "UPDATE changes SET number = number + 1"
    stamp = f"UPDATE {table} SET change = (SELECT number FROM changes) WHERE id = new.id"  # noqa: S608 - of COUNTED
    return (
        f"CREATE TRIGGER {table}_added AFTER INSERT ON {table} BEGIN {count}; {stamp}; END",
        f"CREATE TRIGGER {table}_changed AFTER UPDATE ON {table} WHEN new.change = old.change "
        f"BEGIN {count}; {stamp}; END",
        f"CREATE TRIGGER {table}_deleted AFTER DELETE ON {table} BEGIN {count}; END",
    )


PICTURE_TRIGGERS = (
    "CREATE TRIGGER pictures_added AFTER INSERT ON pictures BEGIN "
    "UPDATE datasets SET updated_at = new.created_at WHERE id = new.dataset_id; END",
    "CREATE TRIGGER pictures_changed AFTER UPDATE ON pictures BEGIN "
    "UPDATE datasets SET updated_at = new.updated_at WHERE id = new.dataset_id; END",
    "CREATE TRIGGER pictures_deleted AFTER DELETE ON pictures BEGIN "
    "UPDATE datasets SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now') "
    "WHERE id = old.dataset_id; END",
)
"""A picture that comes, changes or goes is a change of its data set."""
