"""A workspace that lost its database gets it back from the vault, whole, or an older one."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from masuka.config import Settings, Workspace
from masuka.errors import Damaged, InvalidInput, MasukaError, NotFound, SchemaTooNew, StoreError
from masuka.store.migrations import MIGRATIONS, names_of, runner
from masuka.store.opening import database_file
from masuka.store.snapshots import settle
from masuka.vault.confirm import on_local_disk
from masuka.vault.disk import Disk
from masuka.vault.generations import Generations, Head, tips
from masuka.vault.local import Local, folder_of, join
from masuka.vault.places import Places
from masuka.vault.waiting import told, within

PATIENCE_S = 120.0
"""How long a start waits for the vault to answer before it says so and goes on without."""

log = logging.getLogger("masuka.vault")


@dataclass(frozen=True)
class Restored:
    """What came back; `passed_over` are newer saves that were not whole."""

    head: Head
    passed_over: tuple[Head, ...] = ()
    forks: int = 0
    replaced: Path | None = None

    @property
    def sentence(self) -> str:
        """What the person is told at the start."""
        text = f"Restored from the vault: the save of {self.head.created_at[:16].replace('T', ' ')} UTC."
        if self.passed_over:
            text += f" {len(self.passed_over)} newer ones were not whole there."
        if self.forks > 1:
            text += f" The vault holds {self.forks} branches; see Settings, Vault."
        return text


@dataclass
class Opening:
    """What a start did with the vault, and what it has to say about it."""

    restored: Restored | None = None
    fresh: bool = False
    """There was no database here and none came back."""
    notices: list[str] = field(default_factory=list)


def before_opening(settings: Settings, *, disk: Disk | None = None, patience_s: float = PATIENCE_S) -> Opening:
    """Restores where there is no database but a vault, or where a save was chosen.

    A vault that does not answer is said so, and the start goes on. Raises SchemaTooNew
    when the newest save was made by a newer MASUKA.
    """
    opening = Opening(fresh=not database_file(settings.workspace).exists())
    if settings.vault is None:
        return opening
    workspace, disk = settings.workspace, disk or Disk(settings.vault)
    vault = settings.vault
    try:
        within(lambda: refuse_inside(workspace, vault), patience_s, vault)
    except StoreError as error:
        opening.notices.append(str(error))
        return opening
    local = Local.load(workspace, settings.vault)
    database = database_file(workspace)
    if database.exists() and not local.chosen:
        return opening
    try:
        opening.restored = restore(workspace, disk, local, wanted=local.chosen, patience_s=patience_s)
    except NotFound as error:
        if local.chosen:
            opening.notices.append(str(error))
        return opening
    except SchemaTooNew:
        raise
    except (MasukaError, OSError) as error:
        opening.notices.append(f"Nothing came back from the vault at {disk.root}: {told(error)}")
        return opening
    opening.fresh = False
    opening.notices.append(opening.restored.sentence)
    return opening


def restore(
    workspace: Workspace, disk: Disk, local: Local, *, wanted: str = "", patience_s: float = PATIENCE_S
) -> Restored:
    """The save in the database's place; what was there is kept among the backups.

    The newest that is whole, or the one with the key `wanted` and no other. Raises
    NotFound where there is none, Damaged where none is whole, Locked while the database
    is open, SchemaTooNew.
    """
    copy = folder_of(workspace) / f"restoring-{os.getpid()}.db"
    try:
        fetched = within(lambda: _fetch(disk, copy, wanted), patience_s, disk.root)
        replaced = _take(workspace, local, fetched, copy, set_aside=bool(wanted), sure=on_local_disk(disk.root))
    finally:
        for left in copy.parent.glob(f"{copy.name}*"):
            left.unlink()
    return Restored(fetched.head, fetched.passed, len(fetched.branches), replaced)


@dataclass(frozen=True)
class _Fetched:
    head: Head
    passed: tuple[Head, ...]
    branches: tuple[Head, ...]


def _fetch(disk: Disk, copy: Path, wanted: str) -> _Fetched:
    """The newest whole save, its database at `copy`; the newest branch goes first."""
    if not disk.there():
        raise StoreError(f"There is no folder {disk.root}.", "Mount it, or correct MASUKA_VAULT.")
    saves = Generations(disk)
    heads = saves.heads()
    if not heads:
        raise NotFound("The vault holds no save yet.", "The first one is made after the first change.")
    branches = tips(heads)
    ordered = branches + [h for h in heads if h not in branches]
    ordered.sort(key=lambda h: h.rootless)
    candidates = [h for h in ordered if h.key == wanted] if wanted else ordered
    if not candidates:
        raise NotFound(f"The vault holds no save {wanted}.", "See: masuka vault branches")
    passed: list[Head] = []
    for head in candidates:
        refuse_newer(head)
        try:
            saves.fetch(head, copy)
            if runner.check(copy).whole:
                return _Fetched(head, tuple(passed), tuple(branches))
        except (Damaged, FileNotFoundError) as error:
            log.warning("the save %s was passed over: %s", head.key, error)
        passed.append(head)
    raise Damaged("No save in the vault is whole.", "If files are still arriving there, wait and start again.")


def _take(
    workspace: Workspace, local: Local, fetched: _Fetched, copy: Path, *, set_aside: bool, sure: bool
) -> Path | None:
    """Puts the copy in the database's place; notes from then on whose line this is.

    Where there was no database the note comes first: a kill in between only means that it
    is restored again. Where there was one it comes last, or the old one would pass for the new.
    """
    head, database = fetched.head, database_file(workspace)
    settle(copy, moved=moved(head.places, Places(workspace)), backups=workspace.backups)
    local.begin_again()
    own, merged = dict(local.chain), local.merged
    local.follow(head, sure=sure)
    if set_aside:
        # What somebody saved after the one that was chosen was not there to be chosen.
        others = {h.runtime: h.generation for h in fetched.branches if h.key != head.key and not h.descends(head)}
        local.merged, local.rootless = join(merged, head.merged, own, others), False
    local.chosen, local.filling = "", True
    if not database.exists():
        local.save(workspace)
    replaced = runner.restore(database, copy, backups=workspace.backups)
    local.save(workspace)
    return replaced


def moved(there: Mapping[str, str], here: Places) -> dict[str, str]:
    """Folders of the machine that saved to those of this one."""
    return {there[name]: folder for name, folder in here.folders().items() if there.get(name)}


def refuse_inside(workspace: Workspace, vault: Path) -> None:
    """Raises InvalidInput for a vault inside the workspace, or around it."""
    for home in (workspace.root, workspace.media):
        if vault.resolve().is_relative_to(home.resolve()) or home.resolve().is_relative_to(vault.resolve()):
            raise InvalidInput(
                f"The vault {vault} and the workspace lie in one another.",
                "Name a folder on another disk in MASUKA_VAULT.",
                field="MASUKA_VAULT",
            )


def refuse_newer(head: Head) -> None:
    """Raises SchemaTooNew for a save that this MASUKA does not understand."""
    if any(name not in names_of(MIGRATIONS) for name in head.schema):
        raise SchemaTooNew(
            f"The newest save in the vault was made by a newer MASUKA ({head.masuka}).",
            "Update MASUKA; the save stays as it is.",
        )
