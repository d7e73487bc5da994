"""How often something may be tried or asked for; all of it in memory, bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]
MOST_KEYS = 4096


class Throttle:
    """After `attempts` in `window_s` a key has to wait.

    An attempt counts when it begins, so that many at once are no more than so many.

    Behind a tunnel every visitor may have the same address, so a key that is over its
    limit delays newcomers only: people who are inside already are never asked.
    """

    def __init__(self, attempts: int = 10, window_s: float = 60.0, clock: Clock = time.monotonic) -> None:
        self.attempts = attempts
        self.window_s = window_s
        self._clock = clock
        self._begun: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """0 when this key may try now, which is counted; else the seconds until it may."""
        with self._lock:
            recent = self._recent(key)
            if len(recent) >= self.attempts:
                return max(0.001, recent[-self.attempts] + self.window_s - self._clock())
            self._begun.pop(key, None)
            if len(self._begun) >= MOST_KEYS:
                self._begun.pop(next(iter(self._begun)))  # the key that was quiet for longest
            self._begun[key] = [*recent, self._clock()]
            return 0.0

    def give_back(self, key: str) -> None:
        """The key's last attempt does not count."""
        with self._lock:
            self._begun[key] = self._recent(key)[:-1]

    def forget(self, key: str) -> None:
        """The key's attempts do not count any more: it was let in."""
        with self._lock:
            self._begun.pop(key, None)

    def _recent(self, key: str) -> list[float]:
        since = self._clock() - self.window_s
        return [at for at in self._begun.get(key, []) if at > since]


class Rate:
    """So many requests a minute for each key, with a minute's worth at once."""

    def __init__(self, per_minute: int, clock: Clock = time.monotonic) -> None:
        self.per_minute = per_minute
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, key: str) -> float:
        """0 when the request may pass, which is counted; else the seconds to wait."""
        now = self._clock()
        left, at = self._left.pop(key, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - at) * self.per_minute / 60)
        if len(self._left) >= MOST_KEYS:
            self._left.pop(next(iter(self._left)))  # the key that was quiet for longest
        self._left[key] = (left - 1 if left >= 1 else left, now)
        return 0.0 if left >= 1 else (1 - left) * 60 / self.per_minute
