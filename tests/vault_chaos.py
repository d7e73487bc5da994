"""Saving to a Drive that misbehaves, with machines that are lost: what was confirmed stays."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from masuka.config import Settings, Workspace
from masuka.errors import MasukaError
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store
from masuka.vault.local import Local
from masuka.vault.restoring import before_opening
from masuka.vault.saving import Saver
from tests.fake_drive import Asked, Cloud, FakeDrive

OWNER = Actor(user_id=1)


class Chaos:
    """One cloud, and one machine after the other that saves to it.

    Every edit adds one character, and its number is the state: a save holds all below it.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self.chance = folder, random.Random(seed)
        self.cloud = Cloud()
        self.edits = self.machines = self.operations = 0
        self.confirmed = -1
        self._saved: dict[str, int] = {}
        self._begin()

    def edit(self) -> None:
        """One more character."""
        self.operations += 1
        characters.add_character(self.store, actor=OWNER, name=f"{self.edits:06d}", trigger_word="abc")
        self.edits += 1

    def save(self) -> None:
        """A save; that it fails is part of it."""
        self.operations += 1
        try:
            head = self.saver.save()
            self._saved[head.created_at] = self.edits
            self.saver.tidy()
        except (OSError, MasukaError):
            return
        finally:
            self._confirm()

    def upload(self, count: int) -> None:
        """Some of what waits arrives."""
        self.operations += 1
        self.drive.upload(count)
        self._confirm()

    def behave(self, trouble: float, lost_renames: float, cut_short: float, hidden: float) -> None:
        """How the Drive is from now on, each from 0 to 1."""
        self.drive.trouble, self.drive.lost_renames = trouble, lost_renames
        self.drive.cut_short, self.drive.hidden = cut_short, hidden

    def lose(self) -> None:
        """The machine is gone, with what was not uploaded; another one takes over."""
        self.operations += 1
        self.store.close()
        shutil.rmtree(self.workspace.root)
        shutil.rmtree(self.drive.root)
        before = self.confirmed
        self._begin()
        found = {c.name for c in characters.list_characters(self.store, actor=OWNER)}
        # All edits up to one of them, no fewer than were confirmed.
        assert found == {f"{n:06d}" for n in range(len(found))}
        assert len(found) >= before, f"{len(found)} of {before} confirmed edits came back"
        self.edits = len(found)
        self.confirmed = min(self.confirmed, self.edits)

    def close(self) -> None:
        self.store.close()

    def _begin(self) -> None:
        self.machines += 1
        name = f"machine-{self.machines}"
        self.drive = FakeDrive(self._folder / f"{name}-drive", self.cloud, self.chance)
        self.workspace = Workspace(root=self._folder / name).create()
        settings = Settings(workspace=self.workspace, vault=self.drive.root, device="cpu")
        before_opening(settings, disk=self.drive)
        self.store = Store.open(self.workspace)
        local = Local.load(self.workspace, self.drive.root)
        self.saver = Saver(self.store.path, self.workspace, self.drive, local, Asked(self.cloud))

    def _confirm(self) -> None:
        self.saver.confirm_written()
        at = self.saver.local.confirmed_at
        self.confirmed = max(self.confirmed, self._saved.get(at, -1))
