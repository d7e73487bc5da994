"""Characters: who the pictures show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, TypeVar, Unpack

from masuka.errors import Conflict
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, delete_row, get_row, list_rows, now_at, set_row

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Character:
    """`status` is created, training, completed or failed; `picture` is a path or None."""

    id: int
    user_id: int
    name: str
    trigger_word: str
    class_word: str
    base: str
    dataset_id: int | None
    picture: str | None
    consent: str
    status: str
    created_at: str
    completed_at: str | None
    change: int


class CharacterChanges(TypedDict, total=False):
    """The columns of a character that may be changed."""

    name: str
    trigger_word: str
    class_word: str
    base: str
    dataset_id: int | None
    picture: str | None
    consent: str
    status: str
    completed_at: str | None


def add_character(
    db: Store,
    *,
    actor: Actor,
    name: str,
    trigger_word: str,
    class_word: str = "person",
    base: str = "",
    dataset_id: int | None = None,
    picture: str | None = None,
    consent: str = "",
    status: str = "created",
    created_at: str | None = None,
    completed_at: str | None = None,
) -> Character:
    """The new character; raises Conflict when this person has one of that name."""
    actor.must_edit()
    values = {
        "user_id": actor.user_id, "name": name, "trigger_word": trigger_word, "class_word": class_word,
        "base": base, "dataset_id": dataset_id, "picture": picture, "consent": consent, "status": status,
        "created_at": created_at or now_at(), "completed_at": completed_at,
    }  # fmt: skip
    with db.write():
        return get_character(db, actor=actor, id=_named(name, lambda: add_row(db, "characters", values)))


def get_character(db: Store, *, actor: Actor, id: int) -> Character:
    """The character; raises NotFound."""
    return get_row(db, Character, table="characters", noun="character", id=id, actor=actor)


def list_characters(db: Store, *, actor: Actor) -> list[Character]:
    """Every character that the actor may see, the newest first."""
    return list_rows(db, Character, table="characters", actor=actor)


def set_character(db: Store, *, actor: Actor, id: int, **changes: Unpack[CharacterChanges]) -> Character:
    """The changed character; raises NotFound, or Conflict for a name that is taken."""
    actor.must_edit()
    with db.write():
        get_character(db, actor=actor, id=id)
        _named(changes.get("name", ""), lambda: set_row(db, "characters", id, changes))
        return get_character(db, actor=actor, id=id)


def delete_character(db: Store, *, actor: Actor, id: int) -> Character:
    """The character that is gone now; pictures, jobs and models stay and forget it."""
    actor.must_edit()
    with db.write():
        character = get_character(db, actor=actor, id=id)
        delete_row(db, "characters", id)
        return character


def _named(name: str, act: Callable[[], ResultT]) -> ResultT:
    try:
        return act()
    except Conflict:
        raise Conflict(f"You already have a character called {name}.", "Choose another name.") from None
