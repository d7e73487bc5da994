"""Who did what and when: written by the door, the page and the studio, read by owners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, list_rows, now_at

MOST_ROWS = 10_000
"""Older ones are forgotten: the table must not grow with every wrong password."""
LONGEST_TEXT = 200
FOLDED_S = 60.0


@dataclass(frozen=True)
class Entry:
    """`name` is the person's then; `user_id` is None once they are removed."""

    id: int
    at: str
    user_id: int | None
    name: str
    action: str
    about: str
    address: str


def add_audit(
    db: Store, *, user_id: int | None, name: str, action: str, about: str = "", address: str = ""
) -> None:
    """Writes one line; `action` is a few plain words, for example 'signed in'.

    The same again within a minute is the same line: whoever repeats something must not push
    what others did out of the history.
    """
    values: dict[str, Any] = {
        "at": now_at(), "user_id": user_id, "name": name[:LONGEST_TEXT], "action": action,
        "about": about[:LONGEST_TEXT], "address": address[:LONGEST_TEXT],
    }  # fmt: skip
    same = ("user_id IS :user_id AND name = :name AND action = :action AND about = :about "
            "AND address = :address AND at > :since")  # fmt: skip
    since = (datetime.fromisoformat(values["at"]) - timedelta(seconds=FOLDED_S)).isoformat(timespec="microseconds")
    with db.write() as conn:
        if conn.table("audit").count_where(same, {**values, "since": since}):
            return
        added = add_row(db, "audit", values)
        conn.table("audit").delete_where("id <= ?", [added - MOST_ROWS])


def list_audit(db: Store, *, actor: Actor, before_id: int | None = None, limit: int = 50) -> list[Entry]:
    """The newest lines first, of everybody; for owners only."""
    actor.must_own()
    where = {} if before_id is None else {"id < ?": before_id}
    return list_rows(db, Entry, table="audit", actor=actor, where=where, limit=limit)
