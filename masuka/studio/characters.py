"""Characters: the record that every tab starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masuka.requests.datasets import CreateCharacter
from masuka.store import characters as rows
from masuka.store.characters import Character
from masuka.studio.context import Context, parsed


class Characters:
    """Create, list and delete characters."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def create(
        self, request: CreateCharacter | Mapping[str, Any] | None = None, /, **values: Any
    ) -> Character:
        """The new character; raises Conflict when the name is taken."""
        self._context.actor.must_edit()
        wanted = parsed(CreateCharacter, request, values)
        return rows.add_character(self._context.store, actor=self._context.actor, **wanted.as_dict())

    def list(self) -> list[Character]:
        """All characters, the newest first."""
        return rows.list_characters(self._context.store, actor=self._context.actor)

    def get(self, character_id: int) -> Character:
        """One character; raises NotFound."""
        return rows.get_character(self._context.store, actor=self._context.actor, id=character_id)

    def delete(self, character_id: int) -> None:
        """Forgets the character; data sets, LoRAs and pictures stay and lose the link."""
        self._context.actor.must_edit()
        rows.delete_character(self._context.store, actor=self._context.actor, id=character_id)
