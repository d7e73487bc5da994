"""Rendered pictures on disk, made when they are first looked at; they can be made again.

They lie in the set's `previews` folder, which no vault keeps, under names made from the
picture's sum and its recipe.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from masuka.datasets.edits import Recipe, Rendered, render, version_of
from masuka.datasets.keeping import THUMBNAIL_PX, thumbnail_of
from masuka.errors import NotFound, OutOfDisk

FOLDER = "previews"
_SAVED = {
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 95, "method": 4}),
    ".png": ("PNG", {}),
}
_AT_ONCE = threading.BoundedSemaphore(2)
"""A page of sixty tiles asks for sixty pictures at once; each may take 120 MB while it is made."""
SECONDS_KEPT = 60.0
"""So long what was rendered before an edit stays: two who ask at once end in any order."""
_ROOM = 2.0
"""A thumbnail is cut from a decoding at least this many times its size."""


def file_of(folder: Path, sha256: str, recipe: Recipe, suffix: str) -> Path:
    """Where the rendered picture lies, or will; `folder` is the data set's."""
    suffix = suffix.lower() if suffix.lower() in _SAVED else ".png"
    version = version_of(sha256, recipe.as_row())
    return folder / FOLDER / f"{sha256[:16]}-{version[:16]}{suffix}"


def make(to: Path, file: Path, recipe: Recipe, *, matte: Path | None = None) -> Path:
    """The rendered picture at `to`; older renderings of the same picture go.

    A mask changes nothing to see, so it need not be there.
    """
    if not to.exists():
        with _AT_ONCE:
            _save(rendered(file, replace(recipe, mask_sha256=""), matte=matte).image, to)
        _forget_older(to.parent, to)
    return to


def make_thumbnail(to: Path, file: Path, recipe: Recipe, *, matte: Path | None = None) -> Path:
    """The rendered picture's thumbnail, which lies at `thumbnail_of(to)`."""
    small = thumbnail_of(to)
    if not small.exists():
        with _AT_ONCE:
            image = _decoded_small(file, recipe)
            cut_out = _mask_of(file, matte, "cut-out") if recipe.cuts_out else None
            made = render(image, recipe, matte=cut_out and cut_out.resize(image.size)).image
            made.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
            _save(made, small, quality=85)
        _forget_older(small.parent, small)
    return small


def rendered(file: Path, recipe: Recipe, *, mask: Path | None = None, matte: Path | None = None) -> Rendered:
    """The picture of a file as its recipe says, in full size.

    Raises NotFound when the file is gone, or its mask or cut-out where it counts.
    """
    weights = _mask_of(file, mask, "mask") if recipe.masks else None
    cut_out = _mask_of(file, matte, "cut-out") if recipe.cuts_out else None
    return render(_opened(file), recipe, mask=weights, matte=cut_out)


def forget(folder: Path, sha256: str) -> None:
    """Deletes what was rendered of the picture."""
    for kept in (folder / FOLDER, folder / FOLDER / "thumbs"):
        for old in kept.glob(f"{sha256[:16]}-*"):
            old.unlink(missing_ok=True)


def _forget_older(folder: Path, newest: Path) -> None:
    """What was rendered a moment ago stays: it may be newer in truth, or just be sent."""
    for old in folder.glob(f"{newest.name[:16]}-*"):
        with suppress(FileNotFoundError):  # somebody else forgot it too
            if old != newest and time.time() - old.stat().st_mtime > SECONDS_KEPT:
                old.unlink()


def _decoded_small(file: Path, recipe: Recipe) -> Image.Image:
    """The picture decoded just large enough for a thumbnail of its crop."""
    crop = recipe.edits.crop or (0.0, 0.0, 1.0, 1.0)
    side = round(THUMBNAIL_PX * _ROOM / min(crop[2] - crop[0], crop[3] - crop[1]))
    with _found(file) as opened:
        opened.draft("RGB", (side, side))
        image = opened.convert("RGB")
    if max(image.size) > side * 2:
        image.thumbnail((side * 2, side * 2), Image.Resampling.BILINEAR)
    return image


def _opened(file: Path) -> Image.Image:
    with _found(file) as opened:
        return opened.convert("RGB")


def _found(file: Path) -> Image.Image:
    try:
        return Image.open(file)
    except FileNotFoundError as error:
        hint = "It may have been deleted outside MASUKA."
        raise NotFound(f"The picture {file.name} is gone.", hint) from error


def _mask_of(file: Path, mask: Path | None, what: str) -> Image.Image:
    if mask is None or not mask.is_file():
        hint = "Make it again, or remove it from the picture."
        raise NotFound(f"The {what} of {file.name} is gone.", hint)
    with Image.open(mask) as opened:
        return opened.convert("L")


def _save(image: Image.Image, to: Path, *, quality: int | None = None) -> None:
    name, options = _SAVED[to.suffix]
    buffer = io.BytesIO()
    image.save(buffer, name, **(options if quality is None else {"quality": quality, "method": 4}))
    to.parent.mkdir(parents=True, exist_ok=True)
    # Two visitors may look at once: each writes a file of its own, the last one stays.
    part = to.with_name(f".{to.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(buffer.getvalue())
        part.replace(to)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfDisk(
                "The disk is full; the edited picture could not be made.", "Free some space."
            ) from error
        raise
