"""One save of the database into the vault, and what is tidied up after it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import masuka
from masuka.config import Workspace
from masuka.errors import ExternalError, StoreError
from masuka.store.rows import now_at
from masuka.store.snapshots import Snapshot, write_snapshot
from masuka.vault.confirm import SETTLED_S, Confirm, Sent, checksum
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, Head, purgeable, superfluous, tips
from masuka.vault.local import Local, Written, folder_of, join
from masuka.vault.moving import file_hash
from masuka.vault.places import Places

log = logging.getLogger("masuka.vault")


class Saver:
    """Makes saves of one database in one vault. One thread of one process uses it."""

    def __init__(self, database: Path, workspace: Workspace, disk: Disk, local: Local, confirm: Confirm) -> None:
        self._database, self._workspace = database, workspace
        self._disk, self.local, self.confirm = disk, local, confirm
        self._places = Places(workspace)
        self.generations = Generations(disk)
        self.branches: list[Head] = []
        self.oldest = 0
        self._began_s = time.monotonic()
        self._written_s: dict[int, float] = {}

    def save(self, *, merged: dict[str, int] | None = None, purge: bool = False) -> Head:
        """The save that was written and reads back; `confirm_written` says if it arrived.

        `merged` are branches that a person set aside; with `purge`, older saves of its
        line go once it has arrived. Raises OSError, StoreError.
        """
        copy = self._copy()
        try:
            snapshot = write_snapshot(self._database, copy)
            heads = self._heads()
            self._recognise(heads)
            # What a person prefers to the others is no longer second to them.
            self.local.rootless = (self.local.rootless or (self.local.blank and bool(heads))) and not merged
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
        self._written_s[head.generation] = time.monotonic()
        self.local.unconfirmed = [*self.local.unconfirmed, Written(head.generation, head.created_at, sent)]
        self._adopt(head)
        self.branches = tips([head, *(h for h in heads if h.key != head.key)])
        return head

    def look(self) -> None:
        """Reads which branches there are."""
        self.branches = tips(self._heads())

    def recover(self, mark: str) -> None:
        """Finds out who this is, where the notes are lost: whose save equals the database."""
        if not self.local.blank or not any(h.mark == mark for h in self.branches):
            return
        copy = self._copy()
        try:
            write_snapshot(self._database, copy)
            sha256 = file_hash(copy)
        finally:
            copy.unlink(missing_ok=True)
        mine = next((h for h in self.branches if h.sha256 == sha256), None)
        if mine is not None:
            log.warning("this workspace had lost its notes; it goes on from its save %s", mine.key)
            self.local.follow(mine, sure=self.confirm.at_once)
            self.local.mark = mine.mark
            self.local.save(self._workspace)

    def confirm_written(self) -> bool:
        """Whether a save is sure now that was not; a later one vouches for earlier ones.

        Where nobody can tell, a save counts as sure for what is deleted after it, and for
        nothing else, once it has had time to arrive.
        """
        local, before, can_tell = self.local, self.local.sure, self.confirm.can_tell
        for written in reversed(local.unconfirmed):
            arrived = False
            try:
                arrived = can_tell and self.confirm.arrived(written.sent)
            except ExternalError as error:
                # It stays "not yet confirmed", which is what is shown, and is asked again.
                log.info("the save is not confirmed: %s", error)
                can_tell = False
            if arrived:
                local.confirmed, local.confirmed_at = written.generation, written.created_at
            waited_s = time.monotonic() - self._written_s.get(written.generation, self._began_s)
            if arrived or (not can_tell and waited_s >= SETTLED_S):
                local.sure = max(local.sure, written.generation)
                break
        newest = local.unconfirmed[-1:] if local.confirmed < local.written else []
        local.unconfirmed = [w for w in local.unconfirmed if w.generation > local.sure or w in newest]
        if local.sure > before or local.confirmed == local.written:
            local.save(self._workspace)
        return local.sure > before

    def tidy(self) -> None:
        """Deletes the saves of this line that rotation or a purge no longer keeps.

        Until a newer one is sure, the newest sure one and all after it stay.
        """
        heads = self._heads()
        mine = next((h for h in heads if h.key == self.local.last), None)
        if mine is None:
            return
        self.branches = tips(heads)
        line = [h for h in heads if h.key == mine.key or mine.descends(h)]
        sure = [h for h in line if h.generation <= self.local.sure]
        protected = {h.key for h in line if h not in sure} | {h.key for h in sure[:1]}
        gone = {h.key: h for h in superfluous(heads, mine, protected=protected)}
        if mine.purged and any(h.generation >= mine.purged for h in sure):
            gone.update({h.key: h for h in purgeable(heads, mine)})
        self.local.leavings = sorted({*self.local.leavings, *gone})
        if self.local.leavings:
            self.local.save(self._workspace)
            self.generations.discard(self.local.leavings)
            self.local.own = [key for key in self.local.own if key not in self.local.leavings]
            self.local.kin = [key for key in self.local.kin if key not in self.local.leavings]
            self.local.leavings = []
            self.local.save(self._workspace)
        self.oldest = min((h.generation for h in line if h.key not in gone), default=0)

    def keep_notes(self) -> None:
        """Writes what this workspace knows about its vault."""
        self.local.save(self._workspace)

    def alone(self) -> bool:
        """Whether no other branch may still need what this one has no use for."""
        return len(self.branches) <= 1

    def _copy(self) -> Path:
        copy = folder_of(self._workspace) / f"saving-{os.getpid()}.db"
        copy.parent.mkdir(parents=True, exist_ok=True)
        return copy

    def _heads(self) -> list[Head]:
        """Every save; raises StoreError where there was a vault and is an empty folder."""
        heads = self.generations.heads()
        if not heads and not self.local.blank:
            raise StoreError(
                f"The vault at {self._disk.root} is empty, and was not.",
                f"Mount it. If you emptied it yourself, delete {folder_of(self._workspace)}.",
            )
        return heads

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
            merged=join(local.merged, merged),
            purged=number if purge else local.purged,
            mark=snapshot.mark,
            schema=snapshot.schema,
            masuka=masuka.__version__,
            places=self._places.folders(),
            kin=tuple(local.kin),
            rootless=local.rootless,
        )

    def _adopt(self, head: Head) -> None:
        """Notes that this is our newest save now."""
        local = self.local
        local.last, local.last_sha256, local.generation = head.key, head.sha256, head.generation
        local.own = [*local.own, head.key]
        local.intended, local.intended_sha256 = "", ""
        # A save that failed and was made again has the same name.
        local.leavings = [key for key in local.leavings if key != head.key]
        local.merged, local.purged, local.mark = dict(head.merged), head.purged, head.mark
        local.written, local.written_at = head.generation, head.created_at
        local.save(self._workspace)

    def _recognise(self, heads: list[Head]) -> None:
        """Takes a new identity where somebody else saves under ours: a copied workspace."""
        local = self.local
        known = {*local.own, *local.leavings}
        strange = [h for h in heads if h.runtime == local.runtime and h.key not in known]
        for head in strange:
            if head.key == local.intended:
                self._adopt(head)
        shared_from = min((h.generation for h in strange if h.key not in local.own), default=0)
        if shared_from:
            log.warning("somebody else saves to the vault as %s; going on as another branch", local.runtime)
            local.begin_again(shared_from=shared_from)
            local.save(self._workspace)
