"""How the command line shows things: tables, sizes, times and a job's true progress."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from masuka.store.jobs import Job
from masuka.studio import Studio

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 10.0
WIDEST_CELL = 60


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "Nothing here yet.") -> str:
    """Aligned columns under their heads; `empty` where there are no rows."""
    if not rows:
        return empty
    cells = [[_cell(v) for v in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def duration(seconds: float) -> str:
    """A time as a person says it: 45 s, 12 min, 3 h 20 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def state_line(studio: Studio, job: Job) -> str:
    """One line about a job now: stage, step of total, speed, time left."""
    parts = [job.title, job.stage or job.state]
    if job.total and job.state == "running":
        parts.append(f"{job.step:,} of {job.total:,}")
        if job.seconds_per_step:
            parts.append(f"{job.seconds_per_step:.2g} s/step")
        left = studio.jobs.eta_s(job)
        if left:
            parts.append(f"{duration(left)} left")
    return " · ".join(parts)


def run(studio: Studio, job: Job, *, quiet: bool) -> Job:
    """The job once it is done, its progress told on stderr meanwhile.

    Ctrl-C cancels the job and waits for it to leave; a second one leaves at once.
    Raises the job's own error, or Cancelled.
    """
    ended = threading.Event()
    teller = threading.Thread(target=_tell, args=(studio, job.id, ended, quiet), name="progress", daemon=True)
    teller.start()
    try:
        with _cancel_on_interrupt(studio, job.id):
            return studio.jobs.wait(job)
    finally:
        ended.set()
        teller.join()


def watch(studio: Studio, job_id: int, *, quiet: bool) -> Job:
    """The job once it ended, told as it goes; runs nothing and stops nothing."""
    ended = threading.Event()
    _tell(studio, job_id, ended, quiet, until_end=True)
    return studio.jobs.get(job_id)


def _tell(studio: Studio, job_id: int, ended: threading.Event, quiet: bool, until_end: bool = False) -> None:
    terminal = sys.stderr.isatty()
    told, stage, told_s = "", "", 0.0
    while True:
        job = studio.jobs.get(job_id)
        over = job.state in ("done", "failed", "cancelled")
        line = state_line(studio, job)
        now_s = time.monotonic()
        due = terminal or job.stage != stage or now_s - told_s > SECONDS_BETWEEN_LINES
        if not quiet and line != told and due and not over:
            print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
            told, stage, told_s = line, job.stage, now_s
        if ended.wait(SECONDS_BETWEEN_LOOKS) or (until_end and over):
            break
    if terminal and told:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextmanager
def _cancel_on_interrupt(studio: Studio, job_id: int) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("\nStopping; press Ctrl-C again to leave at once.", file=sys.stderr)
        # From a thread of its own: the interrupted code may hold the database.
        threading.Thread(target=studio.jobs.cancel, args=([job_id],), daemon=True).start()

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.4g}"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= WIDEST_CELL else text[: WIDEST_CELL - 1] + "…"
