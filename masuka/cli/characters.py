"""masuka character …: the record that everything else belongs to."""

from __future__ import annotations

import typer

from masuka.cli.command import Answer, command
from masuka.cli.show import table
from masuka.requests.datasets import CreateCharacter
from masuka.studio import Studio

group = typer.Typer(help="Characters: create, list, delete.", no_args_is_help=True)


@command(group, "create", request=CreateCharacter, argument="name")
def create(studio: Studio, values: dict[str, object]) -> Answer:
    """Creates a character."""
    character = studio.characters.create(**values)
    return Answer(character, f"Character {character.id}: {character.name}, called {character.trigger_word}.")


@command(group, "list")
def list_all(studio: Studio) -> Answer:
    """Lists the characters."""
    found = studio.characters.list()
    rows = [(c.id, c.name, c.trigger_word, c.class_word, c.status) for c in found]
    return Answer(found, table(("id", "name", "trigger", "class", "status"), rows, empty="No characters yet."))


@command(group, "delete")
def delete(studio: Studio, character_id: int, yes: bool = False) -> Answer:
    """Deletes a character; its data sets and LoRAs stay."""
    character = studio.characters.get(character_id)
    if not yes:
        typer.confirm(f"Delete {character.name}?", abort=True, err=True)
    studio.characters.delete(character_id)
    return Answer({"deleted": character_id}, f"Deleted {character.name}.")
