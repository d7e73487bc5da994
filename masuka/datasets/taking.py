"""One picture file becomes what a data set keeps: bytes, thumbnail and measures, side by side.

It runs in a process of the pool: it knows one picture and a folder to put the results in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from masuka.datasets import measures
from masuka.datasets.decoding import LARGEST_BYTES, decode, glance, shrunk
from masuka.datasets.keeping import Encoded, encode, thumbnail
from masuka.datasets.reading import read_file

PICTURE, THUMBNAIL = "picture", "thumb"
"""Endings of the two files that `take` writes."""


def take(item: dict[str, Any]) -> dict[str, Any]:
    """What became of the picture in `data` or `file`; the results begin with `staged`.

    `source` is the SHA-256 of the file as it came. Where that is among the lines of the
    file `known`, nothing else is done. Raises InvalidInput.
    """
    data = item["data"] if "data" in item else read_file(Path(item["file"]), LARGEST_BYTES)
    source = hashlib.sha256(data).hexdigest()
    if source in known_in(item["known"]):
        return {"source": source, "known": True}
    encoded, small, about = seen(data, source)
    staged = Path(item["staged"])
    staged.with_suffix(f".{PICTURE}").write_bytes(encoded.data)
    staged.with_suffix(f".{THUMBNAIL}").write_bytes(thumbnail(small, encoded.width, encoded.height))
    return {
        "source": source,
        "known": False,
        "sha256": encoded.sha256,
        "suffix": encoded.suffix,
        "width": encoded.width,
        "height": encoded.height,
        "bytes": len(encoded.data),
        **about,
    }


def seen(data: bytes, source: str = "") -> tuple[Encoded, Image.Image, dict[str, Any]]:
    """The picture as it is stored, a small look at it, and its `scores` and `remarks`.

    `source` is the SHA-256 of the data, where that is known.
    """
    quick = glance(data)
    if quick is not None:
        sha256 = source if source and quick.file is data else hashlib.sha256(quick.file).hexdigest()
        encoded = Encoded(quick.file, quick.suffix, sha256, quick.width, quick.height)
        return encoded, quick.small, _about(quick.small, encoded, quick.tables, quick.remarks)
    decoded = decode(data)
    encoded, small = encode(decoded), shrunk(decoded.image)
    return encoded, small, _about(small, encoded, decoded.tables, decoded.remarks)


def scores_of(
    small: Image.Image, encoded: Encoded, tables: Mapping[int, Sequence[int]] | None = None
) -> dict[str, Any]:
    """The measures of a picture that is stored like that and looks like `small`."""
    quality = measures.jpeg_quality(tables) if tables else None
    return measures.measure(small, width=encoded.width, height=encoded.height, jpeg_quality=quality)


@lru_cache(maxsize=1)
def known_in(file: str) -> frozenset[str]:
    """The lines of a file that does not change while the process lives; none for ''."""
    return frozenset(Path(file).read_text().split()) if file else frozenset()


def _about(
    small: Image.Image,
    encoded: Encoded,
    tables: Mapping[int, Sequence[int]] | None,
    remarks: tuple[str, ...],
) -> dict[str, Any]:
    return {"scores": scores_of(small, encoded, tables), "remarks": list(remarks)}
