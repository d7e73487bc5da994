"""How often something may be tried."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Throttle:
    """Counts failures per key; after `attempts` in `window_s` the key has to wait.

    Behind a tunnel every visitor has the same address, so a key that is over its limit
    delays newcomers only: people who are inside already are never asked.
    """

    MOST_KEYS = 4096

    def __init__(
        self, attempts: int = 10, window_s: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.attempts = attempts
        self.window_s = window_s
        self._clock = clock
        self._failures: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Seconds until this key may try again; 0 when it may now."""
        with self._lock:
            recent = self._recent(key)
            if len(recent) < self.attempts:
                return 0.0
            return max(0.0, recent[-self.attempts] + self.window_s - self._clock())

    def failed(self, key: str) -> None:
        """Counts one failure of this key."""
        with self._lock:
            if len(self._failures) >= self.MOST_KEYS and key not in self._failures:
                self._forget_old()
            self._failures[key] = [*self._recent(key), self._clock()][-self.attempts :]

    def _recent(self, key: str) -> list[float]:
        since = self._clock() - self.window_s
        return [at for at in self._failures.get(key, []) if at > since]

    def _forget_old(self) -> None:
        kept = {key: self._recent(key) for key in self._failures}
        self._failures = {key: times for key, times in kept.items() if times}
        while len(self._failures) >= self.MOST_KEYS:
            self._failures.pop(next(iter(self._failures)))
