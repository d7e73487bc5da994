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

from masuka.datasets.decoding import Decoded, fitted
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


def thumbnail(small: Image.Image, width: int, height: int) -> bytes:
    """The WebP, at most 256 px a side, of a picture that looks like `small`."""
    size = fitted(width, height, THUMBNAIL_PX)
    steps = int(min(small.width / size[0], small.height / size[1]) / 1.5)
    coarse = small.reduce(steps) if steps > 1 else small  # whole steps first: many times quicker
    buffer = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(buffer, "WEBP", quality=85, method=1)
    return buffer.getvalue()


def keep(encoded: Encoded, image: Image.Image, folder: Path, scratch: Path) -> Path:
    """The stored file; its thumbnail lies at `thumbnail_of` it.

    Both are written in `scratch` and moved, so a killed job leaves nothing half-made.
    Raises OutOfDisk.
    """
    staged = scratch / encoded.sha256[:16]
    picture, small = staged.with_suffix(".picture"), staged.with_suffix(".thumb")
    try:
        picture.write_bytes(encoded.data)
        small.write_bytes(thumbnail(image, encoded.width, encoded.height))
    except OSError as error:
        raise _full(error) from error
    return keep_staged(picture, small, folder / f"{encoded.sha256[:16]}{encoded.suffix}")


def keep_staged(picture: Path, small: Path, file: Path) -> Path:
    """The stored file, moved there with its thumbnail; raises OutOfDisk."""
    try:
        thumbnail_of(file).parent.mkdir(parents=True, exist_ok=True)
        _place(small, thumbnail_of(file))
        _place(picture, file)
    except OSError as error:
        raise _full(error) from error
    return file


def _full(error: OSError) -> Exception:
    """OutOfDisk for a full disk, else the error itself."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OutOfDisk(
        "The disk is full; the picture could not be stored.", "Free some space and add the rest again."
    )


def thumbnail_of(file: Path) -> Path:
    """Where the thumbnail of a stored picture lies: WebP, at most 256 px a side."""
    return file.parent / "thumbs" / f"{file.stem}.webp"


def _place(part: Path, target: Path) -> None:
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
