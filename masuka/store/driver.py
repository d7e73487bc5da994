"""The SQLite library in use: which journal mode is safe with it, and its errors in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from masuka.errors import Damaged, Locked, MasukaError, OutOfDisk, StoreError

__all__ = ["in_words", "is_unreachable", "sqlite3", "version", "wal_is_safe"]

if TYPE_CHECKING:
    import sqlite3
else:
    # sqlite-utils takes pysqlite3 where it is installed; both sides must use the same one,
    # because its exceptions are classes of their own.
    from sqlite_utils.utils import sqlite3

OLDEST_VERSION = (3, 37, 0)  # STRICT tables
BUSY_TIMEOUT_MS = 5000

_FIXED_BRANCHES = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
_UNREACHABLE = ("SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_PROTOCOL")


def version() -> tuple[int, int, int]:
    """The version of the SQLite library, for example (3, 53, 4)."""
    major, minor, patch = (int(part) for part in sqlite3.sqlite_version.split(".")[:3])
    return major, minor, patch


def wal_is_safe(library: tuple[int, int, int]) -> bool:
    """Whether this SQLite is free of the WAL-reset bug, which corrupts files.

    Fixed in 3.51.3 and in the branches 3.50.7 and 3.44.6 (sqlite.org/wal.html).
    """
    if library[:2] in _FIXED_BRANCHES:
        return library[2] >= _FIXED_BRANCHES[library[:2]]
    return library > (3, 51, 3)


def is_unreachable(error: sqlite3.Error) -> bool:
    """Whether the file could not be opened, read or written, whatever it holds."""
    return _name(error).startswith(_UNREACHABLE)


def in_words(error: sqlite3.Error, path: Path) -> MasukaError | None:
    """The error as a person should read it; None when it is a mistake of the program."""
    name = _name(error)
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Locked(
            "Another program has been writing to the database for more than five seconds.",
            "Close other copies of MASUKA that use this workspace, then try again.",
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Damaged(
            f"The database {path.name} is damaged: {error}.",
            "Run 'python -m masuka db restore' to go back to the newest backup.",
        )
    if name == "SQLITE_FULL":
        return OutOfDisk("The disk is full; nothing was saved.", "Free some space, then try again.")
    if is_unreachable(error):
        return StoreError(
            f"The database {path} cannot be read or written: {error}.",
            "Check that its disk is connected and that you may write there.",
        )
    return None


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", ""))
