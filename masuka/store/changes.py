"""The change number: one counter that every visible write moves."""

from __future__ import annotations

from masuka.store.connect import Store


def now(db: Store) -> int:
    """The number of the newest change; equal numbers: nothing changed between."""
    with db.read() as conn:
        return int(conn.execute("SELECT number FROM changes").fetchone()[0])
