"""What a set-up tells while it runs: one line a step, with the seconds since the start."""

from __future__ import annotations

import sys
import time

_started_s = time.monotonic()


def begin() -> None:
    """Starts the clock again: a notebook's kernel outlives the run of a cell."""
    global _started_s
    _started_s = time.monotonic()


def seconds() -> float:
    """Seconds since the start."""
    return time.monotonic() - _started_s


def say(text: str) -> None:
    """Prints one progress line with the seconds since the start."""
    sys.stdout.write(f"[{seconds():6.1f} s] {text}\n")
    sys.stdout.flush()
