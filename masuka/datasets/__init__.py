"""Data sets: taking pictures in, their captions, checking a set, handing it out.

Light: Pillow and the standard library. Knows no database: rows come as values, and
`Resolve` turns their stored paths into absolute ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

Resolve = Callable[[str], Path]
MOST_COMPARED = 2000
"""Pictures of the largest set that is compared at the end of an import.

More take minutes, which nobody waits for there; a job of its own looks at such a set."""


class DatasetRow(Protocol):
    """What is asked of a data set."""

    @property
    def name(self) -> str: ...
    @property
    def trigger_word(self) -> str: ...
    @property
    def class_word(self) -> str: ...
    @property
    def caption_template(self) -> str: ...


class PictureRow(Protocol):
    """What is asked of a picture; `sha256` is of the stored file's bytes."""

    @property
    def file(self) -> str: ...
    @property
    def original_name(self) -> str: ...
    @property
    def caption(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
