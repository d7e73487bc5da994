"""The pool of processes: order, errors, crashes, hangs, cancelling; with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from masuka.datasets import pool
from masuka.errors import InvalidInput, MasukaError, OutOfDisk, Stop
from masuka.jobs.reporter import EventFile


def work(item: dict[str, Any]) -> dict[str, Any]:
    """What the processes of these tests do."""
    match item["do"]:
        case "say":
            print("this is no answer")
            return {"said": item["number"], "bytes": len(item.get("data", b"")), "pid": os.getpid()}
        case "refuse":
            raise InvalidInput("No.", "Never.", field="x")
        case "fill":
            raise OSError(28, "No space left on device")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(600)
        case "swell":
            bytearray(3 * 10**9)
        case "environment":
            return {"names": sorted(os.environ), "threads": os.environ["OMP_NUM_THREADS"]}
    raise ZeroDivisionError("a bug")


@pytest.fixture
def reporter(tmp_path: Path) -> Iterator[EventFile]:
    events = EventFile(tmp_path / "events.jsonl", tmp_path / "scratch")
    yield events
    events.close()


def say(number: int, **more: Any) -> dict[str, Any]:
    return {"do": "say", "number": number, **more}


@pytest.mark.parametrize("processes", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(reporter: EventFile, processes: int) -> None:
    items = [say(number, data=b"x" * number * 1000) for number in range(20)]
    results = list(pool.each(work, items, reporter=reporter, processes=processes))
    assert [(r["said"], r["bytes"]) for r in results if isinstance(r, dict)] == [(n, n * 1000) for n in range(20)]
    pids = {r["pid"] for r in results if isinstance(r, dict)}
    assert pids == {os.getpid()} if processes == 0 else len(pids) <= processes and os.getpid() not in pids


@pytest.mark.parametrize("processes", [0, 2])
def test_errors_are_results(reporter: EventFile, processes: int) -> None:
    mine = InvalidInput("It was no good before.", "Leave it.")
    results = list(pool.each(work, [{"do": "refuse"}, mine, say(2)], reporter=reporter, processes=processes))
    assert [str(r) for r in results[:2]] == ["No. Never.", "It was no good before. Leave it."]
    assert isinstance(results[0], InvalidInput) and results[0].field == "x"
    assert isinstance(results[2], dict) and results[2]["said"] == 2


def test_a_process_that_dies_is_one_item(reporter: EventFile) -> None:
    items = [say(0), {"do": "crash"}, say(2), {"do": "swell"}, say(4), {"do": "fill"}]
    results = list(pool.each(work, items, reporter=reporter, processes=1))
    assert [r["said"] for r in (results[0], results[2], results[4]) if isinstance(r, dict)] == [0, 2, 4]
    assert str(results[1]) == (
        "The program that reads pictures broke down over it. Save it again in an image program."
    )
    assert isinstance(results[3], MasukaError), "memory has an end"
    assert isinstance(results[5], OutOfDisk)


def test_a_process_that_hangs_is_given_up(reporter: EventFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SECONDS_EACH", 4.0)
    results = list(pool.each(work, [{"do": "hang"}, say(1)], reporter=reporter, processes=1))
    assert str(results[0]).startswith("The picture was not read within")
    assert isinstance(results[1], dict)


def test_a_mistake_of_ours_is_raised(reporter: EventFile) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError: a bug"):
        list(pool.each(work, [{"do": "divide"}], reporter=reporter, processes=1))


def test_cancelling_ends_every_process(tmp_path: Path) -> None:
    asked: list[str] = []
    reporter = EventFile(tmp_path / "e.jsonl", tmp_path / "s", lambda: asked[0] if asked else None)
    results = pool.each(work, [say(0), {"do": "hang"}, {"do": "hang"}], reporter=reporter, processes=2)
    first = next(results)
    assert isinstance(first, dict)
    children = [p for p in psutil.Process().children() if pool.__name__ in p.cmdline()]
    assert children
    asked.append("cancel")
    began_s = time.monotonic()
    with pytest.raises(Stop):
        next(results)
    assert time.monotonic() - began_s < 60, "it did not wait for what hangs"
    assert not any(child.is_running() for child in children)
    reporter.close()


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="no alarms there")
def test_a_process_whose_pool_was_killed_ends_by_itself() -> None:
    code = "from masuka.datasets import pool; pool.SECONDS_EACH = pool.SECONDS_LEFT_ALONE = 1; pool.main"
    left = subprocess.Popen(
        [sys.executable, "-c", f"{code}('{work.__module__}:work')"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with left:
        assert left.stdin is not None
        left.stdin.write(b'{"item": {"do": "hang"}, "bytes": null}\n')
        left.stdin.flush()
        assert left.wait(timeout=120) == -signal.SIGALRM


def test_whoever_stops_asking_leaves_no_process(reporter: EventFile) -> None:
    results = pool.each(work, [say(0), {"do": "hang"}], reporter=reporter, processes=2)
    next(results)
    results.close()
    assert not [p for p in psutil.Process().children() if pool.__name__ in p.cmdline()]


def test_items_are_taken_as_fast_as_they_are_worked_on(reporter: EventFile) -> None:
    taken: list[int] = []

    def items() -> Iterator[pool.Item]:
        for number in range(100):
            taken.append(number)
            yield say(number)

    results = pool.each(work, items(), reporter=reporter, processes=1)
    next(results)
    assert len(taken) <= 2 * pool.IN_FLIGHT_EACH
    results.close()


def test_large_items_wait_for_their_turn(reporter: EventFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MOST_BYTES_WAITING", 1000)
    taken: list[int] = []

    def items() -> Iterator[pool.Item]:
        for number in range(9):
            taken.append(number)
            yield say(number, data=b"x" * 1000)

    results = pool.each(work, items(), reporter=reporter, processes=2)
    next(results)
    assert len(taken) == 1
    assert len(list(results)) == 8


def test_the_processes_know_no_key(reporter: EventFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    (result,) = pool.each(work, [{"do": "environment"}], reporter=reporter, processes=1)
    assert isinstance(result, dict) and "HF_TOKEN" not in result["names"] and result["threads"] == "1"


def test_nothing_to_do_starts_nothing(reporter: EventFile) -> None:
    assert list(pool.each(work, [], reporter=reporter)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_the_memory_limit_is_above_what_the_largest_picture_needs() -> None:
    assert pool.MOST_BYTES >= 40_000_000 * 4 * 4
