"""How things stand between a workspace and its vault, as a page or a command shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from masuka.vault.generations import Head
from masuka.vault.local import Local

State = Literal["off", "saved", "written", "unsaved", "saving", "unreachable", "passive"]


@dataclass(frozen=True)
class Branch:
    """One of several saves of which none follows another; `ours` is what is open here."""

    key: str
    generation: int
    created_at: str
    bytes: int
    masuka: str
    ours: bool


@dataclass(frozen=True)
class Status:
    """`state` in one word; times are '' where there is none.

    `saved_at` is the newest save that is known to have arrived, `written_at` the newest
    that reads back, `sure` whether they are the same; `unsaved_since_at` is when the first
    change after that was made. `files` are still to be copied, `missing` still to be brought
    back. `why` says what is wrong; `chosen` opens at the next start.
    """

    folder: str
    state: State
    saved_at: str = ""
    written_at: str = ""
    sure: bool = False
    unsaved_since_at: str = ""
    files: int = 0
    bytes: int = 0
    missing: int = 0
    why: str = ""
    branches: tuple[Branch, ...] = ()
    chosen: str = ""

    @property
    def forked(self) -> bool:
        """Whether a person has to choose between branches."""
        return len(self.branches) > 1 or self.apart

    @property
    def apart(self) -> bool:
        """Whether no branch in the vault goes on from what is open here."""
        return bool(self.branches) and not any(branch.ours for branch in self.branches)


OFF = Status(folder="", state="off")


def branches_of(heads: Iterable[Head], local: Local) -> tuple[Branch, ...]:
    """The branches as they are shown, the newest first."""

    return tuple(Branch(h.key, h.generation, h.created_at, h.size_bytes, h.masuka, local.follows(h)) for h in heads)
