"""What this workspace knows about its vault: who it is there, what it saved last.

One small file on local disk, replaced whole. The doctor reads it without touching the
vault, so a vault that hangs cannot hang the doctor.
"""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from masuka.config import Workspace
from masuka.errors import StoreError
from masuka.vault.disk import flush

NAME = "state.json"


def folder_of(workspace: Workspace) -> Path:
    """Where a workspace keeps what it knows about its vault."""
    return workspace.root / "vault"


@dataclass
class Local:
    """`last` is the key of the newest own save, `intended` of one being written.

    `chain` and `merged` are as in a save; `confirmed_at` is when the newest confirmed save
    was made, `written_at` the newest of all; `chosen` is a save to open at the next start.
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

    @classmethod
    def load(cls, workspace: Workspace, vault: Path) -> Local:
        """What is known about that vault; a fresh identity for one not seen before."""
        file = folder_of(workspace) / NAME
        try:
            given: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(folder=str(vault))
        except ValueError as error:
            raise StoreError(f"{file} cannot be read: {error}.", "Delete it; nothing is lost by that.") from error
        if given.get("folder") != str(vault):
            return cls(folder=str(vault))
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in known})

    def reload(self, workspace: Workspace) -> None:
        """Takes over what another process of this workspace has noted since."""
        for name, value in asdict(Local.load(workspace, Path(self.folder))).items():
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

    def begin_again(self) -> None:
        """Takes a new identity that goes back to what the old one saved last.

        Two copies of a workspace, or a database that came from the vault, must not go on
        under one name.
        """
        if self.generation:
            self.chain[self.runtime] = max(self.generation, self.chain.get(self.runtime, 0))
        self.runtime = secrets.token_hex(4)
        self.generation, self.last, self.intended, self.mark = 0, "", "", ""
        self.segments = 0
