"""Files in the vault: copied there a few at a time, brought back when they are needed."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from weakref import WeakValueDictionary

from masuka.errors import Damaged
from masuka.store.rows import now_at
from masuka.vault.confirm import SETTLED_S
from masuka.vault.disk import Disk
from masuka.vault.index import SEGMENTS_BEFORE_ONE, Index, Kept, stored_name
from masuka.vault.local import Local
from masuka.vault.moving import Going, Interrupted, always, file_hash, get, put
from masuka.vault.places import MANIFEST, Found, Places, checkpoint_of, manifest_says

BUDGET_BYTES = 256 * 1024 * 1024
"""What one round copies before it tells what it has; a larger file goes alone."""
CHECKPOINTS_KEPT = 2
UNFINISHED = re.compile(r"(.+)\.([0-9a-f]{8})\.part")
ABANDONED_S = 7 * 86_400.0
OF_ONE_FILE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EFBIG)
"""Errors that are about one file's name or size; after others the vault itself is doubted."""

log = logging.getLogger("masuka.vault")


def never() -> bool:
    """False: reading back proves nothing."""
    return False


class Mirror:
    """The kept files of one workspace, as they are in one vault.

    `load` and everything that copies touches the vault and may take long. What is known is
    read by other threads. `at_once` says whether what reads back has arrived.
    """

    def __init__(self, disk: Disk, places: Places, local: Local, *, at_once: Callable[[], bool] = never) -> None:
        self._disk, self._places, self._local = disk, places, local
        self._index = Index(disk)
        self._kept: dict[str, Kept] = {}
        self._paths: dict[str, Kept] = {}
        self._hashed: dict[str, tuple[int, float, str]] = {}
        self._lock = threading.Lock()
        self._at_once = at_once
        self._sent_s: dict[str, float] = {}
        self._loaded_s = time.monotonic()
        self._lost: set[str] = set()
        self._purged: dict[str, int] = {}
        self._fetching: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self.refused: dict[str, str] = {}
        """What could not be copied, and why."""
        self.unsure = False
        """Whether something stays until what replaces it is sure to have arrived."""
        self.loaded = threading.Event()
        self.unsettled = 0

    def load(self) -> None:
        """Reads which files the vault has for this line of saves."""
        purged = self._local.purged_branches
        # What only a purged branch had is known too, so that it goes with it.
        kept = self._index.read(self._local.runtime, {**purged, **self._local.chain})
        number = self._index.last_number(self._local.runtime)
        with self._lock:
            self._local.segments = max(self._local.segments, number)
            self._kept, self._purged = kept, purged
            self._sort()
            self.loaded.set()

    def verify(self) -> int:
        """How many kept files the vault has lost; those that are here are copied again."""
        with self._lock:
            kept = list(self._kept.values())
        sizes: dict[str, dict[str, int]] = {}
        lost = set()
        for entry in kept:
            folder, _, name = entry.stored.rpartition("/")
            if folder not in sizes:
                sizes[folder] = self._disk.sizes(folder)
            if sizes[folder].get(name) != entry.bytes:
                lost.add(entry.stored)
        if lost:
            log.warning("%s files that were kept are not in the vault any more", len(lost))
        self._lost = lost
        self._sweep(sizes, {entry.stored for entry in kept} - lost)
        return len(lost)

    def _sweep(self, sizes: dict[str, dict[str, int]], whole: Collection[str]) -> None:
        """Deletes copies that others began a week ago and never finished.

        One without a whole file beside it stays: a Drive may have lost its renaming.
        """
        for folder, names in sizes.items():
            for name in names:
                part = UNFINISHED.fullmatch(name)
                if part is None or part[2] == self._local.runtime or f"{folder}/{part[1]}" not in whole:
                    continue
                if time.time() - self._disk.changed_s(f"{folder}/{name}") > ABANDONED_S:
                    self._disk.discard(f"{folder}/{name}")

    def known(self) -> dict[str, Kept]:
        """Every path that the vault has, with what is kept of it."""
        with self._lock:
            return dict(self._paths)

    def waiting(self, may_go: Callable[[Found], bool] = lambda found: True) -> list[Found]:
        """The local files that the vault lacks and that may go, in their order."""
        with self._lock:
            paths = dict(self._paths)
        lacking = [f for f in self._places.scan() if not self._has(f, paths.get(f.path))]
        # A log that grows is kept when its job has ended; nobody waits for it.
        self.unsettled = sum(not f.settled and not f.path.startswith("jobs/") for f in lacking)
        return sorted((f for f in lacking if f.settled and may_go(f)), key=lambda f: f.order)

    def absent(self) -> list[Kept]:
        """Kept files that a restored workspace still lacks, small ones first.

        Checkpoints only for runs that have none: a training deletes its older ones itself.
        """
        missing = []
        for kept in self.known().values():
            file = self._places.local(kept.path)
            if not file.exists() and not (checkpoint_of(kept.path) and any(file.parent.parent.glob("step-*"))):
                missing.append(kept)
        return sorted(missing, key=lambda k: (checkpoint_of(k.path) is not None, k.bytes))

    def copy(self, waiting: Iterable[Found], *, budget_bytes: int = BUDGET_BYTES, going: Going = always) -> int:
        """How many files went to the vault now; the list of them is written by then.

        A file that cannot be copied is passed over and noted in `refused`.
        """
        self.refused = {}
        sent: list[Kept] = []
        spent = 0
        try:
            for found in waiting:
                if (sent and spent + found.bytes > budget_bytes) or not going():
                    break
                kept = self._try_one(found, going)
                if kept is not None:
                    sent.append(kept)
                    spent += found.bytes
        finally:
            if sent:
                self._tell(sent)
        return len(sent)

    def _try_one(self, found: Found, going: Going) -> Kept | None:
        try:
            return self._copy_one(found, going)
        except Interrupted:
            raise
        except (OSError, Damaged, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno not in OF_ONE_FILE:
                raise
            log.warning("%s cannot be copied to the vault: %s", found.path, error)
            self.refused[found.path] = str(error)
            return None

    def fetch(self, kept: Kept, *, going: Going = always) -> Path:
        """The file, back in its place; raises Damaged when the vault's copy is not whole."""
        target = self._places.local(kept.path)
        with self._lock:
            turn = self._fetching.setdefault(kept.path, _Turn())
        # Whoever else wants it waits for the one copy, and finds it there.
        with turn.lock:
            self._fetch(kept, target, going)
        return target

    def _fetch(self, kept: Kept, target: Path, going: Going) -> None:
        if not target.exists():
            get(self._disk, kept.stored, target, sha256=kept.sha256, going=going)
            # As old as it is: what was changed after it was kept would be copied again.
            at_s = datetime.fromisoformat(kept.at).timestamp() - 1
            os.utime(target, (at_s, at_s))

    def needed(self, paths: Iterable[str]) -> list[Kept]:
        """What the vault has of these files and of everything in these folders."""
        known = self.known()
        wanted = set(paths)
        return sorted(
            (k for p, k in known.items() if p in wanted or any(str(a) in wanted for a in PurePosixPath(p).parents)),
            key=lambda k: (k.path.endswith(f"/{MANIFEST}"), k.bytes),
        )

    def load_purged(self) -> None:
        """Reads the lists again where a purge has reached a branch since."""
        if self._purged != self._local.purged_branches:
            self.load()

    def retire(self, uses: Callable[[str], bool], generation: int) -> None:
        """Notes what no save from that number on needs; replaced checkpoints go at once."""
        old = self._old_checkpoints()
        with self._lock:
            changed = []
            for stored, kept in self._kept.items():
                current = self._paths.get(kept.path) is kept or (not kept.gone and kept.path not in self._paths)
                used = uses(kept.path) and current and stored not in old
                if used == bool(kept.gone):
                    changed.append(replace(kept, gone=0 if used else generation))
        if changed:
            self._tell(changed)
        self._delete([k for k in changed if k.stored in old])

    def forget(self, oldest: int) -> int:
        """How many files were deleted that no save needs from the oldest one on."""
        with self._lock:
            gone = [k for k in self._kept.values() if 0 < k.gone <= oldest]
        self._delete(gone)
        return len(gone)

    def _delete(self, gone: list[Kept]) -> None:
        if not gone:
            return
        for kept in gone:
            self._disk.discard(kept.stored)
        with self._lock:
            for kept in gone:
                self._kept.pop(kept.stored, None)
            self._sort()

    def _old_checkpoints(self) -> set[str]:
        """Stored names of checkpoints that newer whole ones of their run surely replace."""
        runs: dict[int, set[int]] = defaultdict(set)
        with self._lock:
            unsure = {at for k in self._kept.values() if (at := checkpoint_of(k.path)) and not self._sure(k)}
            self.unsure = bool(unsure)
            for path in self._paths:
                if (at := checkpoint_of(path)) and at not in unsure and path.endswith(f"/{MANIFEST}"):
                    runs[at[0]].add(at[1])
            oldest = {run: sorted(steps)[-CHECKPOINTS_KEPT:][0] for run, steps in runs.items()}
            return {
                k.stored for k in self._kept.values() if (at := checkpoint_of(k.path)) and at[1] < oldest.get(at[0], 0)
            }

    def _sure(self, kept: Kept) -> bool:
        """Whether the vault's copy has arrived, or has had the time to."""
        waited_s = time.monotonic() - self._sent_s.get(kept.stored, self._loaded_s)
        return kept.stored not in self._lost and (self._at_once() or waited_s >= SETTLED_S)

    def _has(self, found: Found, kept: Kept | None) -> bool:
        if kept is None or kept.bytes != found.bytes or kept.stored in self._lost:
            return False
        if found.changed_s < datetime.fromisoformat(kept.at).timestamp():
            return True
        return self._hash(found) == kept.sha256

    def _hash(self, found: Found) -> str:
        known = self._hashed.get(found.path)
        if known is None or known[:2] != (found.bytes, found.changed_s):
            known = self._hashed[found.path] = (found.bytes, found.changed_s, file_hash(found.file))
        return known[2]

    def _copy_one(self, found: Found, going: Going) -> Kept | None:
        """The file as it is kept now; None when it changed or went meanwhile."""
        try:
            sha256 = self._hash(found)
            promised = manifest_says(found.file) if found.checkpoint else None
            if promised is not None and promised != sha256:
                return None
            kept = Kept(found.path, stored_name(found.path, sha256), sha256, found.bytes, now_at())
            # A name that is no text cannot be told in a list, and would never come back.
            found.path.encode("utf-8")
            put(self._disk, found.file, kept.stored, sha256=sha256, mine=self._local.runtime, going=going)
            self._lost.discard(kept.stored)
            self._sent_s[kept.stored] = time.monotonic()
            after = found.file.stat()
        except FileNotFoundError:
            if found.file.exists():
                raise
            return None
        return kept if (after.st_size, after.st_mtime) == (found.bytes, found.changed_s) else None

    def _tell(self, entries: list[Kept]) -> None:
        with self._lock:
            for entry in entries:
                self._kept.pop(entry.stored, None)
                self._kept[entry.stored] = entry
            self._sort()
            self._local.segments += 1
            number = self._local.segments
            full = number % SEGMENTS_BEFORE_ONE == 0
            told = list(self._kept.values()) if full else entries
        self._index.write(
            told, runtime=self._local.runtime, number=number, generation=self._local.generation, full=full
        )

    def _sort(self) -> None:
        self._paths = {k.path: k for k in self._kept.values() if not k.gone}


class _Turn:
    """Whose turn it is to bring one file back."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
