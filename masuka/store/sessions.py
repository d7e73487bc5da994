"""Who is signed in, and until when. `id` is the hash of the cookie, never the cookie.

The door reads these rows before it knows who asks, so these functions take no actor.
"""

from __future__ import annotations

from dataclasses import dataclass

from masuka.requests.actor import Actor, Role
from masuka.store.connect import Store
from masuka.store.rows import add_row, decode


@dataclass(frozen=True)
class Session:
    """A session that is good now, with its person; `idle_at` ends it if nobody comes."""

    id: str
    user_id: int
    username: str
    role: Role
    device: str
    idle_s: int
    created_at: str
    seen_at: str
    idle_at: str
    expires_at: str

    @property
    def actor(self) -> Actor:
        return Actor(user_id=self.user_id, role=self.role, name=self.username)


GOOD = """
SELECT sessions.*, users.username, users.role FROM sessions JOIN users ON users.id = sessions.user_id
WHERE users.active = 1 AND users.epoch = sessions.epoch AND idle_at > :now_at AND expires_at > :now_at
"""


def add_session(
    db: Store, *, id: str, user_id: int, device: str, idle_s: int, now_at: str, idle_at: str, expires_at: str
) -> None:
    """Keeps a new session in the person's present epoch; raises NotFound without one."""
    with db.write() as conn:
        epoch = conn.execute("SELECT epoch FROM users WHERE id = ?", [user_id]).fetchone()
        values = {
            "id": id, "user_id": user_id, "epoch": epoch[0] if epoch else 0, "device": device, "idle_s": idle_s,
            "created_at": now_at, "seen_at": now_at, "idle_at": idle_at, "expires_at": expires_at,
        }  # fmt: skip
        conn.table("sessions").delete_where("idle_at <= :now_at OR expires_at <= :now_at", {"now_at": now_at})
        add_row(db, "sessions", values)


def find_session(db: Store, *, id: str, now_at: str) -> Session | None:
    """The session, if it is good and its person may still enter."""
    with db.read() as conn:
        row = next(conn.query(f"{GOOD} AND sessions.id = :id", {"id": id, "now_at": now_at}), None)
    return None if row is None else decode(Session, row)


def list_sessions(db: Store, *, user_id: int, now_at: str) -> list[Session]:
    """The person's good sessions, the last seen first."""
    with db.read() as conn:
        rows = conn.query(
            f"{GOOD} AND sessions.user_id = :user_id ORDER BY seen_at DESC",
            {"user_id": user_id, "now_at": now_at},
        )
        return [decode(Session, row) for row in rows]


def touch_session(db: Store, *, id: str, seen_at: str, idle_at: str) -> None:
    """Moves the idle end of a session that was used."""
    with db.write() as conn:
        conn.execute("UPDATE sessions SET seen_at = ?, idle_at = ? WHERE id = ?", [seen_at, idle_at, id])


def delete_session(db: Store, *, id: str) -> None:
    """Ends one session, whether or not it was there."""
    with db.write() as conn:
        conn.table("sessions").delete_where("id = ?", [id])


def delete_sessions(db: Store, *, user_id: int) -> None:
    """Ends every session of the person."""
    with db.write() as conn:
        conn.table("sessions").delete_where("user_id = ?", [user_id])
