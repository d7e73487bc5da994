"""Work on pictures in a few processes of their own: in order, within limits, cancelled at once.

    python -P -m masuka.datasets.pool MODULE:FUNCTION

What a hostile file breaks there is one picture: a process that dies or hangs is replaced.
The processes know no key, no database and no page. Each item goes to one as a line of JSON
(with bytes behind it, where the item has some), and its result comes back as one.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any

import masuka
from masuka.config import bare_environment
from masuka.errors import InvalidInput, MasukaError, from_dict
from masuka.jobs import failures
from masuka.jobs.reporter import Reporter

MOST_PROCESSES = 4
MOST_BYTES = 1_500_000_000
"""What one process may allocate; 40 megapixels of 16 bits need about half of it."""
MOST_BYTES_WAITING = 100_000_000
SECONDS_TO_BEGIN = 120.0
SECONDS_EACH = 120.0
"""A picture that takes longer is given up; sound ones take a few seconds on the slowest machine."""
SECONDS_LEFT_ALONE = 60
"""Past SECONDS_EACH a process ends by itself: whoever should have ended it is gone."""
IN_FLIGHT_EACH = 3
_SECONDS_BETWEEN_CHECKS = 0.1
_READY = b"ready\n"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")

Function = Callable[[dict[str, Any]], dict[str, Any]]
Item = Mapping[str, Any] | MasukaError
"""JSON values; `data` may be bytes. An error stands for an item that has failed already."""
Result = dict[str, Any] | MasukaError


def each(
    function: Function, items: Iterable[Item], *, reporter: Reporter, processes: int | None = None
) -> Generator[Result, None, None]:
    """The results of function(item) in the order of the items, errors among them.

    `function` is one that a module names, takes and gives back JSON values, and raises
    MasukaErrors for what a person can do something about; those are results too. Any
    other error is raised here. Items are taken only as fast as they are worked on.
    0 `processes` works here. Raises Stop within a tenth of a second of being asked to.
    """
    count = min(MOST_PROCESSES, os.cpu_count() or 1) if processes is None else processes
    if count == 0:
        for item in items:
            reporter.check()
            yield item if isinstance(item, MasukaError) else _result_of(function, dict(item))
        return
    with closing(_Pool(function, count, reporter.scratch)) as pool:
        yield from pool.work(items, reporter.check)


def _result_of(function: Function, item: dict[str, Any]) -> Result:
    try:
        return function(item)
    except MasukaError as error:
        return error


class _Pool:
    """Processes, a thread that talks to each, and the results that wait for their turn."""

    def __init__(self, function: Function, count: int, folder: Path) -> None:
        self._name = f"{function.__module__}:{function.__qualname__}"
        self._folder = folder
        self._tasks: queue.SimpleQueue[tuple[int, Mapping[str, Any]] | None] = queue.SimpleQueue()
        self._done: dict[int, Result | Exception] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._count = count
        self._members: list[_Member] = []

    def close(self) -> None:
        """Ends every process, whatever it is doing."""
        with self._changed:
            self._closed = True
        for member in self._members:
            self._tasks.put(None)
            member.kill()
        for member in self._members:
            member.thread.join()

    def work(self, items: Iterable[Item], check: Callable[[], None]) -> Generator[Result, None, None]:
        """The results in order, no more items being on their way than there are hands for."""
        waiting: list[tuple[int, int]] = []
        source = enumerate(items)
        more = True
        while True:
            while (
                more
                and len(waiting) < self._count * IN_FLIGHT_EACH
                and _bytes_of(waiting) < MOST_BYTES_WAITING
            ):
                check()
                following = next(source, None)
                if following is None:
                    more = False
                    break
                waiting.append((following[0], self._send(*following)))
            if not waiting:
                return
            yield self._wait_for(waiting.pop(0)[0], check)

    def _send(self, number: int, item: Item) -> int:
        """How many bytes were handed over."""
        if isinstance(item, MasukaError):
            self._done[number] = item
            return 0
        if len(self._members) < self._count:
            self._members.append(_Member(self, self._name, self._folder))
        self._tasks.put((number, item))
        return len(item.get("data") or b"")

    def _wait_for(self, number: int, check: Callable[[], None]) -> Result:
        with self._changed:
            while number not in self._done:
                self._changed.wait(_SECONDS_BETWEEN_CHECKS)
                check()
                for member in self._members:
                    member.kill_if_stuck()
            result = self._done.pop(number)
        if isinstance(result, Exception) and not isinstance(result, MasukaError):
            raise result
        return result

    def task(self) -> tuple[int, Mapping[str, Any]] | None:
        """The next item for whoever asks; None when there will be no more."""
        task = self._tasks.get()
        return None if self._closed else task

    def put(self, number: int, result: Result | Exception) -> None:
        """Hands in a result."""
        with self._changed:
            self._done[number] = result
            self._changed.notify_all()


class _Member:
    """One place in the pool: a thread, and the process that it keeps going."""

    def __init__(self, pool: _Pool, name: str, folder: Path) -> None:
        self._pool = pool
        self._name = name
        self._folder = folder
        self._lock = threading.Lock()
        self._ended = False
        self._stuck = False
        self._until_s: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.thread = threading.Thread(target=self._run, name="pool", daemon=True)
        self.thread.start()

    def kill(self) -> None:
        """Ends the process for good."""
        with self._lock:
            self._ended = True
            if self._process is not None:
                self._process.kill()

    def kill_if_stuck(self) -> None:
        """Ends a process that works on one item for too long; another one follows it."""
        with self._lock:
            late = self._until_s is not None and time.monotonic() > self._until_s
            if late and self._process is not None:
                self._stuck = True
                self._process.kill()

    def _run(self) -> None:
        try:
            while (task := self._pool.task()) is not None:
                number, item = task
                self._pool.put(number, self._outcome(item))
        finally:
            self._reap()

    def _outcome(self, item: Mapping[str, Any]) -> Result | Exception:
        self._give_time(SECONDS_TO_BEGIN)
        try:
            process = self._process or self._start()
        except OSError as error:
            return MasukaError(
                f"No process could be started ({error.strerror}).", "Close programs, then retry."
            )
        if process is None:
            return RuntimeError(f"a process of the pool did not begin: {self._name}")
        self._give_time(SECONDS_EACH)
        answer = _asked(process, item)
        with self._lock:
            self._until_s = None
            stuck, self._stuck = self._stuck, False
        if answer is None:
            self._reap()
            return _given_up(stuck)
        if "bug" in answer:
            return RuntimeError(answer["bug"])
        return from_dict(answer["error"]) if "error" in answer else dict(answer["result"])

    def _give_time(self, seconds: float) -> None:
        with self._lock:
            self._until_s = time.monotonic() + seconds

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ended:
                return None
            process = self._process = _started(self._name, self._folder)
        assert process.stdout is not None
        if process.stdout.readline() != _READY:
            self._reap()
            return None
        return process

    def _reap(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


def _given_up(stuck: bool) -> InvalidInput:
    if stuck:
        return InvalidInput(
            f"The picture was not read within {SECONDS_EACH:.0f} seconds.", "Save it again as JPEG or PNG."
        )
    return InvalidInput(
        "The program that reads pictures broke down over it.", "Save it again in an image program."
    )


def _asked(process: subprocess.Popen[bytes], item: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the process answers; None when it is gone."""
    assert process.stdin is not None and process.stdout is not None
    data = item.get("data")
    about = {
        "item": {k: v for k, v in item.items() if k != "data"},
        "bytes": None if data is None else len(data),
    }
    try:
        process.stdin.write(json.dumps(about).encode() + b"\n")
        if data is not None:
            process.stdin.write(data)
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        return None
    return json.loads(line) if line.endswith(b"\n") else None


