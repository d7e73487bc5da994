"""Files that somebody waits for: a few threads bring them, and a hanging vault holds only those."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from masuka.vault.index import Kept

THREADS = 4
MOST_WAITING = 16
"""Requests for pictures that wait at a time; a server has some forty threads for all it does."""


class Asked:
    """Brings files back in the order in which they were asked for."""

    def __init__(self, fetch: Callable[[Kept], None]) -> None:
        self._fetch = fetch
        self._queue: queue.SimpleQueue[tuple[Kept, threading.Event]] = queue.SimpleQueue()
        self._pending: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._threads = 0
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    def bring(self, kept: Kept) -> threading.Event:
        """An event that is set once that was tried."""
        with self._lock:
            done = self._pending.get(kept.path)
            if done is None:
                done = self._pending[kept.path] = threading.Event()
                self._queue.put((kept, done))
                if self._threads < THREADS:
                    self._threads += 1
                    threading.Thread(target=self._run, name="vault-fetch", daemon=True).start()
        return done

    def wait(self, done: threading.Event, timeout_s: float, *, patient: bool) -> None:
        """Waits for it; an impatient one not at all where many do already."""
        if patient:
            done.wait(timeout_s)
        elif self._places.acquire(blocking=False):
            try:
                done.wait(timeout_s)
            finally:
                self._places.release()

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._queue.empty():
                    self._threads -= 1
                    return
                kept, done = self._queue.get()
            try:
                self._fetch(kept)
            finally:
                with self._lock:
                    self._pending.pop(kept.path, None)
                done.set()
