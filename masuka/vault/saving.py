"""One save of the database into the vault, and what is tidied up after it."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import masuka
from masuka.config import Workspace
from masuka.store.rows import now_at
from masuka.store.snapshots import Snapshot, write_snapshot
from masuka.vault.confirm import Confirm, Sent, checksum
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, Head, purgeable, superfluous, tips
from masuka.vault.local import Local, folder_of
from masuka.vault.moving import file_hash
from masuka.vault.places import Places

SETTLED_S = 600.0
"""How long a mounted Drive may need to upload a save that nobody can ask about."""

log = logging.getLogger("masuka.vault")


@dataclass(frozen=True)
class Written:
    """A save that reads back whole, with what proves that it has arrived."""

    head: Head
    sent: tuple[Sent, ...]
    written_s: float


class Saver:
    """Makes saves of one database in one vault. One thread of one process uses it."""

    def __init__(self, database: Path, workspace: Workspace, disk: Disk, local: Local, confirm: Confirm) -> None:
        self._database, self._workspace = database, workspace
        self._disk, self.local, self.confirm = disk, local, confirm
        self._places = Places(workspace)
        self.generations = Generations(disk)
        self.branches: list[Head] = []
        self.oldest_at = ""
        self._sure_at = local.confirmed_at
        self._unconfirmed: list[Written] = []

    def save(self, *, merged: dict[str, int] | None = None, purge: bool = False) -> Head:
        """The save that was written and reads back; `confirm_written` says if it arrived.

        `merged` are branches that a person set aside; with `purge`, older saves of its
        line go once it has arrived. Raises OSError, StoreError.
        """
        copy = folder_of(self._workspace) / f"saving-{os.getpid()}.db"
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            snapshot = write_snapshot(self._database, copy)
            heads = self.generations.heads()
            self._recognise(heads)
            head = self._head(copy, snapshot, heads, merged or {}, purge)
            # A kill between the manifest and our own note must not look like a second writer.
            if self.local.intended:
                self.local.leavings.append(self.local.intended)
            self.local.intended, self.local.intended_sha256 = head.key, head.sha256
            self.local.save(self._workspace)
            self.generations.publish(copy, head)
            self.local.event = snapshot.event
            with copy.open("rb") as file:
                database_md5 = checksum(iter(lambda: file.read(1 << 20), b""))
        finally:
            copy.unlink(missing_ok=True)
        manifest_md5 = checksum([head.as_text()])
        sent = tuple(
            Sent(path.rpartition("/")[2], md5)
            for path, md5 in ((head.db_path, database_md5), (head.head_path, manifest_md5))
        )
        self._unconfirmed.append(Written(head, sent, time.monotonic()))
        self._adopt(head)
        self.branches = tips([head, *(h for h in heads if h.key != head.key)])
        return head

    def look(self) -> None:
        """Reads which branches there are."""
        self.branches = tips(self.generations.heads())

    def confirm_written(self) -> bool:
        """Whether a save is sure now that was not; a later one vouches for earlier ones.

        Where nobody can tell, a save counts as sure for what is deleted after it, and for
        nothing else, once it has had time to arrive.
        """
        before = self._sure_at
        for written in reversed(self._unconfirmed):
            if self.confirm.arrived(written.sent):
                self.local.confirmed_at = max(self.local.confirmed_at, written.head.created_at)
                self._sure_at = max(self._sure_at, written.head.created_at)
                self.local.save(self._workspace)
                break
            if not self.confirm.can_tell and time.monotonic() - written.written_s >= SETTLED_S:
                self._sure_at = max(self._sure_at, written.head.created_at)
                break
        self._unconfirmed = [w for w in self._unconfirmed if w.head.created_at > self._sure_at]
        return self._sure_at > before

    def tidy(self) -> None:
        """Deletes the saves of this line that rotation or a purge no longer keeps.

        Until a newer one is sure, the newest sure one and all after it stay.
        """
        heads = self.generations.heads()
        mine = next((h for h in heads if h.key == self.local.last), None)
        if mine is None:
            return
        self.branches = tips(heads)
        line = [h for h in heads if h.key == mine.key or mine.descends(h)]
        sure = [h for h in line if h.created_at <= self._sure_at]
        protected = {h.key for h in line if h not in sure} | {h.key for h in sure[:1]}
        gone = {h.key: h for h in superfluous(heads, mine, protected=protected)}
        if mine.purged and any(h.generation >= mine.purged for h in sure):
            gone.update({h.key: h for h in purgeable(heads, mine)})
        self.local.leavings = sorted({*self.local.leavings, *gone})
        if self.local.leavings:
            self.local.save(self._workspace)
            self.generations.discard(self.local.leavings)
            self.local.leavings = []
            self.local.save(self._workspace)
        self.oldest_at = min((h.created_at for h in line if h.key not in gone), default="")

    def keep_notes(self) -> None:
        """Writes what this workspace knows about its vault."""
        self.local.save(self._workspace)

    def alone(self) -> bool:
        """Whether no other branch may still need what this one has no use for."""
        return len(self.branches) <= 1

    def _head(
        self, copy: Path, snapshot: Snapshot, heads: list[Head], merged: dict[str, int], purge: bool
    ) -> Head:
        local = self.local
        # Our own numbers too: a Drive may hide for a while what we saved last.
        known = [h.generation for h in heads] + [local.generation, *local.chain.values()]
        number = 1 + max(known)
        return Head(
            generation=number,
            runtime=local.runtime,
            sha256=file_hash(copy),
            size_bytes=copy.stat().st_size,
            created_at=now_at(),
            parent=local.last_sha256,
            chain=dict(local.chain),
            merged={**local.merged, **merged},
            purged=number if purge else local.purged,
            mark=snapshot.mark,
            schema=snapshot.schema,
            masuka=masuka.__version__,
            places=self._places.folders(),
        )

    def _adopt(self, head: Head) -> None:
        """Notes that this is our newest save now."""
        local = self.local
        local.last, local.last_sha256, local.generation = head.key, head.sha256, head.generation
        local.intended, local.intended_sha256 = "", ""
        # A save that failed and was made again has the same name.
        local.leavings = [key for key in local.leavings if key != head.key]
        local.merged, local.purged, local.mark = dict(head.merged), head.purged, head.mark
        local.written_at = head.created_at
        local.save(self._workspace)

    def _recognise(self, heads: list[Head]) -> None:
        """Takes a new identity where somebody else saves under ours: a copied workspace."""
        local = self.local
        mine = [h for h in heads if h.runtime == local.runtime and h.generation > local.generation]
        if not mine:
            return
        if len(mine) == 1 and mine[0].key == local.intended:
            self._adopt(mine[0])
            return
        log.warning("somebody else saves to the vault as %s; going on as another branch", local.runtime)
        local.begin_again()
        local.save(self._workspace)
