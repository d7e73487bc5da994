"""What every imported row goes through: it is added once, and its old number remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.requests.text import NAME_CHARS
from masuka.store.connect import Store
from masuka.store.legacy.files import Files
from masuka.store.legacy.old import OldDatabase, OldRow
from masuka.store.rows import now_at
from masuka.store.users import OWNER_ID

FILE = "file-"
"""Before the hash of a file that was imported whole, among the fingerprints."""


@dataclass
class Count:
    """What became of one old table's rows; `left_out` ones are explained by an oddity."""

    found: int = 0
    added: int = 0
    already: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class LegacyReport:
    """What an import brought; `enter_again` are names of settings."""

    source: Path
    sha256: str
    counts: dict[str, Count]
    oddities: tuple[str, ...]
    enter_again: tuple[str, ...]

    @property
    def added(self) -> int:
        return sum(count.added for count in self.counts.values())

    @property
    def summary(self) -> str:
        """One line for the person, for example 'Copied 2 characters, 40 dataset images.'"""
        parts = [f"{c.added} {table.replace('_', ' ')}" for table, c in self.counts.items() if c.added]
        return (
            f"Copied {', '.join(parts)} from {self.source.name}."
            if parts
            else "There was nothing new to copy."
        )


@dataclass
class Import:
    """An import under way: where rows come from and go to, and which became which."""

    store: Store
    workspace: Workspace
    old: OldDatabase
    files: Files
    counts: dict[str, Count] = field(default_factory=dict)
    enter_again: list[str] = field(default_factory=list)
    settings_written: set[tuple[int, str]] = field(default_factory=set)
    _ids: dict[tuple[str, int], int] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)

    def each(self, table: str) -> list[OldRow]:
        """The rows of an old table, counted."""
        rows = self.old.rows[table]
        self.counts[table] = Count(found=len(rows))
        return rows

    def once(self, row: OldRow, key: tuple[str, ...], add: Callable[[], int | None]) -> bool:
        """Whether the row is new here: `add` made ours of it now, no earlier import did.

        `add` returns the new id, or None when the row cannot be kept. A row that a person
        deleted since an earlier import stays deleted.
        """
        count = self.counts[row.table]
        fingerprint = row.fingerprint(*key)
        self._seen[fingerprint] = self._seen.get(fingerprint, 0) + 1
        if self._seen[fingerprint] > 1:
            fingerprint = f"{fingerprint}-{self._seen[fingerprint]}"
        known = self.known(fingerprint)
        if known is not None:
            count.already += 1
            self._remember(row, known)
            return False
        new = add()
        if new is None:
            count.left_out += 1
            return False
        count.added += 1
        self.note(fingerprint, row, new)
        self._remember(row, new)
        return True

    def known(self, fingerprint: str) -> int | None:
        """Our id of something imported before, or None."""
        with self.store.read() as conn:
            found = conn.execute(
                "SELECT new_id FROM imported WHERE fingerprint = ?", [fingerprint]
            ).fetchone()
        return None if found is None else int(found[0])

    def note(self, fingerprint: str, row: OldRow, new: int) -> None:
        """Remembers for later imports what became of a row, and the row as it was."""
        with self.store.write() as conn:
            conn.execute(
                "INSERT INTO imported (fingerprint, source, old_table, old_id, new_id, row, imported_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [fingerprint, str(self.old.source), row.table, row.id, new, row.as_json(), now_at()],
            )

    def note_file(self) -> None:
        """Remembers that this very file was imported whole."""
        with self.store.write() as conn:
            conn.execute(
                "INSERT OR REPLACE INTO imported (fingerprint, source, old_table, old_id, new_id, row, imported_at) "
                "VALUES (?, ?, '', 0, 0, '{}', ?)",
                [FILE + self.old.sha256, str(self.old.source), now_at()],
            )

    def ours(self, table: str, old_id: int | None) -> int | None:
        """Our id for an old one; None when it is gone or was never there."""
        return None if old_id is None else self._ids.get((table, old_id))

    def owner_of(self, row: OldRow) -> Actor:
        """The person a row belongs to; the owner where that account is gone.

        MASUKA 2 without accounts wrote user 1 everywhere, also when it had no such row.
        """
        old_id = row.reference("user_id")
        new_id = self.ours("users", old_id)
        if new_id is None:
            if old_id is not None and old_id != 1:
                row.odd(f"its account {old_id} is gone; the owner has it now")
            new_id = OWNER_ID
        return Actor(new_id, "owner")

    def name(self, row: OldRow, column: str, default: str) -> str:
        """A name on one line, of a length that we show."""
        name = " ".join(row.text(column).split()) or default
        if len(name) > NAME_CHARS:
            row.odd(f"its {column} was longer than {NAME_CHARS} characters and was cut")
            name = name[:NAME_CHARS].rstrip()
        return name

    def _remember(self, row: OldRow, new_id: int) -> None:
        # Where a number is there twice, what refers to it means the first.
        if (row.table, row.id) not in self._ids and self._exists(row.table, new_id):
            self._ids[row.table, row.id] = new_id

    def _exists(self, old_table: str, new_id: int) -> bool:
        table = OURS.get(old_table)
        if table is None:
            return True
        with self.store.read() as conn:
            return bool(conn.table(table).count_where("id = ?", [new_id]))


OURS = {
    "users": "users", "datasets": "datasets", "characters": "characters",
    "dataset_images": "pictures", "training_sessions": "runs", "inference_jobs": "jobs",
}  # fmt: skip
"""Our table for each old one."""
