"""Copies of the database that leave this machine, and how one settles on another machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from masuka.errors import Damaged
from masuka.store.connect import Store, connect
from masuka.store.driver import in_words, sqlite3
from masuka.store.migrations import MIGRATIONS, as_set
from masuka.store.migrations.runner import alone, migrate

LEFT_OUT = ("sessions",)
"""Tables that stay on this machine: who is signed in here."""
PATHS = {
    "pictures": "file", "items": "file", "samples": "file", "models": "path", "runs": "folder",
    "characters": "picture",
}  # fmt: skip
"""Columns with a path; absolute where the file lies outside the workspace."""
JSON = {"jobs": ("params", "request", "result")}
"""Columns whose JSON holds absolute paths for workers."""

NEWEST_CHECKPOINT = (
    "SELECT COALESCE(MAX(id), ?) FROM job_events WHERE id > ? AND type = 'artefact' "
    "AND json_extract(data, '$.kind') IN ('checkpoint', 'adapter')"
)
CHECKPOINTS = (
    "SELECT json_extract(data, '$.path') FROM job_events WHERE id <= ? AND type = 'artefact' "
    "AND json_extract(data, '$.kind') = 'checkpoint'"
)
UNFINISHED = "SELECT params FROM jobs WHERE state IN ('queued', 'running', 'paused', 'interrupted', 'uncertain')"
REFERRED = "SELECT file FROM pictures UNION SELECT file FROM items UNION SELECT file FROM samples"
MASKS = """
SELECT json_extract(edits, '$.mask_sha256') FROM pictures UNION
SELECT json_extract(edits, '$.matte_sha256') FROM pictures UNION
SELECT json_extract(value, '$.edits.mask_sha256') FROM runs, json_each(runs.content, '$.pictures') UNION
SELECT json_extract(value, '$.edits.matte_sha256') FROM runs, json_each(runs.content, '$.pictures')
"""


UNCOUNTED = ("users", "settings", "invites", "shares")
"""Small tables whose changes no page waits for, so that the change number passes over them."""


@dataclass(frozen=True)
class Snapshot:
    """A copy: the mark of what it holds, and the migrations it has."""

    mark: str
    schema: tuple[str, ...]
    event: int = 0
    """The number of the newest event in it that kept weights."""


@dataclass(frozen=True)
class Pulse:
    """What a database holds now; `version` moves with others' commits."""

    version: int
    mark: str


@dataclass(frozen=True)
class Referred:
    """What the database still knows; a kept file of nothing here may be forgotten."""

    files: frozenset[str]
    adapters: frozenset[str]
    runs: frozenset[int]
    jobs: frozenset[int]
    masks: frozenset[str] = frozenset()
    """Sums of the masks and cut-outs that pictures or trainings have."""


def write_snapshot(path: Path, to: Path) -> Snapshot:
    """A whole copy of the live database at `to`, without anybody's session; checked.

    VACUUM INTO gives one file without a WAL flag and without what was deleted before.
    Raises Locked, Damaged, OutOfDisk.
    """
    to.unlink(missing_ok=True)
    try:
        with closing(connect(path)) as db:
            db.execute("VACUUM INTO ?", [str(to)])
        with closing(connect(to)) as copy:
            _strip(copy)
            found = str(copy.execute("PRAGMA integrity_check").fetchone()[0])
            if found != "ok":
                raise Damaged(f"The copy did not come out whole: {found}.", "Run 'python -m masuka db check'.")
            event = int(copy.execute(NEWEST_CHECKPOINT, [0, 0]).fetchone()[0])
            return Snapshot(_mark(copy), tuple(m.name for m in as_set(MIGRATIONS).applied(copy)), event)
    except sqlite3.Error as error:
        told = in_words(error, path)
        if told is None:
            raise
        raise told from error


def settle(path: Path, *, moved: Mapping[str, str], backups: Path) -> None:
    """Makes a database from another machine this one's, migrated.

    `moved` maps folders there to folders here; absolute paths below them are rewritten.
    Processes of the other machine are forgotten, so that its jobs count as interrupted.
    """
    migrate(path, backups=backups)
    with alone(path), closing(connect(path)) as db, db.atomic():
        # A dead machine's process number may be anybody's here.
        db.execute("UPDATE jobs SET pid = NULL, pid_started = NULL WHERE pid IS NOT NULL")
        renamed = {old: new for old, new in moved.items() if old and old != new}
        if renamed:
            _rewrite(db, renamed)