def _started(name: str, folder: Path) -> subprocess.Popen[bytes]:
    package = str(Path(masuka.__file__).parent.parent)
    places = dict.fromkeys([package, *(place for place in sys.path if place)])
    # One thread each, for there is a process for each core; libraries would take all cores again.
    more = {"PYTHONPATH": os.pathsep.join(places), **dict.fromkeys(_THREADS, "1")}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", __name__, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env=bare_environment(more),
    )


def _bytes_of(waiting: Iterable[tuple[int, int]]) -> int:
    return sum(size for _, size in waiting)


def main(name: str) -> None:
    """Works on items from stdin until it ends; results go to stdout."""
    _limit()
    answers, items = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)  # what a library prints is no answer
    module, _, function = name.partition(":")
    work: Function = getattr(importlib.import_module(module), function)
    answers.write(_READY)
    answers.flush()
    while line := items.readline():
        _alarm(int(SECONDS_EACH) + SECONDS_LEFT_ALONE)
        answers.write(json.dumps(_answer(work, line, items)).encode() + b"\n")
        answers.flush()
        _alarm(0)


def _alarm(seconds: int) -> None:
    """Ends this process after so long, whatever it is in the middle of; 0 never."""
    if hasattr(signal, "alarm"):  # not on Windows
        signal.alarm(seconds)


def _answer(work: Function, line: bytes, items: IO[bytes]) -> dict[str, Any]:
    about = json.loads(line)
    item = dict(about["item"])
    if about["bytes"] is not None:
        item["data"] = items.read(about["bytes"])
    try:
        return {"result": work(item)}
    except Exception as error:  # noqa: BLE001 - the edge of the process: whoever asked raises it
        told = failures.from_exception(error)
        return {"bug": traceback.format_exc()} if told is None else {"error": told.as_dict()}


def _limit() -> None:
    """Takes from this process what no picture needs: memory without end, core dumps."""
    try:
        import resource
    except ImportError:  # no such limits on this system
        return
    for what, most in ((resource.RLIMIT_DATA, MOST_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(what)[1]
        known = [limit for limit in (most, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(what, (min(known), hard))


if __name__ == "__main__":
    main(*itertools.islice(sys.argv, 1, None))
