"""Sessions: a cookie of 256 random bits, whose hash is a row in the database.

A session is always a new one: what a browser brought along is never taken over. It ends
when it was not used for a while, at its last day, at sign-out, and when its person gets
another password or role. A restored database has none: everybody signs in again.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from masuka.access.links import Links, digest
from masuka.store import sessions as rows
from masuka.store import users
from masuka.store.connect import Store
from masuka.store.sessions import Session

HOUR_S = 3600
DAY_S = 24 * HOUR_S
SEEN_EVERY_S = 300.0
"""A session's last use is written that often; each look would be a write otherwise."""
_LONGEST_COOKIE = 200


@dataclass(frozen=True)
class Lifetime:
    """How long a session lasts unused, and at most."""

    idle_s: int
    absolute_s: int


AWAY = Lifetime(idle_s=12 * HOUR_S, absolute_s=7 * DAY_S)
"""Everybody who comes by another name than this machine's own."""
AT_HOME = Lifetime(idle_s=30 * DAY_S, absolute_s=30 * DAY_S)
"""A one-time link opened on the machine itself: whoever sits there can make another one."""


class Sessions:
    """Makes, finds and ends sessions; `folder` is the workspace's secrets folder."""

    def __init__(self, store: Store, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self.links = Links(folder, clock)
        # Differs between installations: cookies of one host do not know about ports.
        self.cookie_name = f"masuka-{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"

    def new_token(self, user_id: int) -> str:
        """A one-time link's token for this user; see `Links.new_token`."""
        return self.links.new_token(user_id)

    def use_token(self, token: str) -> int | None:
        """The user of a one-time link's token; see `Links.use_token`."""
        return self.links.use_token(token)

    def begin(self, user_id: int, *, lifetime: Lifetime = AWAY, device: str = "", before: str = "") -> str:
        """The cookie of a new session; the one of before in this browser ends."""
        if before:
            self.end(before)
        cookie = secrets.token_urlsafe(32)
        rows.add_session(
            self._store,
            id=digest(cookie),
            user_id=user_id,
            device=device[:100],
            idle_s=lifetime.idle_s,
            now_at=self._at(),
            idle_at=self._at(lifetime.idle_s),
            expires_at=self._at(lifetime.absolute_s),
        )
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of this cookie; None if it is forged, over or none at all."""
        if not cookie or len(cookie) > _LONGEST_COOKIE:
            return None
        return rows.find_session(self._store, id=digest(cookie), now_at=self._at())

    def is_due(self, session: Session) -> bool:
        """Whether `touch` has something to write."""
        return session.seen_at < self._at(-SEEN_EVERY_S)

    def touch(self, session: Session) -> None:
        """Keeps a session that is used from ending as idle."""
        rows.touch_session(
            self._store, id=session.id, seen_at=self._at(), idle_at=min(self._at(session.idle_s), session.expires_at)
        )

    def end(self, cookie: str) -> None:
        """This session is over, in this browser."""
        rows.delete_session(self._store, id=digest(cookie))

    def end_all(self, user_id: int) -> None:
        """Every session and every link of this user stops working, on all devices."""
        users.end_epoch(self._store, id=user_id)
        rows.delete_sessions(self._store, user_id=user_id)
        self.links.forget(user_id)

    def list(self, user_id: int) -> list[Session]:
        """The user's sessions that are good now."""
        return rows.list_sessions(self._store, user_id=user_id, now_at=self._at())

    def _at(self, later_s: float = 0.0) -> str:
        return datetime.fromtimestamp(self._clock() + later_s, UTC).isoformat(timespec="microseconds")
