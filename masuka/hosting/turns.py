"""Background work of a notebook's kernel, of which the newest alone goes on.

A cell that is run again starts it again, perhaps from newer code; the older one sees that
its turn is over, and ends. So does the newest when the turn is given up.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from masuka.errors import MasukaError

RETRY_S = 60.0
LONGEST_RETRY_S = 600.0

log = logging.getLogger(__name__)


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
        try:
            return self._file.read_text(encoding="utf-8") == self._me
        except FileNotFoundError:
            return False

    def every(self, seconds: float, name: str, do: Callable[[], bool]) -> threading.Thread:
        """The thread that does it again and again, until it says False or its turn ends.

        What fails is told and tried again, ever less often.
        """
        self.take()

        def work() -> None:
            failures = 0
            while self.is_mine:
                try:
                    if not do():
                        return
                    failures = 0
                except Exception as error:
                    failures += 1
                    log.warning("%s: %s", name, error, exc_info=not isinstance(error, MasukaError))
                retry_s = min(min(seconds, RETRY_S) * 2.0**failures, LONGEST_RETRY_S)
                time.sleep(retry_s if failures else seconds)

        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread
