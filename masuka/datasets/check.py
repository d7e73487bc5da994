"""What stands in the way of a good training, each as a sentence with its remedy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from masuka.datasets import DatasetRow, PictureRow, Resolve
from masuka.datasets.captions.text import has_trigger

FEWEST_PICTURES = 10
_NAMES_SHOWN = 3


def problems(
    dataset: DatasetRow,
    pictures: Sequence[PictureRow],
    *,
    resolve: Resolve,
    resolution_px: int = 0,
    read_files: bool = True,
) -> list[str]:
    """The problems of a set, worst first; empty when there is none.

    Reads every file and compares it with its SHA-256; without `read_files` it only looks
    whether it is there, a folder at a time. `resolution_px` 0 asks nothing about sizes; otherwise a picture
    is too small when its area is under that square.
    """
    if not pictures:
        return ["The set has no pictures. Add some first."]
    trigger_word = dataset.trigger_word
    if read_files:
        sums = [(p, _sha256(resolve(p.file))) for p in pictures]
        missing = [p for p, sha256 in sums if sha256 is None]
        changed = [p for p, sha256 in sums if sha256 not in (None, p.sha256)]
    else:
        missing, changed = _missing(pictures, resolve), []
    captionless = [p for p in pictures if not p.caption.strip()]
    wordless = [p for p in pictures if p.caption.strip() and not has_trigger(p.caption, trigger_word)]
    small = [p for p in pictures if p.width * p.height < resolution_px**2]
    found = [
        _sentence(missing, "without a file", "Delete them, or put the files back."),
        _sentence(changed, "whose file is not the one that was added", "Delete them and add them again."),
        _sentence(captionless, "without a caption", "Write one or fill the template."),
        _sentence(
            wordless,
            f"without the trigger word {trigger_word} in the caption",
            "Add it, so that the word calls the character.",
        ),
        _sentence(
            small,
            f"smaller than {resolution_px:,} × {resolution_px:,} pixels",
            "They would be enlarged; take larger ones or a lower resolution.",
        ),
    ]
    if len(pictures) < FEWEST_PICTURES:
        count = "is only 1 picture" if len(pictures) == 1 else f"are only {len(pictures)} pictures"
        found.append(f"There {count}. From {FEWEST_PICTURES} on a character is learnt well.")
    return [sentence for sentence in found if sentence]


def _sha256(file: Path) -> str | None:
    """The sum of a file's bytes; None where there is no such file."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _missing(pictures: Sequence[PictureRow], resolve: Resolve) -> list[PictureRow]:
    """Those without a file: folders are listed, for ten thousand paths take a second."""
    folders: dict[str, frozenset[str]] = {}
    missing: list[PictureRow] = []
    for picture in pictures:
        folder, name = os.path.split(picture.file)
        if folder not in folders:
            folders[folder] = _files_in(resolve(folder))
        if name not in folders[folder]:
            missing.append(picture)
    return missing


def _files_in(folder: Path) -> frozenset[str]:
    """The names of a folder's files; none where there is no such folder."""
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def _sentence(pictures: Sequence[PictureRow], what: str, remedy: str) -> str:
    """One sentence about all pictures with one problem and its remedy, '' for none."""
    if not pictures:
        return ""
    names = [p.original_name for p in pictures[:_NAMES_SHOWN]]
    rest = len(pictures) - len(names)
    listed = ", ".join(names) + (f" and {rest:,} more" if rest else "")
    count = "1 picture" if len(pictures) == 1 else f"{len(pictures):,} pictures"
    return f"{count} {what}: {listed}. {remedy}"
