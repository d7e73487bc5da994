"""What this workspace knows about its vault: who it is there, what it saved last.

One small file on local disk, replaced whole. The doctor reads it without touching the
vault, so a vault that hangs cannot hang the doctor.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from masuka.config import Workspace
from masuka.vault.confirm import Sent
from masuka.vault.disk import flush
from masuka.vault.generations import Head

NAME = "state.json"

log = logging.getLogger("masuka.vault")


def folder_of(workspace: Workspace) -> Path:
    """Where a workspace keeps what it knows about its vault."""
    return workspace.root / "vault"


@dataclass(frozen=True)
class Written:
    """A save that reads back whole, with what proves that it has arrived."""

    generation: int
    created_at: str
    sent: tuple[Sent, ...]


@dataclass
class Local:
    """`last` is the key of the newest own save, `intended` of one being written.

    `own` are keys of all own saves that were not deleted. `chain`, `merged`, `kin` and
    `rootless` are as in a save. `written` is the number of the newest save of this line,
    `confirmed` of the newest that has arrived, `sure` of the newest that others may be
    deleted after; `written_at` and `confirmed_at` are only shown, for a clock may go back.
    `unconfirmed` are saves that may still be asked about. `chosen` is a save to open at the next start.
    `leavings` are keys of saves whose files are still to be deleted. What to delete is known
    from here alone: a Drive may hide a file for a while that is there.
    `event` is the newest event about weights that the newest save holds.
    `filling`: files of a restored workspace are still being brought back.
    """

    folder: str = ""
    runtime: str = field(default_factory=lambda: secrets.token_hex(4))
    last: str = ""
    last_sha256: str = ""
    generation: int = 0
    intended: str = ""
    intended_sha256: str = ""
    mark: str = ""
    chain: dict[str, int] = field(default_factory=dict)
    merged: dict[str, int] = field(default_factory=dict)
    purged: int = 0
    written_at: str = ""
    confirmed_at: str = ""
    chosen: str = ""
    event: int = 0
    segments: int = 0
    leavings: list[str] = field(default_factory=list)
    filling: bool = False
    own: list[str] = field(default_factory=list)
    kin: list[str] = field(default_factory=list)
    rootless: bool = False
    written: int = 0
    confirmed: int = 0
    sure: int = 0
    unconfirmed: list[Written] = field(default_factory=list)

    @classmethod
    def load(cls, workspace: Workspace, vault: Path) -> Local:
        """What is known about that vault; a fresh identity for one not seen before.

        Notes that cannot be read are laid aside: who this was is then found in the vault.
        """
        file = folder_of(workspace) / NAME
        try:
            local = _LOCAL.validate_json(file.read_bytes(), strict=True)
        except FileNotFoundError:
            return cls(folder=str(vault))
        except ValidationError:
            log.warning("%s cannot be read and is laid aside", file)
            file.replace(file.with_suffix(".damaged"))
            return cls(folder=str(vault))
        return local if local.folder == str(vault) else cls(folder=str(vault))

    def reload(self, workspace: Workspace) -> None:
        """Takes over what another process of this workspace has noted since."""
        for name, value in vars(Local.load(workspace, Path(self.folder))).items():
            setattr(self, name, value)

    def save(self, workspace: Workspace) -> None:
        """Writes it, so that a kill leaves this or the one before."""
        file = folder_of(workspace) / NAME
        file.parent.mkdir(parents=True, exist_ok=True)
        # Each thread has a part of its own; the last one to finish wrote what holds now.
        part = file.with_suffix(f".{threading.get_native_id()}.part")
        with part.open("w", encoding="utf-8") as out:
            json.dump(asdict(self), out, indent=1)
            out.flush()
            flush(out.fileno())
        part.replace(file)

    def begin_again(self, *, shared_from: int = 0) -> None:
        """Takes a new identity that goes back to what the old one saved last.

        Two copies of a workspace, or a database that came from the vault, must not go on
        under one name. `shared_from` is the first number that somebody else used under it.
        """
        if self.generation:
            until = min(self.generation, shared_from - 1) if shared_from else self.generation
            self.chain = {**self.chain, self.runtime: max(until, self.chain.get(self.runtime, 0))}
            self.kin = [*self.kin, *(key for key in self.own if int(key.partition("-")[0]) > until)]
        self.runtime = secrets.token_hex(4)
        self.generation, self.last, self.intended, self.mark, self.own = 0, "", "", "", []
        self.segments = 0

    def follow(self, head: Head, *, sure: bool) -> None:
        """Goes on from that save, which is what is open here; `sure` if it has arrived."""
        self.chain = {**head.chain, head.runtime: max(head.generation, head.chain.get(head.runtime, 0))}
        self.kin, self.rootless, self.merged = list(head.kin), head.rootless, dict(head.merged)
        self.purged = max(self.purged, head.purged)
        self.last_sha256, self.written, self.written_at = head.sha256, head.generation, head.created_at
        self.confirmed = self.sure = head.generation if sure else 0
        self.confirmed_at = head.created_at if sure else ""
        self.unconfirmed = []

    def follows(self, head: Head) -> bool:
        """Whether what is open here goes back to that save."""
        return head.key in self.own or head.key in self.kin or self.chain.get(head.runtime, 0) >= head.generation

    @property
    def purged_branches(self) -> dict[str, int]:
        """Branches that were set aside and that a purge, which is sure, has deleted."""
        return {r: n for r, n in self.merged.items() if n < self.purged <= self.sure}

    @property
    def blank(self) -> bool:
        """Whether nothing open here was ever saved to this vault or came from it."""
        return not self.written and not self.generation and not self.chain


_LOCAL = TypeAdapter(Local)


def join(*vectors: Mapping[str, int]) -> dict[str, int]:
    """For each runtime the highest number that any of them has."""
    joined: dict[str, int] = {}
    for vector in vectors:
        for runtime, number in vector.items():
            joined[runtime] = max(number, joined.get(runtime, 0))
    return joined
