"""A training's settings as a file that people keep, read, pass on and run again.

YAML or JSON, which is YAML too. What belongs to one workspace (numbers of data sets and
characters, the name) is not part of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import yaml

from masuka.errors import InvalidInput

FORMAT = 1
Form = Literal["yaml", "json"]
OF_THE_WORKSPACE = frozenset({"dataset_id", "character_id", "name", "prior_dataset_id"})
_LONGEST = 40_000
_HEAD = "# A recipe of MASUKA. Train by it with: masuka train recipe THIS-FILE --dataset NUMBER\n"


def recipe_of(config: Mapping[str, Any], *, about: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of these settings; `about` is for people and is not read back."""
    settings = {name: value for name, value in config.items() if name not in OF_THE_WORKSPACE}
    return {"recipe": FORMAT, "about": dict(about), "settings": settings}


def as_text(recipe: Mapping[str, Any], form: Form = "yaml") -> str:
    """The recipe as a file's text; `settings_in` reads both forms."""
    if form == "json":
        return json.dumps(recipe, indent=2, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    return _HEAD + text


def settings_in(text: str) -> dict[str, Any]:
    """The settings of a recipe's text, still to be checked by the request.

    Raises InvalidInput for what is no recipe, or one of a newer MASUKA.
    """
    if len(text) > _LONGEST:
        raise InvalidInput("That is too long for a recipe.", "Choose the file that MASUKA saved.", field="recipe")
    try:
        read = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidInput("The recipe cannot be read.", "It must be YAML or JSON.", field="recipe") from error
    if not isinstance(read, dict) or not isinstance(read.get("settings"), dict):
        raise InvalidInput("That is no recipe.", "Choose the file that MASUKA saved.", field="recipe")
    if read.get("recipe") != FORMAT:
        raise InvalidInput("The recipe is of another version.", "Update MASUKA.", field="recipe")
    settings = {str(name): value for name, value in read["settings"].items()}
    return {name: value for name, value in settings.items() if name not in OF_THE_WORKSPACE}
