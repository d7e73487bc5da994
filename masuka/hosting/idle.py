"""Ends a rented machine that nobody uses: it costs money by the minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from masuka.hosting.turns import Turn

LOOK_EVERY_S = 30.0


class IdleWatch:
    """Calls `then` once, when nothing in the studio has moved for so long.

    Every edit, every sign-in and every step of a job is written to the database, so its
    file's age says how long nothing happened.
    """

    def __init__(self, database: Path, *, quiet_s: float, then: Callable[[], None]) -> None:
        self._database = database
        self._quiet_s = quiet_s
        self._then = then
        self._began_s = time.time()

    def start(self, turn: Turn, look_every_s: float = LOOK_EVERY_S) -> threading.Thread:
        """The thread that looks; it ends with its process, or with its turn."""
        return turn.every(look_every_s, "masuka-idle", self._look)

    def idle_s(self) -> float:
        """Seconds since anything was written, or since this watch began."""
        newest = self._began_s
        for name in (self._database.name, f"{self._database.name}-wal"):
            file = self._database.with_name(name)
            if file.exists():
                newest = max(newest, file.stat().st_mtime)
        return time.time() - newest

    def _look(self) -> bool:
        if self.idle_s() < self._quiet_s:
            return True
        self._then()
        return False
