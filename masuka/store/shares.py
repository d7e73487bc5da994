"""What one person lets another see; `store.rows.visible` is what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from masuka.errors import InvalidInput
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import broken_rules, decode, get_row, now_at

ShareKind = Literal["all", "character", "dataset"]


@dataclass(frozen=True)
class Share:
    """`kind` 'all' is everything of `by_user_id`, with `object_id` 0."""

    user_id: int
    kind: ShareKind
    object_id: int
    by_user_id: int
    created_at: str


@dataclass(frozen=True)
class _Owned:
    id: int
    user_id: int


def add_share(db: Store, *, actor: Actor, user_id: int, kind: ShareKind, object_id: int = 0) -> None:
    """Lets the person see it; twice is once.

    A person shares what is theirs, an owner of the studio what anybody has. Raises
    NotFound for what is not there, InvalidInput for sharing with its own owner.
    """
    actor.must_edit()
    by = actor.user_id
    with db.write() as conn, broken_rules():
        if kind != "all":
            table = {"character": "characters", "dataset": "datasets"}[kind]
            owned = get_row(db, _Owned, table=table, noun=kind.replace("dataset", "data set"), id=object_id, actor=actor)
            if actor.role != "owner" and owned.user_id != actor.user_id:
                actor.must_own()
            by = owned.user_id
        if by == user_id:
            raise InvalidInput("It is theirs already.", "Choose another person.", field="user_id")
        conn.execute(
            "INSERT INTO shares (user_id, kind, object_id, by_user_id, created_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            [user_id, kind, object_id, by, now_at()],
        )


def list_shares(db: Store, *, actor: Actor, user_id: int | None = None) -> list[Share]:
    """What was shared, to one or to all; others than an owner see their own part."""
    with db.read() as conn:
        rows = conn.query(
            "SELECT * FROM shares WHERE (:user_id IS NULL OR user_id = :user_id) "
            "AND (:all OR user_id = :me OR by_user_id = :me) ORDER BY user_id, kind, object_id",
            {"user_id": user_id, "all": actor.role == "owner", "me": actor.user_id},
        )
        return [decode(Share, row) for row in rows]


def delete_share(
    db: Store, *, actor: Actor, user_id: int, kind: ShareKind, object_id: int = 0, by_user_id: int | None = None
) -> None:
    """Takes it back, whether or not it was shared.

    Of 'all' the one of `by_user_id` ends, one's own without it; only an owner of the
    studio takes back what another shared.
    """
    actor.must_edit()
    by = actor.user_id if by_user_id is None else by_user_id
    if by != actor.user_id:
        actor.must_own()
    anybodys = kind != "all" and actor.role == "owner" and by_user_id is None
    with db.write() as conn:
        conn.execute(
            "DELETE FROM shares WHERE user_id = ? AND kind = ? AND object_id = ? AND (? OR by_user_id = ?)",
            [user_id, kind, object_id, anybodys, by],
        )