def pulse(db: Store, before: Pulse | None) -> Pulse:
    """What the database holds now; equal marks hold the same. Ask from one thread.

    Who is signed in is no change: that is never saved.
    """
    with db.read() as conn:
        version = int(conn.execute("PRAGMA data_version").fetchone()[0])
        if before is not None and before.version == version:
            return before
        return Pulse(version, _mark(conn))


def newest_checkpoint(db: Store, *, after_id: int) -> int:
    """The number of the newest event that kept weights, `after_id` without any since."""
    with db.read() as conn:
        return int(conn.execute(NEWEST_CHECKPOINT, [after_id, after_id]).fetchone()[0])


def checkpoints_until(db: Store, event_id: int) -> set[str]:
    """The folders of checkpoints, as stored, that events up to that number told of."""
    with db.read() as conn:
        return {str(row[0]) for row in conn.execute(CHECKPOINTS, [event_id]).fetchall()}


def unfinished_params(db: Store) -> list[Any]:
    """The params of every job that has not ended."""
    with db.read() as conn:
        return [json.loads(row[0]) for row in conn.execute(UNFINISHED).fetchall()]


def referred(db: Store) -> Referred:
    """What every person's rows refer to."""
    with db.read() as conn:
        return Referred(
            files=frozenset(row[0] for row in conn.execute(REFERRED).fetchall()),
            adapters=frozenset(row[0] for row in conn.execute("SELECT path FROM models WHERE path != ''").fetchall()),
            runs=frozenset(row[0] for row in conn.execute("SELECT id FROM runs").fetchall()),
            jobs=frozenset(row[0] for row in conn.execute("SELECT id FROM jobs").fetchall()),
            masks=frozenset(row[0] for row in conn.execute(MASKS).fetchall() if row[0]),
        )


def _mark(conn: Database) -> str:
    digest = hashlib.sha256()
    there = set(conn.table_names())
    for table in UNCOUNTED:
        if table in there:
            for row in conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall():  # noqa: S608 - of UNCOUNTED
                digest.update(repr(tuple(row)).encode())
    number = conn.execute("SELECT number FROM changes").fetchone()[0]
    return f"{number}-{digest.hexdigest()[:16]}"


def _strip(copy: Database) -> None:
    there = set(copy.table_names())
    emptied = False
    for table in LEFT_OUT:
        if table in there and copy.table(table).count:
            copy.execute(f"DELETE FROM {table}")  # noqa: S608 - of LEFT_OUT
            emptied = True
    if emptied:
        # Deleted rows stay readable in the free pages until the file is written anew.
        copy.execute("VACUUM")


def _rewrite(db: Database, renamed: Mapping[str, str]) -> None:
    for table, column in PATHS.items():
        for row in db.execute(f"SELECT rowid AS n, {column} AS v FROM {table}").fetchall():  # noqa: S608
            value = _moved(row["v"], renamed)
            if value != row["v"]:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", [value, row["n"]])  # noqa: S608
    for table, columns in JSON.items():
        for column in columns:
            for row in db.execute(f"SELECT id, {column} AS v FROM {table} WHERE {column} IS NOT NULL").fetchall():  # noqa: S608
                value = json.dumps(_moved(json.loads(row["v"]), renamed), ensure_ascii=False)
                if value != row["v"]:
                    db.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", [value, row["id"]])  # noqa: S608


def _moved(value: Any, renamed: Mapping[str, str]) -> Any:
    """The value with every path below an old folder below the new one."""
    if isinstance(value, str):
        for old, new in renamed.items():
            if value == old or value.startswith(f"{old}/"):
                return new + value[len(old) :]
        return value
    if isinstance(value, list):
        return [_moved(entry, renamed) for entry in value]
    if isinstance(value, dict):
        return {name: _moved(entry, renamed) for name, entry in value.items()}
    return value
