"""The thread that copies files to the vault, and brings them back."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.errors import Damaged, MasukaError, StoreError
from masuka.store import snapshots
from masuka.store.connect import Store
from masuka.vault.asked import Asked
from masuka.vault.index import Kept
from masuka.vault.mirror import Mirror
from masuka.vault.places import Found, Places, Uses
from masuka.vault.saving import Saver
from masuka.vault.waiting import told

SOON_S, AGAIN_S, IDLE_S = 1.0, 30.0, 120.0
"""Until the next look: while somebody waits or a file is just being written, after trouble, else."""
FETCH_TIMEOUT_S, GLANCE_S = 20.0, 3.0
"""How long a file is waited for where it is needed, and where it is only shown."""
READY_TIMEOUT_S = 180.0
"""After that, jobs begin though files are missing; those that need one say so."""
INLINE_DELAY_S = 3.0
"""A command that is over by then does not read the vault's lists first."""
OLD_CHECKPOINT_S = 300.0
"""By then a save has been made, or the event about the checkpoint was deleted."""
LEAST_FREE_BYTES = 5 * 1024**3
"""With less free disk, files are brought back only when they are asked for."""

log = logging.getLogger("masuka.vault")


@dataclass(frozen=True)
class Figures:
    """How many files wait to be copied, their bytes, how many to be brought back."""

    files: int = 0
    bytes: int = 0
    missing: int = 0


