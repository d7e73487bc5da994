"""What goes through a metered link is counted, kept for the month, and warned about."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from masuka.hosting.tunnels.budget import BYTES_A_MONTH, REQUESTS_A_MONTH, SAVE_EVERY_S, Budget, Meter, Usage
from tests.asynchronous import finish


class Clock:
    def __init__(self, at: str) -> None:
        self.now = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


class Kept:
    def __init__(self, text: str = "") -> None:
        self.text = text
        self.saves = 0

    def load(self) -> str:
        return self.text

    def save(self, text: str) -> None:
        self.text, self.saves = text, self.saves + 1


def budget(kept: Kept, clock: Clock) -> Budget:
    return Budget(kept.load, kept.save, clock=clock)


def test_the_count_is_kept_and_goes_on_at_the_next_start() -> None:
    kept, clock = Kept(), Clock("2026-11-20T10:00:00")
    first = budget(kept, clock)
    first.add(requests=3, sent_bytes=1000)
    first.keep(now=True)
    second = budget(kept, clock)
    second.add(requests=1)
    assert second.usage() == Usage("2026-11", 4, 1000)


def test_a_new_month_begins_at_nothing_also_while_it_runs() -> None:
    kept, clock = Kept(), Clock("2026-11-30T23:59:59")
    counting = budget(kept, clock)
    counting.add(requests=100, sent_bytes=9)
    clock.now += 2
    assert counting.usage() == Usage("2026-12")
    counting.add(requests=1)
    assert counting.usage().requests == 1
    counting.keep(now=True)
    assert budget(kept, Clock("2027-01-01T00:00:00")).usage() == Usage("2027-01")


def test_it_is_saved_now_and_then_and_only_when_it_changed() -> None:
    kept, clock = Kept(), Clock("2026-11-20T10:00:00")
    counting = budget(kept, clock)
    counting.keep(now=True)
    assert kept.saves == 0
    counting.add(requests=1)
    counting.keep()
    assert kept.saves == 0
    clock.now += SAVE_EVERY_S
    counting.keep()
    counting.keep(now=True)
    assert kept.saves == 1


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"month": 5}', '{"month": "2026-11", "requests": "x", "bytes": 1}'])
def test_a_count_that_cannot_be_read_begins_at_nothing(text: str) -> None:
    assert budget(Kept(text), Clock("2026-11-20T10:00:00")).usage() == Usage("2026-11")


def test_the_share_is_of_what_runs_out_first() -> None:
    assert Usage("2026-11", requests=REQUESTS_A_MONTH * 7 // 10).share == pytest.approx(0.7)
    assert Usage("2026-11", requests=1, bytes=BYTES_A_MONTH).share == 1


async def _app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"bc")]})
    await send({"type": "http.response.body", "body": b"x" * 100, "more_body": True})
    await send({"type": "http.response.body", "body": b"y" * 11})


def asked(meter: Meter, host: bytes) -> dict[str, Any]:
    scope = {"type": "http", "headers": [(b"host", host)]}
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    finish(meter(scope, None, send))  # type: ignore[arg-type]
    assert [m["type"] for m in sent] == ["http.response.start", *["http.response.body"] * 2]
    return scope


def test_only_what_comes_by_the_metered_name_counts() -> None:
    counting = budget(Kept(), Clock("2026-11-20T10:00:00"))
    meter = Meter(_app, counting)  # type: ignore[arg-type]
    counting.meter("otter.ngrok-free.app")
    assert asked(meter, b"OTTER.ngrok-free.app")["metered"]
    assert asked(meter, b"otter.ngrok-free.app:443")["metered"]
    for other in (b"127.0.0.1:7860", b"", b"evil-otter.ngrok-free.app"):
        assert "metered" not in asked(meter, other)
    assert counting.usage() == Usage("2026-11", 2, 2 * (1 + 2 + 4 + 111))
    counting.meter("")
    assert "metered" not in asked(meter, b"otter.ngrok-free.app")
