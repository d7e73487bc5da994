"""The database file: opened once, one connection a thread, written in short transactions.

It knows files, connections and transactions; no table. `Store.open` is for the app and
the command line; `Store(path)` alone connects to a file that is already migrated.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from sqlite_utils import Database

from masuka.config import Workspace
from masuka.errors import StoreError
from masuka.store.driver import BUSY_TIMEOUT_MS, in_words, sqlite3

IntegrityError = sqlite3.IntegrityError


class Store:
    """An open database; every thread may use it, each through a connection of its own.

    `notices` are sentences for the person about how the database was opened, `migrations`
    what `open` did with each, for example 'm001_initial: already done'.
    `secrets` is the folder of the key that encrypts settings.
    """

    def __init__(self, path: Path | str, *, notices: Iterable[str] = (), secrets: Path | None = None) -> None:
        self.path = Path(path)
        self.notices = list(notices)
        self.migrations: tuple[str, ...] = ()
        self.secrets = secrets or self.path.parent / "secrets"
        self._mine = threading.local()
        self._opened: dict[threading.Thread, Database] = {}
        self._lock = threading.Lock()
        self._closed = False

    @classmethod
    def open(cls, workspace: Workspace, *, secret_key: str | None = None) -> Store:
        """The workspace's database, migrated to the present schema, a backup taken before.

        A file that cannot be reached is tried three times; then a fallback file beside it
        is opened, and `notices` says so. A MASUKA 2 file is left as it is: its rows are
        copied into a new database (`secret_key` decrypts its settings).
        Raises Locked, Damaged or SchemaTooNew.
        """
        from masuka.store.opening import open_store

        return open_store(workspace, secret_key=secret_key)

    @contextmanager
    def read(self) -> Iterator[Database]:
        """This thread's connection, to read; inside `write` it sees what was written."""
        with self._in_words():
            yield self._database()

    @contextmanager
    def write(self) -> Iterator[Database]:
        """A transaction that holds the write lock from its first moment.

        Committed at the end of the outermost block, rolled back whole when it is left by
        an exception. An inner block joins the outer one; left by an exception that the
        outer one catches, it undoes its own part only.
        Raises Locked when another program writes for longer than five seconds.
        """
        with self._in_words():
            db = self._database()
            if db.conn.in_transaction:
                with db.atomic():
                    yield db
                return
            db.conn.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.conn.execute("COMMIT")
            except BaseException:
                if db.conn.in_transaction:
                    db.conn.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Closes every thread's connection; a second call does nothing."""
        with self._lock:
            self._closed = True
            opened, self._opened = list(self._opened.values()), {}
        for db in opened:
            db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _database(self) -> Database:
        if self._closed:
            raise StoreError("The database is closed.", "Open the studio again.")
        db = getattr(self._mine, "db", None)
        if db is None:
            db = self._mine.db = connect(self.path)
            with self._lock:
                self._forget_dead_threads()
                self._opened[threading.current_thread()] = db
        return db

    def _forget_dead_threads(self) -> None:
        for thread in [t for t in self._opened if not t.is_alive()]:
            self._opened.pop(thread).close()

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            told = in_words(error, self.path)
            if told is None:
                raise
            raise told from error


def connect(path: Path) -> Database:
    """A connection with the settings that every one of ours has.

    In rollback-journal mode `synchronous` is FULL: NORMAL is safe against power loss in
    WAL mode only (sqlite.org/pragma.html#pragma_synchronous).
    """
    connection = sqlite3.connect(
        str(path), timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
    except BaseException:
        connection.close()
        raise
    return Database(connection, recursive_triggers=False, execute_plugins=False)
