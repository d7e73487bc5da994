"""A worker process: reads one job a line from stdin, runs it, tells an events file.

    python -m masuka.jobs.worker

It knows no database and no page. While stdin stays open it keeps its modules, and with
them loaded models, for the next job; at the end of stdin it leaves.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

from masuka.config import Settings, secrets_in_environment
from masuka.errors import MasukaError, OutOfMemory, Stop
from masuka.jobs import failures
from masuka.jobs.files import AttemptFiles, put_aside_long_log, stop_reason
from masuka.jobs.kinds import Kind
from masuka.jobs.reporter import EventFile, StopFlag
from masuka.logs import SafeFormatter, leave_out_noise, redact

NICENESS = 5
"""The page answers first where cores are few; an idle machine is not slowed by it."""
EVENTS_BETWEEN_LOG_CHECKS = 100
_SAID = {"stage": "name", "note": "text"}
"""Events that the log repeats, and where their words are."""

log = logging.getLogger("masuka.worker")


@dataclass(frozen=True)
class Assignment:
    """One job as a worker gets it; `run` is 'module:function', paths are absolute."""

    job_id: int
    fence: int
    kind: str
    run: str
    params: dict[str, Any]
    events: str
    scratch: str
    stop: str
    log: str
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls, kind: Kind, files: AttemptFiles, *, job_id: int, params: dict[str, Any], secrets: dict[str, str]
    ) -> Assignment:
        """The assignment of an attempt whose files those are."""
        return cls(
            job_id=job_id, fence=files.fence, kind=kind.name, run=kind.run, params=params,
            events=str(files.events.resolve()), scratch=str(files.scratch.resolve()),
            stop=str(files.stop.resolve()), log=str(files.log.resolve()), secrets=secrets,
        )  # fmt: skip

    def line(self) -> bytes:
        """The assignment as the worker's stdin carries it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Assignment:
        """The assignment of such a line."""
        return cls(**json.loads(line))


def main() -> int:
    """Works until stdin ends; the exit code is 0 unless the process is of no more use."""
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, _leave)
    _log_to_stderr()
    while line := sys.stdin.buffer.readline():
        assignment = Assignment.parse(line)
        _print_to(Path(assignment.log))
        if not work(assignment):
            break
    return 0


def work(assignment: Assignment) -> bool:
    """Runs one job to its last event; False when this process should not take another."""
    stop, params = Path(assignment.stop), {**assignment.params, "job_id": assignment.job_id}
    redact.learn(assignment.secrets.values())
    try:
        reporter = EventFile(
            Path(assignment.events),
            Path(assignment.scratch),
            StopFlag(stop),
            _LogKeeper(Path(assignment.log)),
        )
        with closing(reporter), secrets_in_environment(assignment.secrets):
            return perform(assignment.run, params, reporter, _stopped_by_sigterm(stop))
    except OSError:
        # Not even the failure could be written; the exit code carries the sentence.
        log.exception("the job's events could not be written")
        os._exit(failures.EXIT_CANNOT_WRITE)


def perform(
    run: str, params: dict[str, Any], reporter: EventFile, while_running: AbstractContextManager[None]
) -> bool:
    """Runs one job's code and reports its end; False when the process is in doubt.

    `while_running` surrounds the job's own code. Raises OSError when the end could not be
    written, KeyboardInterrupt when a person at a keyboard stopped it.
    """
    try:
        reporter.started()
        leave_out_noise()
        with while_running:
            result = function_of(run)(params, reporter)
        reporter.done(result or {})
    except Stop as asked:
        log.info("stopped: %s", asked.why)
        reporter.stopped(asked.why)
    except KeyboardInterrupt:
        reporter.stopped("cancel")
        raise
    except BaseException as error:  # noqa: BLE001 - the edge where every failure becomes a sentence
        return fail(reporter, error)
    return True


def fail(reporter: EventFile, error: BaseException) -> bool:
    """Reports the failure; False when it left the process in doubt (memory ran out)."""
    told = failures.from_exception(error)
    reference = ""
    if told is None:
        reference = secrets.token_hex(4)
        told = failures.bug(reference)
        log.error("reference %s", reference, exc_info=error)
    else:
        log.error("%s", told, exc_info=None if isinstance(error, MasukaError) else error)
    leaving = isinstance(told, OutOfMemory)
    reporter.failed(told, reference=reference, leaving=leaving)
    return not leaving


def function_of(run: str) -> Callable[[dict[str, Any], Any], dict[str, Any] | None]:
    """The function that 'module:function' names."""
    module, _, name = run.partition(":")
    function: Callable[[dict[str, Any], Any], dict[str, Any] | None] = getattr(import_module(module), name)
    return function


class _LogKeeper:
    """Says in the log how far the job is, and starts a new one when it has grown long."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._events = 0

    def __call__(self, event: dict[str, Any]) -> None:
        self._events += 1
        if event["type"] in _SAID:
            log.info("%s", event[_SAID[event["type"]]])
        if self._events % EVENTS_BETWEEN_LOG_CHECKS == 0 and put_aside_long_log(self._file):
            _print_to(self._file)


@contextmanager
def _stopped_by_sigterm(stop_file: Path) -> Iterator[None]:
    """While the job's code runs, SIGTERM leaves it; unasked (a machine that goes down) to go on later."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stop(stop_reason(stop_file) or "pause")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    # Not sys.exit: between two jobs there is nothing to unwind, and a last event must stay last.
    os._exit(0)


def _print_to(file: Path) -> None:
    """Sends this process's output, that of C libraries too, to the end of the file."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _log_to_stderr() -> None:
    redact.learn(Settings.from_environment().secrets.values())
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)


if __name__ == "__main__":
    sys.exit(main())
