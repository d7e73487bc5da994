"""Data sets: the pictures and captions that one training learns from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from masuka.errors import NotFound
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, decode, delete_row, now_at, set_row, visible

SELECT = """
SELECT datasets.*,
    (SELECT count(*) FROM pictures WHERE pictures.dataset_id = datasets.id) AS picture_count,
    (SELECT min(pictures.id) FROM pictures WHERE pictures.dataset_id = datasets.id) AS cover_picture_id
FROM datasets
WHERE {visible}
    AND (:id IS NULL OR datasets.id = :id)
    AND (:character_id IS NULL OR datasets.character_id = :character_id)
ORDER BY datasets.id DESC
"""


@dataclass(frozen=True)
class Dataset:
    """`status` is created, importing, ready or failed; the cover is the first picture."""

    id: int
    user_id: int
    character_id: int | None
    name: str
    trigger_word: str
    class_word: str
    caption_template: str
    options: dict[str, Any]
    status: str
    created_at: str
    updated_at: str
    change: int
    picture_count: int
    cover_picture_id: int | None


class DatasetChanges(TypedDict, total=False):
    """The columns of a data set that may be changed."""

    character_id: int | None
    name: str
    trigger_word: str
    class_word: str
    caption_template: str
    options: Mapping[str, Any]
    status: str


def add_dataset(
    db: Store,
    *,
    actor: Actor,
    name: str,
    trigger_word: str,
    class_word: str = "person",
    caption_template: str = "",
    character_id: int | None = None,
    options: Mapping[str, Any] | None = None,
    status: str = "created",
    created_at: str | None = None,
    updated_at: str | None = None,
) -> Dataset:
    """The new data set, still without pictures."""
    actor.must_edit()
    created_at = created_at or now_at()
    values = {
        "user_id": actor.user_id, "character_id": character_id, "name": name, "trigger_word": trigger_word,
        "class_word": class_word, "caption_template": caption_template, "options": options or {},
        "status": status, "created_at": created_at, "updated_at": updated_at or created_at,
    }  # fmt: skip
    with db.write():
        return get_dataset(db, actor=actor, id=add_row(db, "datasets", values))


def get_dataset(db: Store, *, actor: Actor, id: int) -> Dataset:
    """The data set with its number of pictures; raises NotFound."""
    found = _select(db, actor, id=id)
    if not found:
        raise NotFound(f"There is no data set with the number {id}.", "It may have been deleted.")
    return found[0]


def list_datasets(db: Store, *, actor: Actor, character_id: int | None = None) -> list[Dataset]:
    """Every data set that the actor may see, the newest first."""
    return _select(db, actor, character_id=character_id)


def set_dataset(db: Store, *, actor: Actor, id: int, **changes: Unpack[DatasetChanges]) -> Dataset:
    """The changed data set; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_dataset(db, actor=actor, id=id)
        set_row(db, "datasets", id, {**changes, "updated_at": now_at()})
        return get_dataset(db, actor=actor, id=id)


def delete_dataset(db: Store, *, actor: Actor, id: int) -> Dataset:
    """The data set that is gone now with its rows; files are the caller's."""
    actor.must_edit()
    with db.write():
        dataset = get_dataset(db, actor=actor, id=id)
        delete_row(db, "datasets", id)
        return dataset


def _select(
    db: Store, actor: Actor, *, id: int | None = None, character_id: int | None = None
) -> list[Dataset]:
    with db.read() as conn:
        rows = conn.query(
            SELECT.replace("{visible}", visible(actor, "datasets")),
            {"id": id, "character_id": character_id},
        )
        return [decode(Dataset, row) for row in rows]
