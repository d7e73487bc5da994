"""What a captioner's job is asked about, in a file beside the pictures that its params name.

Jobs are listed often, with their params: what is long is no part of those. Files lie by
their place from that file, so that it is true on another machine too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.errors import NotFound

NAME = "captions-asked.json"
_FILES = ("file", "matte")


@dataclass(frozen=True)
class Asked:
    """The pictures to be captioned, and the captions of the set's other ones."""

    pictures: Sequence[Mapping[str, Any]]
    others: Sequence[str]


def write_asked(asked: Asked, file: Path) -> str:
    """Its token; it is put there, in the place of what an earlier job was asked."""
    token = secrets.token_hex(8)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    pictures = [_from(picture, file.parent) for picture in asked.pictures]
    about = {"token": token, "pictures": pictures, "others": list(asked.others)}
    part.write_text(json.dumps(about), encoding="utf-8")
    part.replace(file)
    return token


def read_asked(file: Path, token: str) -> Asked:
    """What was put there with that token; raises NotFound where it is gone."""
    about = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if about.get("token") != token:
        raise NotFound(
            "It is not known any more which pictures this was about.", "Ask for the captions once more."
        )
    return Asked([_at(picture, file.parent) for picture in about["pictures"]], about["others"])


def _from(picture: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    places = {name: Path(picture[name]) for name in _FILES if picture[name] is not None}
    inside = {name: place.relative_to(folder) for name, place in places.items() if place.is_relative_to(folder)}
    return {**picture, **{name: place.as_posix() for name, place in inside.items()}}


def _at(picture: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    return {**picture, **{name: str(folder / picture[name]) for name in _FILES if picture[name] is not None}}
