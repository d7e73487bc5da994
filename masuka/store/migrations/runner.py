"""Migrating, checking, backing up and restoring the database file.

Every function that changes the file holds the lock beside it, so that two programs
that start together migrate once. A backup is written whole under another name first,
and its name is never used twice.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from sqlite_utils import Database, Migrations

from masuka.errors import Conflict, Damaged, Locked, NotFound, SchemaTooNew, StoreError
from masuka.store.connect import connect
from masuka.store.driver import in_words, sqlite3, version, wal_is_safe
from masuka.store.migrations import MIGRATIONS, Migration, as_set, names_of

LOCK_TIMEOUT_S = 60.0
BUSY_RESTORE_MS = 500
BACKUP_NAME = re.compile(r"masuka-\d{8}T\d{6}Z-\d+\.db")
KEPT_BACKUPS, KEPT_DAYS = 10, 7
"""The newest backups stay, and of each of the last days its newest."""


@dataclass(frozen=True)
class Step:
    """One migration and what became of it."""

    name: str
    status: Literal["done", "already done"]


@dataclass(frozen=True)
class Check:
    """The health of a database; `problems` are sentences, empty when all is well.

    `whole` says that the file itself is undamaged, whatever its rows refer to.
    """

    path: Path
    whole: bool
    sqlite_version: str
    journal_mode: str
    applied: tuple[str, ...]
    pending: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems and not self.pending


@contextmanager
def alone(path: Path, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Holds the lock beside the database; raises Locked when another program keeps it."""
    lock = FileLock(path.with_name(path.name + ".lock"), timeout=timeout_s)
    try:
        lock.acquire()
    except Timeout:
        raise Locked(
            "Another program is opening or restoring the database.", "Wait for it to finish, then try again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def migrate(path: Path, *, backups: Path, migrations: Sequence[Migration] = MIGRATIONS) -> list[Step]:
    """Every migration in order, each 'done' now or 'already done'.

    A file that holds rows is backed up before the first pending one. All pending ones
    succeed together or leave the file as it was.
    Raises SchemaTooNew for a file of a newer MASUKA, Conflict for another program's.
    """
    with alone(path), _told(path), closing(connect(path)) as db:
        refuse_foreign(db, path, migrations)
        set_journal_mode(db)
        pending = {migration.name for migration in as_set(migrations).pending(db)}
        if pending:
            if db.table_names():
                write_backup(db, backups)
                thin_backups(backups)
            _apply(db, migrations)
        return [Step(name, "done" if name in pending else "already done") for name in names_of(migrations)]


def _apply(db: Database, migrations: Sequence[Migration]) -> None:
    # Off while tables are rebuilt; the pragma does nothing inside a transaction.
    db.execute("PRAGMA foreign_keys = OFF")
    broken = _broken_keys(db)
    with db.atomic():
        as_set(migrations).apply(db)
        new = _broken_keys(db) - broken
        if new:
            table, parent = sorted(new)[0][:2]
            raise Damaged(
                f"{len(new)} rows would name rows that are gone, for example of {table} in {parent}.",
                "Nothing was changed; please report this, with the log.",
            )


def set_journal_mode(db: Database) -> str:
    """The journal mode that was set: 'wal' where that is safe, else 'delete'."""
    wanted = "wal" if wal_is_safe(version()) else "delete"
    return str(db.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0])


def refuse_foreign(db: Database, path: Path, migrations: Sequence[Migration]) -> None:
    """Raises SchemaTooNew or Conflict when this program must not write to the file."""
    applied = [migration.name for migration in as_set(migrations).applied(db)]
    unknown = [name for name in applied if name not in names_of(migrations)]
    if unknown:
        raise SchemaTooNew(
            f"The database {path.name} was written by a newer MASUKA ({unknown[-1]}).",
            "Update MASUKA, or restore a backup from before the update.",
        )
    if not applied and set(db.table_names()) - {Migrations.migrations_table}:
        raise Conflict(
            f"The file {path} is another program's database.", "Name a different file in DATABASE_URL."
        )


