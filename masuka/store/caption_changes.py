"""What captions were before each change, so that it can be undone; the last 50 of a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.datasets import get_dataset
from masuka.store.pictures import Picture
from masuka.store.rows import contains, decode, encode, list_rows, now_at

KEPT = 50
ONLY = {
    "all": "1",
    "kept": "NOT pictures.aside",
    "aside": "pictures.aside",
    "empty": "trim(pictures.caption) = ''",
    "problem": "pictures.caption_problem <> ''",
}
"""Which rows of the table are asked for."""


@dataclass(frozen=True)
class CaptionChange:
    """`before` has, by picture id, its caption and who it was from."""

    id: int
    dataset_id: int
    user_id: int
    what: str
    before: dict[str, list[str]]
    created_at: str


def add_change(
    db: Store, *, actor: Actor, dataset_id: int, what: str, before: Mapping[int, tuple[str, str]]
) -> None:
    """Remembers captions as they were; changes older than the last 50 are forgotten."""
    actor.must_edit()
    with db.write() as conn:
        get_dataset(db, actor=actor, id=dataset_id)
        values = {
            "dataset_id": dataset_id, "user_id": actor.user_id, "what": what,
            "before": {str(id): list(row) for id, row in before.items()}, "created_at": now_at(),
        }  # fmt: skip
        conn.table("caption_changes").insert(encode(values))
        conn.execute(
            "DELETE FROM caption_changes WHERE dataset_id = ? AND id NOT IN "
            "(SELECT id FROM caption_changes WHERE dataset_id = ? ORDER BY id DESC LIMIT ?)",
            [dataset_id, dataset_id, KEPT],
        )


def last_change(db: Store, *, actor: Actor, dataset_id: int) -> CaptionChange | None:
    """The newest change of a set that can be undone; raises NotFound for the set."""
    get_dataset(db, actor=actor, id=dataset_id)
    with db.read() as conn:
        found = conn.table("caption_changes").rows_where(
            "dataset_id = ?", [dataset_id], order_by="id DESC", limit=1
        )
        return next((decode(CaptionChange, row) for row in found), None)


def forget_changes(db: Store, *, actor: Actor, dataset_id: int) -> None:
    """Forgets what captions were: from here on nothing before can be undone."""
    actor.must_edit()
    with db.write() as conn:
        get_dataset(db, actor=actor, id=dataset_id)
        conn.table("caption_changes").delete_where("dataset_id = ?", [dataset_id])


def undo_change(db: Store, *, actor: Actor, change: CaptionChange) -> int:
    """How many captions are again as they were.

    Those that were so all along do not count; pictures that are gone are passed over.
    """
    actor.must_edit()
    with db.write() as conn:
        get_dataset(db, actor=actor, id=change.dataset_id)
        restored = 0
        for id, (caption, caption_from) in change.before.items():
            restored += conn.execute(
                "UPDATE pictures SET caption = ?, caption_from = ?, caption_problem = '', updated_at = ? "
                "WHERE id = ? AND dataset_id = ? AND (caption, caption_from, caption_problem) IS NOT (?, ?, '')",
                [caption, caption_from, now_at(), int(id), change.dataset_id, caption, caption_from],
            ).rowcount
        conn.table("caption_changes").delete_where("id = ?", [change.id])
    return restored


def search_captions(
    db: Store,
    *,
    actor: Actor,
    dataset_id: int,
    search: str = "",
    only: str = "kept",
    after_id: int | None = None,
    limit: int = 100,
) -> list[Picture]:
    """Pictures whose caption or file name holds the text, in the order they came."""
    get_dataset(db, actor=actor, id=dataset_id)
    where: dict[str, Any] = {
        "dataset_id = ?": dataset_id,
        "id > ?": after_id or 0,
        f"{ONLY[only]} AND ? IS NOT NULL": 1,
    }
    if search:
        where["caption || ' ' || original_name LIKE ? ESCAPE '!'"] = contains(search)
    return list_rows(db, Picture, table="pictures", actor=actor, where=where, order_by="id", limit=limit)
