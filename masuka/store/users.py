"""People: user 1 is the owner, made with the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from masuka.errors import Conflict, NotFound
from masuka.requests.actor import Actor, Role
from masuka.store.connect import Store
from masuka.store.rows import add_row, decode, delete_row, now_at, set_row

OWNER_ID = 1


@dataclass(frozen=True)
class User:
    """A person; without `password_hash` nobody can sign in as them."""

    id: int
    username: str
    email: str | None
    password_hash: str | None = field(repr=False)
    role: Role
    active: bool
    created_at: str


class UserChanges(TypedDict, total=False):
    """The columns of a user that may be changed."""

    username: str
    email: str | None
    password_hash: str | None
    role: Role
    active: bool


def add_user(
    db: Store,
    *,
    actor: Actor,
    username: str,
    role: Role = "viewer",
    email: str | None = None,
    password_hash: str | None = None,
    active: bool = True,
    created_at: str | None = None,
) -> User:
    """The new person; raises Conflict when the name or address is taken."""
    actor.must_own()
    values: dict[str, Any] = {
        "username": username, "email": email, "password_hash": password_hash, "role": role,
        "active": active, "created_at": created_at or now_at(),
    }  # fmt: skip
    return get_user(db, actor=actor, id=add_row(db, "users", values))


def get_user(db: Store, *, actor: Actor, id: int) -> User:
    """The person of that number; others than an owner find only themselves."""
    with db.read() as conn:
        row = next(conn.table("users").rows_where("id = ?", [id]), None)
    if row is None or (actor.role != "owner" and actor.user_id != id):
        raise NotFound(f"There is no person with the number {id}.", "They may have been removed.")
    return decode(User, row)


def list_users(db: Store, *, actor: Actor) -> list[User]:
    """Everybody, the owner first; others than an owner see only themselves."""
    with db.read() as conn:
        people = [decode(User, row) for row in conn.table("users").rows_where(order_by="id")]
    return [user for user in people if actor.role == "owner" or user.id == actor.user_id]


def set_user(db: Store, *, actor: Actor, id: int, **changes: Unpack[UserChanges]) -> User:
    """The changed person; raises Conflict when no active owner would be left."""
    if actor.user_id != id or {"role", "active"} & set(changes):
        actor.must_own()
    with db.write():
        get_user(db, actor=actor, id=id)
        set_row(db, "users", id, changes)
        _must_keep_owner(db)
        return get_user(db, actor=actor, id=id)


def delete_user(db: Store, *, actor: Actor, id: int) -> None:
    """Removes the person and every row of theirs; raises Conflict for the last owner."""
    actor.must_own()
    with db.write():
        get_user(db, actor=actor, id=id)
        delete_row(db, "users", id)
        _must_keep_owner(db)


def _must_keep_owner(db: Store) -> None:
    with db.read() as conn:
        if not conn.table("users").count_where("role = 'owner' AND active = 1"):
            raise Conflict("Nobody would own this studio any more.", "Make somebody else an owner first.")
