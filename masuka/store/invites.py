"""Invites: who may come in, as what, with what shared. Tokens are kept as hashes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from masuka.errors import NotFound
from masuka.requests.actor import Actor, Role
from masuka.store.connect import Store
from masuka.store.rows import add_row, decode, get_row, list_rows, now_at, set_row


@dataclass(frozen=True)
class Invite:
    """`shares` are the kinds and numbers that whoever accepts gets to see."""

    id: int
    token_hash: str = field(repr=False)
    role: Role
    note: str
    shares: list[dict[str, Any]]
    by_user_id: int
    created_at: str
    expires_at: str
    used_at: str | None
    used_by_user_id: int | None
    revoked_at: str | None

    def state(self, now: str) -> str:
        """'open', 'used', 'revoked' or 'expired'."""
        if self.used_at:
            return "used"
        if self.revoked_at:
            return "revoked"
        return "open" if now < self.expires_at else "expired"


def add_invite(
    db: Store,
    *,
    actor: Actor,
    token_hash: str,
    role: Role,
    note: str,
    shares: Sequence[dict[str, Any]],
    expires_at: str,
    created_at: str | None = None,
) -> Invite:
    """The new invite; only an owner makes one."""
    actor.must_own()
    values = {
        "token_hash": token_hash, "role": role, "note": note, "shares": list(shares), "by_user_id": actor.user_id,
        "created_at": created_at or now_at(), "expires_at": expires_at,
    }  # fmt: skip
    return get_invite(db, actor=actor, id=add_row(db, "invites", values))


def get_invite(db: Store, *, actor: Actor, id: int) -> Invite:
    """The invite; raises NotFound."""
    actor.must_own()
    return get_row(db, Invite, table="invites", noun="invite", id=id, actor=actor)


def list_invites(db: Store, *, actor: Actor, limit: int | None = 50) -> list[Invite]:
    """Every invite, the newest first."""
    actor.must_own()
    return list_rows(db, Invite, table="invites", actor=actor, limit=limit)


def find_invite(db: Store, *, token_hash: str, now: str) -> Invite | None:
    """The open invite of that token, whoever asks (the door does).

    It is no longer one when whoever made it is no owner any more.
    """
    owners = "by_user_id IN (SELECT id FROM users WHERE active = 1 AND role = 'owner')"
    with db.read() as conn:
        row = next(conn.table("invites").rows_where(f"token_hash = ? AND {owners}", [token_hash]), None)
    invite = None if row is None else decode(Invite, row)
    return invite if invite is not None and invite.state(now) == "open" else None


def use_invite(db: Store, *, id: int, user_id: int, now: str) -> None:
    """Closes the invite for this person; raises NotFound when somebody was first."""
    with db.write() as conn:
        taken = conn.execute(
            "UPDATE invites SET used_at = ?, used_by_user_id = ? "
            "WHERE id = ? AND used_at IS NULL AND revoked_at IS NULL AND expires_at > ? RETURNING id",
            [now, user_id, id, now],
        ).fetchall()
    if not taken:
        raise NotFound("This invite was used or taken back.", "Ask for a new one.")


def revoke_invite(db: Store, *, actor: Actor, id: int) -> Invite:
    """The invite, taken back; one that was used stays used. Raises NotFound."""
    actor.must_own()
    with db.write():
        invite = get_invite(db, actor=actor, id=id)
        if not invite.used_at and not invite.revoked_at:
            set_row(db, "invites", id, {"revoked_at": now_at()})
        return get_invite(db, actor=actor, id=id)
