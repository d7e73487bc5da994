"""Masks and cut-outs of pictures: read, judged and kept beside the data set's pictures.

A mask is a grey PNG of the picture's own size: white counts, black hardly does.
"""

from __future__ import annotations

import errno
import hashlib
import io
import warnings
from pathlib import Path
from typing import Literal

from PIL import Image

from masuka.errors import InvalidInput, OutOfDisk

LARGEST_BYTES = 20_000_000
ALWAYS_READ_PX = 4_000_000
"""A mask may have so many pixels however small its picture is; more only up to the picture's own."""
SAME_SHAPE = 0.02
"""How much the sides' ratio of a mask painted on a smaller picture may differ."""
Kind = Literal["masks", "mattes"]


def read_mask(png: bytes, width: int, height: int) -> Image.Image:
    """The painted mask, grey, at that size; what is transparent is black.

    Raises InvalidInput for what is no PNG, of another shape, far larger, or black all over.
    """
    if len(png) > LARGEST_BYTES:
        raise _refused(
            f"The mask has more than {LARGEST_BYTES / 1e6:,.0f} MB.", "Paint it on a smaller picture."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
                if abs(opened.width / opened.height - width / height) > SAME_SHAPE * width / height:
                    raise _refused(
                        f"The mask has {opened.width} × {opened.height} pixels, the picture {width} × {height}.",
                        "Paint it over the whole picture, as it was before it was cropped.",
                    )
                if opened.width * opened.height > max(width * height, ALWAYS_READ_PX):
                    raise _refused(
                        f"The mask has {opened.width:,} × {opened.height:,} pixels, more than its picture.",
                        "Paint it at the picture's size or smaller.",
                    )
                opened.load()
                mask = _grey(opened)
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise _refused("The mask is no sound PNG picture.", "Paint it again.") from error
    if mask.size != (width, height):
        mask = mask.resize((width, height), Image.Resampling.BILINEAR)
    if mask.getextrema()[1] == 0:
        raise _refused("The mask covers nothing.", "Paint over what is to be learnt, or remove the mask.")
    return mask


def keep(mask: Image.Image, kind: Kind, folder: Path, picture_sha256: str) -> str:
    """The sum of the kept file, which lies at `file_of` it in the data set's folder."""
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", optimize=False)
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    file = file_of(kind, folder, picture_sha256, sha256)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    try:
        part.write_bytes(buffer.getvalue())
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk("The disk is full; the mask could not be kept.", "Free some space.") from error
        raise
    part.replace(file)
    return sha256


def file_of(kind: Kind, folder: Path, picture_sha256: str, sha256: str) -> Path:
    """Where the mask of that sum lies; others of the same picture lie beside it."""
    return folder / kind / f"{picture_sha256[:16]}-{sha256[:16]}.png"


def forget(folder: Path, picture_sha256: str) -> None:
    """Deletes every mask and cut-out that the picture ever had."""
    for kind in ("masks", "mattes"):
        for file in (folder / kind).glob(f"{picture_sha256[:16]}-*.png"):
            file.unlink(missing_ok=True)


def _grey(opened: Image.Image) -> Image.Image:
    if not opened.has_transparency_data:
        return opened.convert("L")
    seen = opened.convert("RGBA")
    black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, seen).convert("L")


def _refused(message: str, hint: str) -> InvalidInput:
    return InvalidInput(message, hint, field="mask")
