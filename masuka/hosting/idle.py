"""Ends a rented machine that nobody uses: it costs money by the minute."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 30.0


class IdleWatch:
    """Calls `then` once, when nothing in the studio has moved for so long.

    Every edit, every sign-in and every step of a job is written to the database, so its
    file's age says how long nothing happened. Of several watches on one folder the newest
    alone goes on: a cell that is run again starts another one.
    """

    def __init__(self, database: Path, *, quiet_s: float, token: Path, then: Callable[[], None]) -> None:
        self._database = database
        self._quiet_s = quiet_s
        self._token = token
        self._mine = secrets.token_hex(8)
        self._then = then
        self._began_s = time.time()

    def start(self, look_every_s: float = LOOK_EVERY_S) -> threading.Thread:
        """The thread that looks; it ends with its process."""
        self._token.write_text(self._mine, encoding="utf-8")
        thread = threading.Thread(target=self._look, args=(look_every_s,), name="masuka-idle", daemon=True)
        thread.start()
        return thread

    def idle_s(self) -> float:
        """Seconds since anything was written, or since this watch began."""
        newest = self._began_s
        for name in (self._database.name, f"{self._database.name}-wal"):
            file = self._database.with_name(name)
            if file.exists():
                newest = max(newest, file.stat().st_mtime)
        return time.time() - newest

    def _look(self, every_s: float) -> None:
        while self._token.exists() and self._token.read_text(encoding="utf-8") == self._mine:
            if self.idle_s() >= self._quiet_s:
                self._then()
                return
            time.sleep(every_s)