def check(path: Path) -> Check:
    """What is wrong with the file, if anything; raises NotFound if it is missing."""
    if not path.is_file():
        raise NotFound(f"There is no database at {path}.", "Start MASUKA once; it makes one.")
    problems: list[str] = []
    known = names_of(MIGRATIONS)
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    mode, whole = "", False
    try:
        with closing(connect(path)) as db:
            mode = str(db.execute("PRAGMA journal_mode").fetchone()[0])
            integrity = [str(row[0]) for row in db.execute("PRAGMA integrity_check").fetchall()]
            whole = integrity == ["ok"]
            problems += [f"The file is damaged: {text}." for text in integrity if text != "ok"]
            for row in db.execute("PRAGMA foreign_key_check").fetchall():
                problems.append(f"Row {row[1]} of {row[0]} names a row of {row[2]} that is gone.")
            applied = tuple(migration.name for migration in as_set(MIGRATIONS).applied(db))
            pending = tuple(migration.name for migration in as_set(MIGRATIONS).pending(db))
            problems += [f"It was written by a newer MASUKA ({n})." for n in applied if n not in known]
    except sqlite3.Error as error:
        told = in_words(error, path)
        if told is None or isinstance(told, Locked):
            raise (told or error) from error
        problems.append(told.message)
    return Check(path, whole, sqlite3.sqlite_version, mode, applied, pending, tuple(problems))


def backup(path: Path, *, backups: Path) -> Path:
    """A new backup of the database, checked; raises NotFound without a database.

    Old ones go: see `thin_backups`.
    """
    if not path.is_file():
        raise NotFound(f"There is no database at {path}.", "Start MASUKA once; it makes one.")
    with alone(path), _told(path), closing(connect(path)) as db:
        written = write_backup(db, backups)
        thin_backups(backups)
        return written


def thin_backups(backups: Path, *, now: datetime | None = None) -> list[Path]:
    """The backups that went: neither among the newest nor the newest of a recent day.

    A backup under a name of one's own is kept for ever.
    """
    found = list_backups(backups)
    oldest = f"{(now or datetime.now(UTC)) - timedelta(days=KEPT_DAYS - 1):%Y%m%d}"
    of_day: dict[str, Path] = {}
    for file in found:
        of_day.setdefault(_age(file)[0][:8], file)
    kept = {*found[:KEPT_BACKUPS], *(file for day, file in of_day.items() if day >= oldest)}
    gone = [file for file in found if file not in kept]
    _delete(gone)
    return gone


def renew_backups(path: Path, *, backups: Path) -> Path | None:
    """A new backup in the place of all older ones; None where there was none.

    For what was deleted for good: no copy that MASUKA made by itself has it any more. A
    backup under a name of one's own is kept for ever.
    """
    if not list_backups(backups):
        return None
    with alone(path), _told(path), closing(connect(path)) as db:
        older = list_backups(backups)
        written = write_backup(db, backups)
        _delete(older)
        return written


def _delete(files: Iterable[Path]) -> None:
    for file in files:
        for ending in ("-wal", "-journal", ""):  # of a damaged file, see _keep_damaged
            file.with_name(file.name + ending).unlink(missing_ok=True)


def list_backups(backups: Path) -> list[Path]:
    """Every backup, the newest first; other files that lie there are none."""
    found = (file for file in backups.glob("masuka-*.db") if BACKUP_NAME.fullmatch(file.name))
    return sorted(found, key=_age, reverse=True)


def restore(path: Path, chosen: Path, *, backups: Path) -> Path | None:
    """Puts a backup in the database's place; the backup of what it replaced, if any.

    Raises NotFound, Damaged when the backup is not whole, SchemaTooNew, and Locked while
    another program has the database open.
    """
    if not chosen.is_file():
        raise NotFound(f"There is no backup {chosen.name}.", "Choose one that 'db backup --list' shows.")
    with alone(path):
        # Checked with the lock held: meanwhile nobody thins the backups.
        _must_be_usable(chosen)
        replaced, usable = _set_aside(path, backups)
        (_copy_into if usable else _put_in_place)(chosen, path)
        _end_sessions(path)
    return replaced


def _must_be_usable(chosen: Path) -> None:
    health = check(chosen)
    if any(name not in names_of(MIGRATIONS) for name in health.applied):
        raise SchemaTooNew(f"The backup {chosen.name} was written by a newer MASUKA.", "Update MASUKA.")
    if not health.whole:
        raise Damaged(f"The backup {chosen.name} cannot be used: {health.problems[0]}", "Choose another.")
    if not health.applied:
        raise Conflict(f"{chosen.name} is no backup of MASUKA.", "Choose a file of the backups folder.")


