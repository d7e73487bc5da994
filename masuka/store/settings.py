"""Settings of each person; secrets among them are encrypted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from masuka import logs
from masuka.errors import NotFound
from masuka.requests.actor import Actor
from masuka.store import secrets
from masuka.store.connect import Store
from masuka.store.rows import encode, now_at


@dataclass(frozen=True)
class Setting:
    """`value` is readable text; it is '' while `needs_reentry` says to type it again."""

    user_id: int
    key: str
    value: str = field(repr=False)
    encrypted: bool
    needs_reentry: bool
    updated_at: str


def set_setting(db: Store, *, actor: Actor, key: str, value: str, encrypted: bool = False) -> Setting:
    """The setting as it is now; an encrypted one is unreadable in the file."""
    stored = secrets.encrypt(db.secrets, value) if encrypted else value
    put_setting(db, user_id=actor.user_id, key=key, stored=stored, encrypted=encrypted)
    return get_setting(db, actor=actor, key=key)


def put_setting(
    db: Store,
    *,
    user_id: int,
    key: str,
    stored: str,
    encrypted: bool,
    needs_reentry: bool = False,
    updated_at: str | None = None,
) -> None:
    """Writes a setting whose text is stored as it comes (the import's door)."""
    row = {
        "user_id": user_id, "key": key, "value": stored, "encrypted": encrypted,
        "needs_reentry": needs_reentry, "updated_at": updated_at or now_at(),
    }  # fmt: skip
    with db.write() as conn:
        conn.table("settings").insert(encode(row), pk=("user_id", "key"), replace=True)


def get_setting(db: Store, *, actor: Actor, key: str) -> Setting:
    """The actor's own setting; raises NotFound."""
    found = [setting for setting in list_settings(db, actor=actor) if setting.key == key]
    if not found:
        raise NotFound(f"There is no setting {key!r}.", "Set it first.")
    return found[0]


def list_settings(db: Store, *, actor: Actor) -> list[Setting]:
    """The actor's own settings by name."""
    with db.read() as conn:
        rows = conn.table("settings").rows_where("user_id = ?", [actor.user_id], order_by="key")
        return [_opened(db, row) for row in rows]


def delete_setting(db: Store, *, actor: Actor, key: str) -> None:
    """Forgets a setting, whether or not it was there."""
    with db.write() as conn:
        conn.table("settings").delete_where("user_id = ? AND key = ?", [actor.user_id, key])


def _opened(db: Store, row: dict[str, Any]) -> Setting:
    value: str | None = row["value"]
    if row["needs_reentry"]:
        value = None
    elif row["encrypted"]:
        value = secrets.decrypt(db.secrets, row["value"])
        # Whoever can read a key can also log it by mistake.
        logs.redact.learn([value or ""])
    return Setting(
        user_id=row["user_id"],
        key=row["key"],
        value=value or "",
        encrypted=bool(row["encrypted"]),
        needs_reentry=value is None,
        updated_at=row["updated_at"],
    )
