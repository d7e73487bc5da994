"""One-time links and session cookies.

A link's token is kept as the name of a small file (its SHA-256, never the token), so
that another process can make one while the app runs, and so that of two people who
use the same link exactly one gets in: whoever removes the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from itsdangerous import BadSignature, TimestampSigner

LINK_LIFETIME_S = 24 * 3600
SESSION_LIFETIME_S = 30 * 24 * 3600
_LONGEST_TOKEN = 200


class Sessions:
    """Makes and checks links and cookies; `folder` is the workspace's secrets folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._links = folder / "links"
        self._clock = clock
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._links.mkdir(mode=0o700, exist_ok=True)
        self._key = _key_of(folder / "session.key")

    @property
    def cookie_name(self) -> str:
        """Differs between installations: cookies of one host do not know about ports."""
        return f"masuka-{hashlib.sha256(b'name' + self._key).hexdigest()[:8]}"

    def new_token(self, user_id: int) -> str:
        """A token that lets this user in once, within a day."""
        self._sweep()
        token = secrets.token_urlsafe(32)
        file = self._links / _digest(token)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(f"{user_id} {self._clock():.0f}")
        return token

    def use_token(self, token: str) -> int | None:
        """The user the token was made for; None if it is wrong, used or too old."""
        if not token or len(token) > _LONGEST_TOKEN:
            return None
        file = self._links / _digest(token)
        try:
            content = file.read_text()
            file.unlink()  # of two who come at once, the second fails here
        except FileNotFoundError:
            return None
        user_id, _, made = content.partition(" ")
        if self._clock() - float(made) > LINK_LIFETIME_S:
            return None
        return int(user_id)

    def cookie(self, user_id: int) -> str:
        """The value of a new session's cookie."""
        return self._signer().sign(f"{user_id}.{secrets.token_hex(8)}").decode()

    def user_of(self, cookie: str) -> int | None:
        """The user id of a session cookie; None if it is forged, too old or none at all."""
        try:
            value = self._signer().unsign(cookie, max_age=SESSION_LIFETIME_S).decode()
        except BadSignature:
            return None
        user_id = value.partition(".")[0]
        return int(user_id) if user_id.isdigit() else None

    def end_all(self) -> None:
        """Every session and every link stops working, on all devices."""
        (self._folder / "session.key").unlink(missing_ok=True)
        for link in self._links.iterdir():
            link.unlink(missing_ok=True)
        self._key = _key_of(self._folder / "session.key")

    def _signer(self) -> TimestampSigner:
        return TimestampSigner(self._key, salt="masuka session", digest_method=hashlib.sha256)

    def _sweep(self) -> None:
        for link in self._links.iterdir():
            try:
                old = self._clock() - link.stat().st_mtime > LINK_LIFETIME_S
            except FileNotFoundError:
                continue
            if old:
                link.unlink(missing_ok=True)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _key_of(file: Path) -> bytes:
    """The key in this file, made if missing; of two processes at once the first one's stays."""
    if not file.exists():
        fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, file)
        fresh.unlink()
    return file.read_bytes()
