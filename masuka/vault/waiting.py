"""Waiting for a folder that may never answer, and wishes that its keeper has still to meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from masuka.errors import MasukaError, StoreError

ResultT = TypeVar("ResultT")


@dataclass
class Wish:
    """A save that somebody waits for: `done` has its key, or what went wrong."""

    merged: dict[str, int] = field(default_factory=dict)
    done: Future[str] = field(default_factory=Future)


class Wishes:
    """Those that nobody has taken yet; any thread adds, the keeper's takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Wish] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, wish: Wish) -> None:
        """One more."""
        with self._lock:
            self._waiting.append(wish)

    def take(self) -> list[Wish]:
        """All of them; they are the caller's to meet."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken


def refuse(wishes: list[Wish], error: Exception) -> None:
    """Tells whoever waits for them what went wrong."""
    known = error if isinstance(error, MasukaError) else StoreError(told(error), "The save is tried again.")
    for wish in wishes:
        wish.done.set_exception(known)


def within(act: Callable[[], ResultT], seconds: float, folder: Path) -> ResultT:
    """What `act` gives back, from a thread that is left behind when it takes too long.

    A mounted folder that hangs cannot be interrupted. Raises StoreError then.
    """
    results: list[ResultT] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(act())
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            errors.append(error)

    thread = threading.Thread(target=run, name="vault-waiting", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise StoreError(f"{folder} has not answered for {seconds:.0f} seconds.", "Check that it is mounted.")
    return results[0]


def told(error: Exception) -> str:
    """The error as a sentence; an OSError names no path of a rented machine's mount."""
    if isinstance(error, MasukaError):
        return str(error)
    return f"{getattr(error, 'strerror', None) or error}."
