"""What a worker tells the outside world, one numbered JSON line an event.

The events file is the only thing a worker writes about its job; it knows no database.
Large things (pictures, weights) are files; an event names them by path.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from masuka.errors import MasukaError, Stop
from masuka.jobs.files import stop_reason

SECONDS_BETWEEN_PROGRESS = 0.2
SECONDS_BETWEEN_CHECKS = 0.05
CACHES = "caches"
"""The folder in a run's folder that the next attempt can make again; checkpoints stay."""
LATENTS = "latents"
"""Within caches: what was made of pictures, each file named after its picture first."""
NAME_OF_PICTURE = 16
"""So many letters of its SHA-256."""
PARTIAL = ".partial"
"""Ends the name of an output folder that is still being written."""


class Reporter(Protocol):
    """How a job's code reports, in a worker, a notebook cell and a test alike."""

    scratch: Path
    """A folder of this attempt alone; it is deleted when the job ends, whatever the end."""

    def stage(self, name: str) -> None:
        """A new stage begins, for example 'Caching captions'."""

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        """`step` of `total` of the stage is done; sent at most five times a second.

        Without `seconds_per_step` the mean since the stage's first report is told.
        """

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        """Figures of one training step: loss, learning_rate, seconds_per_step, …"""

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        """A file that stays: sample, checkpoint, item, adapter, picture."""

    def tell(self, noun: str, **about: Any) -> None:
        """What was found out about rows: scores, faces, findings, caption, cut_out."""

    def note(self, text: str) -> None:
        """One line for the person, kept in the job's log."""

    def check(self) -> None:
        """Raises Stop when somebody asked to cancel or pause; cheap, call it often."""


class StopFlag:
    """Why to stop, None while nobody asked; looks at most every 50 ms."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._looked_s = float("-inf")

    def __call__(self) -> str | None:
        now_s = time.monotonic()
        if now_s - self._looked_s < SECONDS_BETWEEN_CHECKS:
            return None
        self._looked_s = now_s
        return stop_reason(self._file)


class EventFile:
    """A Reporter that appends to `<folder>/<fence>.jsonl`; `check` asks `stop_reason`.

    Any thread of the job may report. `on_event` sees each event after it was written.
    """

    def __init__(
        self,
        path: Path,
        scratch: Path,
        stop_reason: Callable[[], str | None] = lambda: None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self.scratch = scratch
        self.scratch.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.RLock()
        self._number = 0
        self._torn = False
        self._stop_reason = stop_reason
        self._on_event = on_event
        self._last_progress_s = float("-inf")
        self._first: tuple[int, int, float] | None = None

    def close(self) -> None:
        self._file.close()

    def send(self, type: str, **data: Any) -> None:
        """Appends one event; whoever reads the file sees the whole line once this returns."""
        with self._lock:
            event = {"n": self._number + 1, "at": datetime.now(UTC).isoformat(), "type": type, **data}
            line = json.dumps(event, default=str).encode() + b"\n"
            # After half a line (a full disk) the next one must not be glued to it.
            self._write(b"\n" + line if self._torn else line)
            self._number += 1
        self._on_event(event)

    def stage(self, name: str) -> None:
        self._last_progress_s = float("-inf")
        self._first = None
        self.send("stage", name=name)

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        now_s = time.monotonic()
        if self._first is None or self._first[1] != total or step < self._first[0]:
            self._first = (step, total, now_s)
        if step < total and now_s - self._last_progress_s < SECONDS_BETWEEN_PROGRESS:
            return
        self._last_progress_s = now_s
        first_step, _, first_s = self._first
        if seconds_per_step is None and step > first_step:
            seconds_per_step = (now_s - first_s) / (step - first_step)
        self.send("progress", step=step, total=total, seconds_per_step=seconds_per_step)

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        self.send("metric", step=step, epoch=epoch, values=values)

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        self.send("artefact", kind=kind, path=str(path), about=about)

    def tell(self, noun: str, **about: Any) -> None:
        self.send("told", noun=noun, about=about)

    def note(self, text: str) -> None:
        self.send("note", text=text)

    def check(self) -> None:
        why = self._stop_reason()
        if why:
            raise Stop(why)

    def started(self) -> None:
        """The job's code begins; the first event of its file."""
        self.send("started")

    def done(self, result: dict[str, Any]) -> None:
        """The job ended well; the last event of its file."""
        self._last("done", result=result)

    def failed(self, error: MasukaError, *, reference: str = "", leaving: bool = False) -> None:
        """The job ended badly; its last event. `leaving`: the process ends too."""
        self._last("failed", error={**error.as_dict(), "reference": reference}, leaving=leaving)

    def stopped(self, why: str) -> None:
        """The job left because it was asked to; the last event of its file."""
        self._last("stopped", why=why)

    def _last(self, type: str, **data: Any) -> None:
        self.send(type, **data)
        os.fsync(self._file.fileno())

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file.fileno(), data[written:])
            self._torn = False
        except OSError:
            self._torn = self._torn or written > 0
            raise
