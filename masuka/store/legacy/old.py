"""A MASUKA 2 database, read from a copy: whatever its rows hold comes out as a usable value.

It knows the shape of old files and nothing of ours. What had to be guessed is said in
`oddities`, one sentence each; nothing raises because of a value.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlite_utils import Database

from masuka.errors import Damaged, Locked, NotFound
from masuka.requests.text import without_control
from masuka.store.driver import in_words, sqlite3

TABLES = (
    "users", "datasets", "characters", "dataset_images", "training_sessions", "inference_jobs", "app_settings",
)  # fmt: skip
BOOKKEEPING = frozenset({"sqlite_sequence", "sqlite_stat1", "alembic_version"})
SECRET_COLUMNS = frozenset({"hashed_password", "value"})
JOURNALS = ("-wal", "-journal")
TRUE_WORDS = frozenset({"1", "true", "t", "yes", "y", "on"})
FALSE_WORDS = frozenset({"0", "false", "f", "no", "n", "off", ""})
LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class OldRow:
    """One old row; every reader takes a default for what is missing or makes no sense."""

    table: str
    id: int
    values: Mapping[str, Any]
    oddities: list[str]

    def text(self, column: str, default: str = "") -> str:
        """The text without control characters other than line breaks."""
        value = self.values.get(column)
        if value is None:
            return default
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        return without_control(str(value), keep="\n\t").strip()

    def integer(self, column: str, default: int) -> int:
        """A whole number from 0 on."""
        return int(self.number(column, default))

    def number(self, column: str, default: float) -> float:
        """A finite number from 0 on."""
        value = self.values.get(column)
        if value is None:
            return default
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number <= LARGEST_INTEGER // 1024:
            self.odd(f"{column} was {value!r}; {default:g} is used")
            return default
        return number

    def flag(self, column: str, default: bool) -> bool:
        """A yes or no, however it was written."""
        value = self.values.get(column)
        if value is None:
            return default
        word = str(value).strip().lower()
        if word not in TRUE_WORDS | FALSE_WORDS:
            self.odd(f"{column} was {value!r}; {'yes' if default else 'no'} is used")
            return default
        return word in TRUE_WORDS

    def time(self, column: str) -> str | None:
        """A time in UTC (MASUKA 2 wrote UTC without saying so), or None."""
        value = self.values.get(column)
        if value is None or value == "":
            return None
        try:
            if isinstance(value, int | float):
                moment = datetime.fromtimestamp(value, UTC)
            else:
                moment = datetime.fromisoformat(str(value).strip())
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            self.odd(f"{column} was {value!r}, which is no time")
            return None
        return moment.isoformat(timespec="microseconds")

    def reference(self, column: str) -> int | None:
        """The id of another old row, or None."""
        value = self.values.get(column)
        try:
            return None if value is None else int(value)
        except (TypeError, ValueError, OverflowError):
            self.odd(f"{column} was {value!r}, which names nothing")
            return None

    def odd(self, what: str) -> None:
        """Notes a sentence about this row."""
        self.oddities.append(f"{self.table} {self.id}: {what}.")

    def fingerprint(self, *columns: str) -> str:
        """What this row is known by: its table, number, birth and the named columns."""
        parts = [self.table, self.id, *(repr(self.values.get(c)) for c in ("created_at", *columns))]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def as_json(self) -> str:
        """The whole row as it was, without passwords and secret values."""
        kept = {name: value for name, value in self.values.items() if name not in SECRET_COLUMNS}
        return json.dumps(kept, default=repr, ensure_ascii=False)


@dataclass(frozen=True)
class OldDatabase:
    """Every row of the known tables, read whole; `sha256` is of the file it came from."""

    source: Path
    sha256: str
    rows: Mapping[str, list[OldRow]]
    oddities: list[str]


def is_masuka2(path: Path) -> bool:
    """Whether the file is a MASUKA 2 database; reads only, through SQLite's own locks.

    Raises Locked while another program keeps it from being read.
    """
    if not path.is_file():
        return False
    try:
        with closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1.0)
        ) as connection:
            names = {
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
            columns = {row[1] for row in connection.execute("PRAGMA table_info(characters)")}
    except sqlite3.Error as error:
        told = in_words(error, path)
        if isinstance(told, Locked):
            raise told from error
        return False
    return "work_dir" in columns and "_sqlite_migrations" not in names


def read(source: Path) -> OldDatabase:
    """The old database, read from a temporary copy; the file itself is only copied.

    Raises NotFound, Locked while MASUKA 2 writes to it, and Damaged for what is no database.
    """
    if not source.is_file():
        raise NotFound(f"There is no file {source}.", "Choose the masuka.db of MASUKA 2.")
    oddities: list[str] = []
    with _copied(source) as (copy, sha256):
        try:
            with closing(sqlite3.connect(copy)) as connection:
                connection.text_factory = lambda raw: raw.decode(errors="replace")
                db = Database(connection, execute_plugins=False)
                names = set(db.table_names())
                rows = {table: _rows(db, table, names, oddities) for table in TABLES}
                for name in sorted(names - set(TABLES) - BOOKKEEPING):
                    oddities.append(f"The table {name} is none of MASUKA 2's; it was not copied.")
        except sqlite3.DatabaseError as error:
            raise Damaged(f"{source.name} cannot be read: {error}.", "Choose another copy of it.") from error
    return OldDatabase(source, sha256, rows, oddities)


def _rows(db: Database, table: str, names: set[str], oddities: list[str]) -> list[OldRow]:
    """The table's rows in their order; after a damaged page, those before it."""
    found: list[OldRow] = []
    if table not in names:
        return found
    try:
        for values in db.query(f'SELECT rowid AS "_row", * FROM "{table}" ORDER BY rowid'):  # noqa: S608
            number = values.pop("_row")
            id = values.get("id")
            found.append(OldRow(table, id if isinstance(id, int) else number, values, oddities))
    except sqlite3.DatabaseError as error:
        oddities.append(f"The table {table} is damaged after {len(found)} rows ({error}).")
    return found


@contextmanager
def _copied(source: Path) -> Iterator[tuple[Path, str]]:
    """A copy with its journals, so that an unfinished write is undone there, not in the original."""
    with TemporaryDirectory(prefix="masuka2-") as folder:
        copy = Path(folder) / "old.db"
        before = file_sha256(source)
        shutil.copyfile(source, copy)
        for ending in JOURNALS:
            journal = source.with_name(source.name + ending)
            if journal.exists():
                shutil.copyfile(journal, copy.with_name(copy.name + ending))
        if file_sha256(source) != before or file_sha256(copy) != before:
            raise Locked("MASUKA 2 is writing to its database.", "Stop it, then try again.")
        yield copy, before


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
