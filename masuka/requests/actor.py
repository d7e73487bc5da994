"""Who asks: passed to every Studio and store call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from masuka.errors import NotAllowed

Role = Literal["owner", "editor", "viewer"]


@dataclass(frozen=True)
class Actor:
    """A person with a role: an owner does all, an editor makes things, a viewer looks."""

    user_id: int
    role: Role = "owner"
    name: str = "owner"

    def must_edit(self) -> None:
        """Raises NotAllowed for a viewer."""
        if self.role == "viewer":
            raise NotAllowed("A viewer can look, not change.", "Ask the owner to invite you as editor.")

    def must_own(self) -> None:
        """Raises NotAllowed for everybody but an owner."""
        if self.role != "owner":
            raise NotAllowed("Only the owner can do this.", "Ask the owner of this studio.")