def write_backup(db: Database, backups: Path) -> Path:
    """A copy of the open database under a new name: masuka-<utc>-<n>.db.

    VACUUM INTO gives one whole file without a WAL flag, unlike a copy of the live file.
    """
    backups.mkdir(parents=True, exist_ok=True)
    part = backups / f".part-{os.getpid()}.db"
    part.unlink(missing_ok=True)
    db.execute("VACUUM INTO ?", [str(part)])
    with closing(connect(part)) as copy:
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        part.unlink()
        raise Damaged(f"The backup did not come out whole: {found}.", "Run 'python -m masuka db check'.")
    return _keep(part, backups)


def _keep(part: Path, backups: Path) -> Path:
    """The file under its final name; a link fails where a rename would overwrite."""
    _flush(part)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for number in range(1, 10_000):
        final = backups / f"masuka-{stamp}-{number}.db"
        if final.exists():
            continue
        try:
            os.link(part, final)
        except FileExistsError:
            continue
        except OSError:
            # No hard links there (Drive, exFAT): the lock beside the database keeps us alone.
            part.rename(final)
        part.unlink(missing_ok=True)
        _flush(backups)
        return final
    raise StoreError("There are 10,000 backups of this second.", "Move them away.")


def _set_aside(path: Path, backups: Path) -> tuple[Path | None, bool]:
    """The backup of the file that is about to be replaced, and whether that file is sound.

    Leaving WAL needs the file alone, so it tells whether another program has it open.
    """
    if not path.exists():
        return None, False
    try:
        with closing(connect(path)) as db:
            db.execute(f"PRAGMA busy_timeout = {BUSY_RESTORE_MS}")
            kept = write_backup(db, backups)
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("BEGIN EXCLUSIVE")
            db.execute("ROLLBACK")
    except sqlite3.Error as error:
        if isinstance(in_words(error, path), Locked):
            raise Locked("The database is open.", "Stop MASUKA everywhere, then restore.") from error
        return _keep_damaged(path, backups), False
    except Damaged:
        return _keep_damaged(path, backups), False
    return kept, True


def _copy_into(chosen: Path, path: Path) -> None:
    """Writes the backup's pages into the sound file, in one transaction.

    The file stays the same one: a program that has it open without our knowledge (outside
    WAL an idle one cannot be seen) goes on with the restored rows, not with a deleted file.
    """
    with _told(path), closing(connect(chosen)) as source, closing(connect(path)) as target:
        source.conn.backup(target.conn)


def _end_sessions(path: Path) -> None:
    """Who signed out since the backup was made must not be inside again, nor come in anew."""
    with _told(path), closing(connect(path)) as db:
        if "sessions" in db.table_names():
            db.execute("DELETE FROM sessions")
            # An invite that was used or taken back since then would be open once more.
            db.execute("UPDATE invites SET revoked_at = created_at WHERE used_at IS NULL AND revoked_at IS NULL")


def _put_in_place(chosen: Path, path: Path) -> None:
    """Puts a copy of the backup where a damaged file or none is."""
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
    fresh = path.with_name(path.name + ".new")
    shutil.copyfile(chosen, fresh)
    _flush(fresh)
    fresh.replace(path)
    _flush(path.parent)


def _keep_damaged(path: Path, backups: Path) -> Path:
    """A copy of the bytes as they are, with the journal that may still repair them."""
    backups.mkdir(parents=True, exist_ok=True)
    part = backups / f".part-{os.getpid()}.db"
    shutil.copyfile(path, part)
    kept = _keep(part, backups)
    for ending in ("-wal", "-journal"):
        journal = path.with_name(path.name + ending)
        if journal.exists():
            shutil.copyfile(journal, kept.with_name(kept.name + ending))
    return kept


def _age(backup: Path) -> tuple[str, int]:
    _, stamp, number = backup.stem.split("-")
    return stamp, int(number)


def _broken_keys(db: Database) -> set[tuple[str, str, int, int]]:
    """Rows whose parent is gone, as (table, parent table, row, number of the key)."""
    rows = db.execute("PRAGMA foreign_key_check").fetchall()
    return {(row["table"], row["parent"], row["rowid"] or 0, row["fkid"]) for row in rows}


def _flush(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        told = in_words(error, path)
        if told is None:
            raise
        raise told from error
