"""What a worker tells the outside world, one numbered JSON line an event.

The events file is the only thing a worker writes about its job; it knows no database.
Large things (pictures, weights) are files; an event names them by path.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from masuka.errors import MasukaError, Stop

SECONDS_BETWEEN_PROGRESS = 0.2


class Reporter(Protocol):
    """How a job's code reports; the same for a worker process, a notebook cell and a test."""

    scratch: Path
    """A folder of this attempt alone; it is deleted when the job ends, whatever the end."""

    def stage(self, name: str) -> None:
        """A new stage begins, for example 'Caching captions'."""

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        """`step` of `total` of the present stage is done; sent at most five times a second."""

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        """Figures of one training step: loss, learning_rate, seconds_per_step, …"""

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        """A file that the job made and that stays: sample, checkpoint, item, adapter, picture."""

    def note(self, text: str) -> None:
        """One line for the person, kept in the job's log."""

    def check(self) -> None:
        """Raises Stop when somebody asked to cancel or pause; cheap, call it often."""


class EventFile:
    """A Reporter that appends to `<folder>/<fence>.jsonl`; `stop_reason` is asked by `check`."""

    def __init__(
        self, path: Path, scratch: Path, stop_reason: Callable[[], str | None] = lambda: None
    ) -> None:
        self.scratch = scratch
        self.scratch.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._number = 0
        self._stop_reason = stop_reason
        self._last_progress_s = 0.0

    def close(self) -> None:
        self._file.close()

    def send(self, type: str, **data: Any) -> None:
        """Appends one event; the line is complete on disk order before this returns."""
        self._number += 1
        event = {"n": self._number, "at": datetime.now(UTC).isoformat(), "type": type, **data}
        os.write(self._file.fileno(), json.dumps(event, default=str).encode() + b"\n")

    def stage(self, name: str) -> None:
        self._last_progress_s = 0.0
        self.send("stage", name=name)

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        now = time.monotonic()
        if step < total and now - self._last_progress_s < SECONDS_BETWEEN_PROGRESS:
            return
        self._last_progress_s = now
        self.send("progress", step=step, total=total, seconds_per_step=seconds_per_step)

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        self.send("metric", step=step, epoch=epoch, values=values)

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        self.send("artefact", kind=kind, path=str(path), about=about)

    def note(self, text: str) -> None:
        self.send("note", text=text)

    def check(self) -> None:
        why = self._stop_reason()
        if why:
            raise Stop(why)

    def done(self, result: dict[str, Any]) -> None:
        """The job ended well; the last event of its file."""
        self.send("done", result=result)

    def failed(self, error: MasukaError, *, reference: str = "") -> None:
        """The job ended badly; the last event of its file."""
        self.send("failed", error={**error.as_dict(), "reference": reference})

    def stopped(self, why: str) -> None:
        """The job left because it was asked to; the last event of its file."""
        self.send("stopped", why=why)
