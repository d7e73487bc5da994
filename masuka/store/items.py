"""Items: finished pictures in the library."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from masuka.errors import InvalidInput
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, contains, delete_row, get_row, list_rows, now_at, set_row

LONGEST_QUERY = 1000
EVERY_WORD = "NOT EXISTS (SELECT 1 FROM json_each(?) WHERE prompt NOT LIKE value ESCAPE '!')"


@dataclass(frozen=True)
class Item:
    """`settings` is all that made it; an item with `deleted_at` lies in the bin."""

    id: int
    user_id: int
    job_id: int | None
    character_id: int | None
    adapter_id: int | None
    kind: str
    file: str
    width: int
    height: int
    prompt: str
    seed: int
    settings: dict[str, Any]
    starred: bool
    deleted_at: str | None
    created_at: str
    change: int


def add_item(
    db: Store,
    *,
    actor: Actor,
    file: str,
    width: int,
    height: int,
    prompt: str,
    seed: int,
    settings: Mapping[str, Any],
    job_id: int | None = None,
    character_id: int | None = None,
    adapter_id: int | None = None,
    kind: str = "image",
    created_at: str | None = None,
) -> Item:
    """The new item."""
    actor.must_edit()
    values = {
        "user_id": actor.user_id, "job_id": job_id, "character_id": character_id, "adapter_id": adapter_id,
        "kind": kind, "file": file, "width": width, "height": height, "prompt": prompt, "seed": seed,
        "settings": settings, "created_at": created_at or now_at(),
    }  # fmt: skip
    with db.write():
        return get_item(db, actor=actor, id=add_row(db, "items", values))


def get_item(db: Store, *, actor: Actor, id: int) -> Item:
    """The item, also from the bin; raises NotFound."""
    return get_row(db, Item, table="items", noun="picture", id=id, actor=actor)


def list_items(
    db: Store,
    *,
    actor: Actor,
    character_id: int | None = None,
    adapter_id: int | None = None,
    job_id: int | None = None,
    starred: bool | None = None,
    query: str | None = None,
    before_id: int | None = None,
    limit: int | None = 60,
    deleted: bool = False,
) -> list[Item]:
    """Items, the newest first; all words of `query` occur in the prompt.

    `before_id` is the last id of the page before. `deleted` lists the bin instead.
    """
    where: dict[str, Any] = {"(deleted_at IS NOT NULL) = ?": deleted}
    for column, value in (
        ("character_id = ?", character_id), ("adapter_id = ?", adapter_id), ("job_id = ?", job_id),
        ("starred = ?", starred), ("id < ?", before_id),
    ):  # fmt: skip
        if value is not None:
            where[column] = value
    if query and len(query) > LONGEST_QUERY:
        raise InvalidInput(
            f"The search has {len(query):,} characters.", f"Use at most {LONGEST_QUERY:,}.", field="query"
        )
    if query and query.split():
        where[EVERY_WORD] = json.dumps([contains(word) for word in query.split()])
    return list_rows(db, Item, table="items", actor=actor, where=where, limit=limit)


def set_starred(db: Store, *, actor: Actor, ids: Iterable[int], starred: bool) -> int:
    """How many items were marked or unmarked, all or none; raises NotFound."""
    return _set_all(db, actor, ids, {"starred": starred})


def delete_items(db: Store, *, actor: Actor, ids: Iterable[int]) -> int:
    """How many items went into the bin, all or none; raises NotFound."""
    return _set_all(db, actor, ids, {"deleted_at": now_at()})


def restore_items(db: Store, *, actor: Actor, ids: Iterable[int]) -> int:
    """How many items came back from the bin, all or none; raises NotFound."""
    return _set_all(db, actor, ids, {"deleted_at": None})


def purge_items(
    db: Store, *, actor: Actor, ids: Iterable[int] | None = None, deleted_before_at: str | None = None
) -> list[Item]:
    """The items of the bin that are gone for good; their files are the caller's.

    Takes the whole bin, or those with these ids, or those deleted before a time. Only an
    owner of the studio purges what belongs to another person.
    """
    actor.must_edit()
    wanted = None if ids is None else set(ids)
    with db.write():
        gone = [
            item
            for item in list_items(db, actor=actor, deleted=True, limit=None)
            if (wanted is None or item.id in wanted)
            and (actor.role == "owner" or item.user_id == actor.user_id)
            and (deleted_before_at is None or str(item.deleted_at) < deleted_before_at)
        ]
        for item in gone:
            delete_row(db, "items", item.id)
    return gone


def _set_all(db: Store, actor: Actor, ids: Iterable[int], changes: Mapping[str, Any]) -> int:
    actor.must_edit()
    chosen = list(dict.fromkeys(ids))
    with db.write():
        for id in chosen:
            get_item(db, actor=actor, id=id)
            set_row(db, "items", id, changes)
    return len(chosen)
