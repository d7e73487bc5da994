"""People: user 1 is the owner, made with the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack

from masuka.errors import Conflict, NotFound
from masuka.requests.actor import Actor, Role
from masuka.store.connect import Store
from masuka.store.rows import add_row, decode, delete_row, now_at, set_row

OWNER_ID = 1


@dataclass(frozen=True)
class User:
    """A person; without `password_hash` they can enter by a one-time link only.

    Sessions carry the `epoch` of their beginning and end when the person's has grown.
    """

    id: int
    username: str
    email: str | None
    password_hash: str | None = field(repr=False)
    role: Role
    active: bool
    created_at: str
    epoch: int


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
    """The changed person; raises Conflict when no active owner would be left.

    A new role, another password and a locked account end the person's sessions; a first
    password does not, it takes nothing from anybody.
    """
    if actor.user_id != id or {"role", "active"} & set(changes):
        actor.must_own()
    with db.write():
        before = get_user(db, actor=actor, id=id)
        set_row(db, "users", id, changes)
        _must_keep_owner(db)
        if _ends_sessions(before, changes):
            end_epoch(db, id=id)
        return get_user(db, actor=actor, id=id)


def end_epoch(db: Store, *, id: int) -> None:
    """Makes every session of the person end, on all devices."""
    with db.write() as conn:
        conn.execute("UPDATE users SET epoch = epoch + 1 WHERE id = ?", [id])


def find_user(db: Store, *, username: str) -> User | None:
    """The person of that name or e-mail address, whoever asks (the door does)."""
    with db.read() as conn:
        found = list(conn.table("users").rows_where("username = ? COLLATE NOCASE", [username], limit=1))
        found = found or list(conn.table("users").rows_where("email = ? COLLATE NOCASE", [username], limit=1))
    return decode(User, found[0]) if found else None


def renew_hash(db: Store, *, id: int, old: str, new: str) -> None:
    """Stores the same password's stronger hash; sessions go on."""
    with db.write() as conn:
        conn.execute("UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?", [new, id, old])


def has_owner_password(db: Store) -> bool:
    """Whether some active owner has a password."""
    with db.read() as conn:
        return bool(
            conn.table("users").count_where("role = 'owner' AND active = 1 AND password_hash IS NOT NULL")
        )


def delete_user(db: Store, *, actor: Actor, id: int) -> None:
    """Removes the person and every row of theirs; raises Conflict for the last owner."""
    actor.must_own()
    with db.write():
        get_user(db, actor=actor, id=id)
        delete_row(db, "users", id)
        _must_keep_owner(db)


def list_belongings(db: Store, *, actor: Actor, id: int, table: Literal["datasets", "jobs", "runs", "models", "items"]) -> list[int]:
    """The ids of all rows of the person in that table, hidden and binned ones too."""
    actor.must_own()
    with db.read() as conn:
        return [row["id"] for row in conn.table(table).rows_where("user_id = ?", [id], select="id", order_by="id")]


def _ends_sessions(before: User, changes: UserChanges) -> bool:
    if changes.get("role", before.role) != before.role or not changes.get("active", True):
        return True
    return before.password_hash is not None and changes.get("password_hash", before.password_hash) != (
        before.password_hash
    )


def _must_keep_owner(db: Store) -> None:
    with db.read() as conn:
        if not conn.table("users").count_where("role = 'owner' AND active = 1"):
            raise Conflict("Nobody would own this studio any more.", "Make somebody else an owner first.")
