"""What a training learns from, as one hash: pictures, captions, recipes, focus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from masuka.datasets.edits import Recipe


def line_of(sha256: str, caption: str, recipe: Recipe, focus: Sequence[float] | None) -> str:
    """One picture's part of the hash; as it always was where nothing is edited."""
    more = [recipe.key, "" if focus is None else " ".join(f"{value:.4f}" for value in focus)]
    return "\0".join([sha256, caption, *(more if any(more) else [])]) + "\n"


def hash_of(lines: Iterable[str]) -> str:
    """One hash over every line, whatever their order."""
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode())
    return digest.hexdigest()
