"""How the workspace's database is found and opened: retries, fallback, MASUKA 2 files."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from masuka.config import Workspace
from masuka.errors import StoreError
from masuka.store.connect import Store, connect
from masuka.store.driver import OLDEST_VERSION, is_unreachable, sqlite3, version, wal_is_safe
from masuka.store.legacy import import_masuka2, is_masuka2, nothing_new
from masuka.store.migrations.runner import migrate

TRIES = 3
SECONDS_BETWEEN_TRIES = 0.3
FALLBACK_NAME = "masuka-fallback.db"


def open_store(workspace: Workspace, *, secret_key: str | None = None) -> Store:
    """The migrated database of the workspace; see `Store.open`."""
    if version() < OLDEST_VERSION:
        raise StoreError(
            f"SQLite {sqlite3.sqlite_version} is too old.",
            "Install pysqlite3: pip install 'pysqlite3>=0.6.1'.",
        )
    notices: list[str] = []
    wanted = database_file(workspace)
    old = workspace.database if wanted != workspace.database else None
    path = _reachable(wanted, workspace, notices)
    steps = migrate(path, backups=workspace.backups)
    _tell_journal_mode(path, notices)
    store = Store(path, notices=notices, secrets=workspace.secrets)
    store.migrations = tuple(f"{step.name}: {step.status}" for step in steps)
    if old:
        _bring_over(store, old, workspace, secret_key)
    return store


def database_file(workspace: Workspace) -> Path:
    """Our database; not the one of DATABASE_URL where that is still MASUKA 2's."""
    named = workspace.database
    if not is_masuka2(named):
        return named
    usual = workspace.root / "masuka.db"
    return usual if usual.resolve() != named.resolve() else named.with_name("masuka-3.db")


def _bring_over(store: Store, old: Path, workspace: Workspace, secret_key: str | None) -> None:
    store.notices.append(f"{old} belongs to MASUKA 2 and stays as it is. This studio works in {store.path}.")
    try:
        if nothing_new(store, old, secret_key=secret_key):
            return
        report = import_masuka2(store, old, workspace=workspace, secret_key=secret_key)
    except StoreError as error:
        store.notices.append(f"Nothing was copied from it: {error}")
        return
    except BaseException:
        store.close()
        raise
    if report.added:
        store.notices.append(report.summary)
        store.notices.extend(report.oddities)
    if report.enter_again:
        store.notices.append(f"Enter these again in Settings: {', '.join(report.enter_again)}.")


def _reachable(wanted: Path, workspace: Workspace, notices: list[str]) -> Path:
    """The wanted file, or the fallback beside it when it cannot be opened."""
    why = _why_unreachable(wanted)
    if not why:
        fallback = wanted.with_name(FALLBACK_NAME)
        if fallback.exists():
            notices.append(
                f"The database is reachable again. What was made meanwhile is in {fallback}; it is kept as it is."
            )
        return wanted
    for fallback in dict.fromkeys((wanted.with_name(FALLBACK_NAME), workspace.root / FALLBACK_NAME)):
        if not _why_unreachable(fallback, tries=1):
            notices.append(
                f"The database {wanted} cannot be opened ({why}). This session works in {fallback}; "
                "nothing of it is in the database itself."
            )
            return fallback
    raise StoreError(
        f"The database {wanted} cannot be opened: {why}.",
        "Check that its disk is connected and that you may write there.",
    )


def _why_unreachable(path: Path, *, tries: int = TRIES) -> str:
    """Why the file cannot be opened for writing, after several tries; '' when it can."""
    why = ""
    for attempt in range(tries):
        if attempt:
            time.sleep(SECONDS_BETWEEN_TRIES)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Never open the file ourselves: closing it would drop the locks of every other
            # connection of this process (sqlite.org/howtocorrupt.html, 2.2).
            with closing(connect(path)) as db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("ROLLBACK")
            return ""
        except OSError as error:
            why = str(error.strerror or error).lower()
        except sqlite3.Error as error:
            if not is_unreachable(error):
                return ""
            why = str(error)
    return why


def _tell_journal_mode(path: Path, notices: list[str]) -> None:
    if not wal_is_safe(version()):
        notices.append(
            f"SQLite {sqlite3.sqlite_version} has a bug in its fast journal (WAL), so the safe one is used. "
            "Install pysqlite3 0.6.1 or newer for the fast one."
        )
        return
    with closing(connect(path)) as db:
        mode = db.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        notices.append(f"The disk of {path} does not support SQLite's fast journal, so the safe one is used.")
