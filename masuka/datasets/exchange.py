"""A data set as one zip that every trainer reads: pictures, `.txt` captions, dataset.json."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from masuka.datasets import DatasetRow, PictureRow, Resolve
from masuka.errors import InvalidInput, NotFound
from masuka.requests.text import clean_filename

FORMAT = 1
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the same set gives the same bytes


def export(dataset: DatasetRow, pictures: Sequence[PictureRow], *, to: Path, resolve: Resolve) -> Path:
    """The zip that was written to `to`: every picture, its caption, and dataset.json.

    It appears under its name only when it is whole. Raises NotFound for a picture whose
    file is gone.
    """
    names = file_names(pictures)
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for picture, name in zip(pictures, names, strict=True):
                _add(archive, name, _bytes_of(picture, resolve))
                _add(archive, f"{Path(name).stem}.txt", picture.caption.encode())
            _add(archive, "dataset.json", _sidecar(dataset, pictures, names))
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    return to


def file_names(pictures: Sequence[PictureRow]) -> list[str]:
    """Each picture's name in the zip: its own, made safe, with a stem of its own.

    Case does not tell names apart on every system, so it does not here.
    """
    taken: set[str] = set()
    names = []
    for picture in pictures:
        stem = _stem(picture.original_name)
        unique, number = stem, 2
        while unique.casefold() in taken:
            unique, number = f"{stem}-{number}", number + 1
        taken.add(unique.casefold())
        names.append(f"{unique}{Path(picture.file).suffix}")
    return names


def _stem(original_name: str) -> str:
    try:
        # Room for "-12345" and the ending, within 255 bytes.
        stem = Path(clean_filename(original_name)).stem.encode()[:240].decode(errors="ignore")
        return Path(clean_filename(f"{stem}.png")).stem
    except InvalidInput:
        return "picture"


def _bytes_of(picture: PictureRow, resolve: Resolve) -> bytes:
    try:
        return resolve(picture.file).read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"The file of the picture {picture.original_name} is gone.",
            "Delete the picture from the set, or put the file back.",
        ) from None


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _MOMENT), data)


def _sidecar(dataset: DatasetRow, pictures: Sequence[PictureRow], names: Sequence[str]) -> bytes:
    about = {
        "format": FORMAT,
        "name": dataset.name,
        "trigger_word": dataset.trigger_word,
        "class_word": dataset.class_word,
        "caption_template": dataset.caption_template,
        "pictures": [
            {
                "file": name,
                "caption": picture.caption,
                "original_name": picture.original_name,
                "sha256": picture.sha256,
                "width": picture.width,
                "height": picture.height,
            }
            for picture, name in zip(pictures, names, strict=True)
        ],
    }
    return json.dumps(about, indent=1, ensure_ascii=False).encode()
