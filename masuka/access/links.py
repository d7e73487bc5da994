"""One-time links, kept as small files.

A link's token is kept as the name of a file (its SHA-256, never the token), so that
another process can make one while the app runs, and so that of two people who use the
same link exactly one gets in: whoever removes the file.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

LINK_LIFETIME_S = 24 * 3600
_LONGEST_TOKEN = 200


class Links:
    """Makes and takes one-time links; `folder` is the workspace's secrets folder."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._links = folder / "links"
        self._clock = clock
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._links.mkdir(mode=0o700, exist_ok=True)

    def new_token(self, user_id: int) -> str:
        """A token that lets this user in once, within a day."""
        self._sweep()
        token = secrets.token_urlsafe(32)
        descriptor = os.open(self._links / digest(token), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(f"{user_id} {self._clock():.0f}")
        return token

    def use_token(self, token: str) -> int | None:
        """The user the token was made for; None if it is wrong, used or too old."""
        if not token or len(token) > _LONGEST_TOKEN:
            return None
        file = self._links / digest(token)
        try:
            content = file.read_text()
            file.unlink()  # of two who come at once, the second fails here
        except FileNotFoundError:
            return None
        user_id, _, made = content.partition(" ")
        if self._clock() - float(made) > LINK_LIFETIME_S:
            return None
        return int(user_id)

    def forget(self, user_id: int) -> None:
        """No link of this user works any more."""
        for link in self._links.iterdir():
            try:
                theirs = link.read_text().partition(" ")[0] == str(user_id)
            except FileNotFoundError:
                continue
            if theirs:
                link.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for link in self._links.iterdir():
            try:
                old = self._clock() - link.stat().st_mtime > LINK_LIFETIME_S
            except FileNotFoundError:
                continue
            if old:
                link.unlink(missing_ok=True)


def digest(token: str) -> str:
    """The SHA-256 of a token, in hex: what is stored instead of it."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