class Copying:
    """Copies while `may_copy` says yes; brings back what is asked for at any time."""

    def __init__(self, store: Store, places: Places, saver: Saver, mirror: Mirror, may_copy: Callable[[], bool]) -> None:
        self._store, self._places, self._saver, self._mirror = store, places, saver, mirror
        self._may_copy = may_copy
        self._wake, self._stopping, self._ready = threading.Event(), threading.Event(), threading.Event()
        self._flushed = threading.Event()
        self._asked_s = 0.0
        self._thread = threading.Thread(target=self._run, name="vault-files", daemon=True)
        self._asked = Asked(self._fetch)
        self._verified = False
        self._tidied = ("", 0)
        self._delay_s = 0.0
        self.figures = Figures()
        self.why = ""

    def start(self, *, delay_s: float = 0.0) -> None:
        """Begins; what unfinished jobs of a restored workspace need comes first."""
        self._delay_s = 0.0 if self._saver.local.filling else delay_s
        self._thread.start()

    def wake(self) -> None:
        """Looks for new files now."""
        self._wake.set()

    @property
    def running(self) -> bool:
        """Whether it has not been told to leave."""
        return not self._stopping.is_set()

    def stop(self, timeout_s: float) -> None:
        """Leaves after the piece that is being copied."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def when_ready(self, act: Callable[[], None]) -> None:
        """Does it, in a thread of its own, once the files of unfinished jobs are here.

        A vault that does not answer in time holds them up no longer.
        """

        def wait() -> None:
            self._ready.wait(READY_TIMEOUT_S)
            if not self._stopping.is_set():
                act()

        threading.Thread(target=wait, name="vault-ready", daemon=True).start()

    def here(self, file: Path, *, patient: bool = True) -> bool:
        """Whether the file is there, brought back from the vault where it was not.

        Who is not `patient` gets an answer soon, and the file when it is asked for again.
        """
        if file.exists():
            return True
        timeout_s = FETCH_TIMEOUT_S if patient else GLANCE_S
        if self._saver.local.filling:
            self._asked.wait(self._mirror.loaded, timeout_s, patient=patient)
        path = self._places.path(file)
        kept = None if path is None else self._mirror.known().get(path)
        if kept is None:
            return False
        self._asked.wait(self._asked.bring(kept), timeout_s, patient=patient)
        return file.exists()

    def load(self) -> None:
        """Reads now which files the vault has; raises OSError."""
        if not self._mirror.loaded.is_set():
            self._mirror.load()

    def flush(self, *, timeout_s: float) -> None:
        """Returns once nothing is left to copy; raises StoreError after that time."""
        self._asked_s = time.monotonic()
        self._flushed.clear()
        self._wake.set()
        if not self._flushed.wait(timeout_s):
            raise StoreError(
                f"{self.figures.files} files are still on their way to the vault.",
                self.why or "They go on in the background; wait and try again.",
            )
        if self._mirror.refused:
            raise StoreError(_cannot(self._mirror.refused), "Everything else is in the vault; rename these.")

    def all_here(self, params: Iterable[Any]) -> None:
        """Brings back every kept file that the params name, or a folder of theirs holds."""
        paths = {p for text in _texts(params) if text.startswith("/") and (p := self._places.path(Path(text)))}
        for kept in self._mirror.needed(paths):
            if self._stopping.is_set():
                return
            self._fetch(kept)

    def _fetch(self, kept: Kept) -> None:
        try:
            self._mirror.fetch(kept, going=lambda: not self._stopping.is_set())
        except (Damaged, FileNotFoundError) as error:
            log.warning("%s is not to be had from the vault: %s", kept.path, error)
            self.why = f"{kept.path} is not whole in the vault."
        except (MasukaError, OSError) as error:
            log.warning("%s did not come from the vault: %s", kept.path, error)
            self.why = told(error)

    def _run(self) -> None:
        self._wake.wait(self._delay_s)
        while not self._stopping.is_set():
            more = False
            try:
                more = self._round()
                self.why = _cannot(self._mirror.refused)
            except (MasukaError, OSError) as error:
                log.warning("files wait for the vault: %s", error)
                self.why = told(error)
            except Exception:  # a bug must not end the keeping of files
                log.exception("copying to the vault failed")
                self.why = "Copying files failed in a way that it should not; the log has the details."
            if not more:
                self._wake.wait(self._pause_s())
                self._wake.clear()
        self._ready.set()

    def _pause_s(self) -> float:
        if self._mirror.unsettled or not self._flushed.is_set():
            return SOON_S
        return AGAIN_S if self.why or self._saver.local.filling else IDLE_S

    def _round(self) -> bool:
        """Whether there is more to do at once."""
        self.load()
        if not self._ready.is_set():
            if self._saver.local.filling:
                self.all_here(snapshots.unfinished_params(self._store))
            self._ready.set()
        if not self._may_copy():
            return False
        looked_s = time.monotonic()
        waiting = self._mirror.waiting(self._saved_already())
        self._count(waiting_files=len(waiting), waiting_bytes=sum(f.bytes for f in waiting))
        if waiting and self._mirror.copy(waiting, going=self._going):
            return True
        if not self._verified:
            self._verified = True
            return self._mirror.verify() > 0
        if all(found.path in self._mirror.refused for found in waiting) and not self._mirror.unsettled and looked_s >= self._asked_s:
            self._flushed.set()
        if self._saver.local.filling and self._fill():
            return True
        self._tidy()
        return False

    def _saved_already(self) -> Callable[[Found], bool]:
        """Whether the newest save knows of a checkpoint, and so of every step before it.

        A checkpoint that is newer than the save would leave a gap in a training's figures.
        """
        told = snapshots.checkpoints_until(self._store, self._saver.local.event)
        known = {path for text in told if (path := self._places.stored(text))}
        now_s = time.time()

        def may_go(found: Found) -> bool:
            old = now_s - found.changed_s > OLD_CHECKPOINT_S
            return found.checkpoint is None or old or found.path.rpartition("/")[0] in known

        return may_go

    def _fill(self) -> bool:
        """Whether a file was brought back, of those that a restored workspace lacks."""
        uses = Uses(snapshots.referred(self._store), self._places)
        absent = [kept for kept in self._mirror.absent() if uses(kept.path)]
        self._count(missing=len(absent))
        for kept in absent[:50]:
            if self._stopping.is_set() or self._wake.is_set():
                break
            target = self._places.local(kept.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(target.parent).free < LEAST_FREE_BYTES + kept.bytes:
                return False
            self._fetch(kept)
        left = [kept for kept in absent if not self._places.local(kept.path).exists()]
        self._count(missing=len(left))
        if not left:
            self._saver.local.filling = False
            self._saver.keep_notes()
        # What has not arrived in the vault yet, or is not whole there, is tried again later.
        return 0 < len(left) < len(absent)

    def _tidy(self) -> None:
        """After each save: what nothing refers to is noted, and goes with the last save that does."""
        local, oldest = self._saver.local, self._saver.oldest
        if (self._tidied == (local.last, oldest) and not self._mirror.unsure) or not local.last:
            return
        if self._saver.alone():
            self._mirror.load_purged()
            uses = Uses(snapshots.referred(self._store), self._places)
            # Where nothing changed since the save, that save does not refer to it either.
            same = snapshots.pulse(self._store, None).mark == local.mark
            self._mirror.retire(uses, local.generation if same else local.generation + 1)
            self._mirror.forget(oldest)
        self._tidied = (local.last, oldest)

    def _going(self) -> bool:
        return not self._stopping.is_set() and self._may_copy()

    def _count(
        self, *, waiting_files: int | None = None, waiting_bytes: int | None = None, missing: int | None = None
    ) -> None:
        now = self.figures
        self.figures = Figures(
            now.files if waiting_files is None else waiting_files,
            now.bytes if waiting_bytes is None else waiting_bytes,
            now.missing if missing is None else missing,
        )


def _cannot(refused: Mapping[str, str]) -> str:
    first = next(iter(refused), "")
    return f"{len(refused)} files cannot be copied to the vault, such as {first!r}: {refused[first]}" if refused else ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _texts(entry)
    elif isinstance(value, Iterable):
        for entry in value:
            yield from _texts(entry)
