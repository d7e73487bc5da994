"""How much of a month's free allowance the link has used: requests and bytes.

ngrok's free plan allows 20,000 requests and 1 GB a month. The count is kept with the
workspace's settings, so that it is there again on the next machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUESTS_A_MONTH = 20_000
BYTES_A_MONTH = 1_000_000_000
WARN_SHARE = 0.7
SAVE_EVERY_S = 300.0
_HEAD_BYTES = 4
"""Between and around a header's name and value: ': ' and a line's end."""


@dataclass(frozen=True)
class Usage:
    """What went through in one month ('2026-11', UTC)."""

    month: str
    requests: int = 0
    bytes: int = 0

    @property
    def share(self) -> float:
        """The part of the free allowance that is used; above 1 it is used up."""
        return max(self.requests / REQUESTS_A_MONTH, self.bytes / BYTES_A_MONTH)

    def as_text(self) -> str:
        """The usage as it is stored."""
        return json.dumps({"month": self.month, "requests": self.requests, "bytes": self.bytes})

    @classmethod
    def from_text(cls, text: str, month: str) -> Usage:
        """The stored usage of this month; none of it where the text is another month's."""
        try:
            known = json.loads(text or "{}")
            usage = cls(str(known["month"]), int(known["requests"]), int(known["bytes"]))
        except (ValueError, KeyError, TypeError):
            return cls(month)
        return usage if usage.month == month else cls(month)


class Budget:
    """Counts what goes through a metered link; `load` and `save` keep the text."""

    def __init__(
        self,
        load: Callable[[], str],
        save: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._save = save
        self._clock = clock
        self._lock = threading.Lock()
        self._usage = Usage.from_text(load(), self._month())
        self._saved = self._usage
        self._saved_s = clock()
        self._hosts: frozenset[str] = frozenset()

    def meter(self, host: str) -> None:
        """Counts what is asked under this host name from now on; '' counts nothing."""
        self._hosts = frozenset({host} if host else ())

    def covers(self, host: str) -> bool:
        """Whether requests under this host name are counted."""
        return host in self._hosts

    def add(self, *, requests: int = 0, sent_bytes: int = 0) -> None:
        """Counts requests and what was answered to them."""
        with self._lock:
            usage = self._of_this_month()
            self._usage = replace(
                usage, requests=usage.requests + requests, bytes=usage.bytes + sent_bytes
            )

    def usage(self) -> Usage:
        """What this month has used until now."""
        with self._lock:
            self._usage = self._of_this_month()
            return self._usage

    def keep(self, *, now: bool = False) -> None:
        """Saves the count when it has changed, and not more often than every 5 minutes."""
        usage = self.usage()
        if usage == self._saved or not (now or self._clock() - self._saved_s >= SAVE_EVERY_S):
            return
        self._save(usage.as_text())
        self._saved, self._saved_s = usage, self._clock()

    def _of_this_month(self) -> Usage:
        month = self._month()
        return self._usage if self._usage.month == month else Usage(month)

    def _month(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m")


class Meter:
    """ASGI middleware before the gate; `scope["metered"]` says that a request counts."""

    def __init__(self, app: ASGIApp, budget: Budget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or not self._budget.covers(_host_of(scope)):
            await self._app(scope, receive, send)
            return
        scope["metered"] = True
        self._budget.add(requests=1)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                size = sum(len(n) + len(v) + _HEAD_BYTES for n, v in message.get("headers", ()))
                self._budget.add(sent_bytes=size)
            else:
                body = message.get("body") or message.get("bytes") or (message.get("text") or "").encode()
                self._budget.add(sent_bytes=len(body))
            await send(message)

        await self._app(scope, receive, counted)


def _host_of(scope: Scope) -> str:
    for name, value in scope.get("headers", ()):
        if name.lower() == b"host":
            return str(value.decode("latin-1")).strip().lower().partition(":")[0].rstrip(".")
    return ""
