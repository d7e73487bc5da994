"""Files in the vault: copied there a few at a time, brought back when they are needed."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from masuka.store.rows import now_at
from masuka.vault.disk import Disk
from masuka.vault.index import SEGMENTS_BEFORE_ONE, Index, Kept, stored_name
from masuka.vault.local import Local
from masuka.vault.moving import Going, always, file_hash, get, put
from masuka.vault.places import MANIFEST, Found, Places, checkpoint_of, manifest_says

BUDGET_BYTES = 256 * 1024 * 1024
"""What one round copies before it tells what it has; a larger file goes alone."""
CHECKPOINTS_KEPT = 2


class Mirror:
    """The kept files of one workspace, as they are in one vault.

    `load` and everything that copies touches the vault and may take long. What is known is
    read by other threads.
    """

    def __init__(self, disk: Disk, places: Places, local: Local) -> None:
        self._disk, self._places, self._local = disk, places, local
        self._index = Index(disk)
        self._kept: dict[str, Kept] = {}
        self._paths: dict[str, Kept] = {}
        self._hashed: dict[str, tuple[int, float, str]] = {}
        self._lock = threading.Lock()
        self.loaded = threading.Event()
        self.unsettled = 0

    def load(self) -> None:
        """Reads which files the vault has for this line of saves."""
        kept = self._index.read(self._local.runtime, self._local.chain)
        number = self._index.last_number(self._local.runtime)
        with self._lock:
            self._local.segments = max(self._local.segments, number)
            self._kept = kept
            self._sort()
            self.loaded.set()

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
        """How many files went to the vault now; the list of them is written by then."""
        sent: list[Kept] = []
        spent = 0
        try:
            for found in waiting:
                if (sent and spent + found.bytes > budget_bytes) or not going():
                    break
                kept = self._copy_one(found, going)
                if kept is not None:
                    sent.append(kept)
                    spent += found.bytes
        finally:
            if sent:
                self._tell(sent)
        return len(sent)

    def fetch(self, kept: Kept, *, going: Going = always) -> Path:
        """The file, back in its place; raises Damaged when the vault's copy is not whole."""
        target = self._places.local(kept.path)
        if not target.exists():
            get(self._disk, kept.stored, target, sha256=kept.sha256, going=going)
            # As old as it is: what was changed after it was kept would be copied again.
            at_s = datetime.fromisoformat(kept.at).timestamp() - 1
            os.utime(target, (at_s, at_s))
        return target

    def needed(self, paths: Iterable[str]) -> list[Kept]:
        """What the vault has of these files and of everything in these folders."""
        known = self.known()
        wanted = set(paths)
        return sorted(
            (k for p, k in known.items() if p in wanted or any(str(a) in wanted for a in PurePosixPath(p).parents)),
            key=lambda k: (k.path.endswith(f"/{MANIFEST}"), k.bytes),
        )

    def retire(self, uses: Callable[[str], bool], at: str) -> None:
        """Notes that from `at` on nothing needs a file; replaced checkpoints go at once."""
        old = self._old_checkpoints()
        with self._lock:
            changed = []
            for stored, kept in self._kept.items():
                current = self._paths.get(kept.path) is kept or (not kept.gone_at and kept.path not in self._paths)
                used = uses(kept.path) and current and stored not in old
                if used == bool(kept.gone_at):
                    changed.append(replace(kept, gone_at="" if used else at))
        if changed:
            self._tell(changed)
        self._delete([k for k in changed if k.stored in old])

    def forget(self, oldest_at: str) -> int:
        """How many files were deleted that no save has needed since the oldest one."""
        with self._lock:
            gone = [k for k in self._kept.values() if k.gone_at and k.gone_at <= oldest_at]
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
        """Stored names of checkpoints that newer whole ones of their run replace."""
        runs: dict[int, set[int]] = defaultdict(set)
        with self._lock:
            for path in self._paths:
                if (at := checkpoint_of(path)) and path.endswith(f"/{MANIFEST}"):
                    runs[at[0]].add(at[1])
            oldest = {run: sorted(steps)[-CHECKPOINTS_KEPT:][0] for run, steps in runs.items()}
            return {
                k.stored for k in self._kept.values() if (at := checkpoint_of(k.path)) and at[1] < oldest.get(at[0], 0)
            }

    def _has(self, found: Found, kept: Kept | None) -> bool:
        if kept is None or kept.bytes != found.bytes:
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
            put(self._disk, found.file, kept.stored, sha256=sha256, mine=self._local.runtime, going=going)
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
        self._paths = {k.path: k for k in self._kept.values() if not k.gone_at}
