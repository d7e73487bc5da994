"""Where a taken picture lies: `<folder>/<sha16>.<ending>` and its thumbnail.

A file appears under its final name only when it is whole. The name is made from the
stored bytes, so the same picture taken twice is the same file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from masuka.datasets.decoding import Decoded
from masuka.errors import OutOfDisk

THUMBNAIL_PX = 256
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class Encoded:
    """A picture as the bytes that will be stored."""

    data: bytes
    suffix: str
    sha256: str
    width: int
    height: int


def encode(decoded: Decoded) -> Encoded:
    """The picture as file bytes without metadata, and their SHA-256."""
    data = decoded.file
    if data is None:
        buffer = io.BytesIO()
        decoded.image.save(buffer, _FORMATS[decoded.suffix], **decoded.save_options)
        data = buffer.getvalue()
    return Encoded(
        data, decoded.suffix, hashlib.sha256(data).hexdigest(), decoded.image.width, decoded.image.height
    )


def keep(encoded: Encoded, image: Image.Image, folder: Path, scratch: Path) -> Path:
    """The stored file; its thumbnail lies at `thumbnail_of` it.

    Both are written in `scratch` and moved, so a killed job leaves nothing half-made.
    Raises OutOfDisk.
    """
    file = folder / f"{encoded.sha256[:16]}{encoded.suffix}"
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=85, method=4)
    try:
        thumbnail_of(file).parent.mkdir(parents=True, exist_ok=True)
        _place(buffer.getvalue(), thumbnail_of(file), scratch)
        _place(encoded.data, file, scratch)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk(
                "The disk is full; the picture could not be stored.",
                "Free some space and add the rest again.",
            ) from error
        raise
    return file


def thumbnail_of(file: Path) -> Path:
    """Where the thumbnail of a stored picture lies: WebP, at most 256 px a side."""
    return file.parent / "thumbs" / f"{file.stem}.webp"


def _place(data: bytes, target: Path, scratch: Path) -> None:
    part = scratch / f"{target.name}.part"
    part.write_bytes(data)
    try:
        part.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Media may lie on another disk than the jobs: copy beside the target, then move.
        near = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(part, near)
            near.replace(target)
        finally:
            near.unlink(missing_ok=True)
            part.unlink()
