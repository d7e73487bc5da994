"""Background work of a notebook's kernel, of which the newest alone goes on.

A cell that is run again starts it again, perhaps from newer code; the older one sees that
its turn is over, and ends. So does the newest when the turn is given up.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path


class Turn:
    """A file that names whose turn it is."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._me = secrets.token_hex(8)

    def take(self) -> None:
        """From now on it is mine."""
        self._file.write_text(self._me, encoding="utf-8")

    @property
    def is_mine(self) -> bool:
        return self._file.exists() and self._file.read_text(encoding="utf-8") == self._me

    def every(self, seconds: float, name: str, do: Callable[[], bool]) -> threading.Thread:
        """The thread that does it again and again, until it says False or its turn ends."""
        self.take()

        def work() -> None:
            while self.is_mine and do():
                time.sleep(seconds)

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread
