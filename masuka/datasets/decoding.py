"""A picture file's bytes as an upright sRGB picture, or a sentence about why not.

Judges by content, never by the ending. Knows nothing of folders, archives or captions.
Everything a file carries besides its pixels (GPS, comments, profiles, appended data)
stays behind.
"""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, JpegImagePlugin

from masuka.datasets.colours import profile_to_apply, to_rgb
from masuka.datasets.stripping import MOST_SCANS, without_metadata
from masuka.errors import InvalidInput

LARGEST_BYTES = 50_000_000
LARGEST_PIXELS = 40_000_000
SMALLEST_SIDE_PX = 16
LOOK_PX = 1024
"""The longer side of the small picture that is measured and made into a thumbnail."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"BM", "BMP"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"II+\x00", "TIFF"), (b"MM\x00+", "TIFF"),
)  # fmt: skip
_BRANDS = {
    b"heic": "HEIF", b"heix": "HEIF", b"heim": "HEIF", b"heis": "HEIF", b"hevc": "HEIF", b"hevx": "HEIF",
    b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF",
}  # fmt: skip
"""What an ISO media file says it is (ISO/IEC 23008-12, annex B; AV1 Image File Format)."""
_FOREIGN = (
    (b"PK\x03\x04", "an archive"), (b"PK\x05\x06", "an empty archive"), (b"Rar!", "an archive"),
    (b"7z\xbc\xaf\x27\x1c", "an archive"), (b"\x1f\x8b", "an archive"), (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"), (b"\x7fELF", "a program"), (b"MZ", "a program"),
)  # fmt: skip
BROKEN_ARCHIVE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, ValueError, LookupError, struct.error,
    zlib.error, RuntimeError, OverflowError,
)  # fmt: skip
"""What `zipfile` raises for archives that are broken, encrypted or packed in a foreign way."""
_BMP_HEADERS = frozenset(size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124))
_PAGE = re.compile(rb"<script|<html>|<!doctype html|<\?php\s", re.IGNORECASE)
_JPEG_SCAN = b"\xff\xda"
_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SUFFIXES = {"JPEG": ".jpg", "WEBP": ".webp"}


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture without metadata, and how to store it well.

    `file` is the source cut down to its pixels, where those needed no change at all.
    `tables` are a JPEG's quantisation tables.
    """

    image: Image.Image
    suffix: str
    save_options: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    file: bytes | None = None
    tables: Mapping[int, Sequence[int]] | None = None


@dataclass(frozen=True)
class Glance:
    """A file cut down to its pixels, and a small look at what it shows."""

    file: bytes
    suffix: str
    width: int
    height: int
    small: Image.Image
    remarks: tuple[str, ...] = ()
    tables: Mapping[int, Sequence[int]] | None = None


def sniff(data: bytes) -> str:
    """Pillow's name of the picture format that the content is; raises InvalidInput."""
    if not data:
        raise InvalidInput("The file is empty.", "Save the picture again.")
    for magic, name in _MAGIC:
        if data.startswith(magic) and (name != "BMP" or data[14:18] in _BMP_HEADERS):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    for magic, what in _FOREIGN:
        if data.startswith(magic):
            hint = (
                "Unpack it and add the pictures." if "archive" in what else "Add PNG, JPEG or WebP pictures."
            )
            raise InvalidInput(f"The file is {what}, not a picture.", hint)
    if data[4:8] == b"ftyp":
        return _still(data)
    if data[:64].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00").startswith(b"<"):
        raise InvalidInput("The file is an SVG, HTML or XML text, not a picture.", "Save it as PNG first.")
    raise InvalidInput("The file is not a picture.", "Add PNG, JPEG, WebP, BMP, TIFF or GIF pictures.")


def _still(data: bytes) -> str:
    """HEIF or AVIF, by the brands that an ISO media file names; raises InvalidInput for a video."""
    end = min(max(16, int.from_bytes(data[:4], "big")), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))]
    names = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if not names:
        raise InvalidInput("The file is a video, not a picture.", "Take a picture out of it first.")
    return "AVIF" if "AVIF" in names else names[0]


def decode(data: bytes) -> Decoded:
    """The first frame, upright, in sRGB, on white where it was transparent.

    Sizes are judged from the header, before any pixel is decoded.
    Raises InvalidInput with a sentence for everything that is not one sound picture.
    """
    name = _judged(data)
    if name == "JPEG" and data.count(_JPEG_SCAN) > MOST_SCANS:
        # Each scan of a progressive JPEG passes over the whole picture; real ones have about ten.
        raise InvalidInput(
            f"The picture is stored in more than {MOST_SCANS} layers.",
            "Save the picture again in an image program.",
        )
    with warnings.catch_warnings():
        # Pillow warns about oddities of the file; what matters of them is judged here.
        warnings.simplefilter("ignore")
        return _decode(data, name)


def glance(data: bytes) -> Glance | None:
    """The file as it will be stored, seen through one scaled decode; None for others.

    Only a JPEG or WebP whose pixels stay as they are can be taken so: upright, sRGB,
    opaque. What is seen is decoded from the very bytes that are stored. Raises
    InvalidInput for what can be told without decoding; `decode` has the last word.
    """
    name = _judged(data)
    file = without_metadata(data, name)
    if file is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _glance(data, file, name)
        except InvalidInput:
            raise
        except Exception as error:  # noqa: BLE001 - a decoder fed with hostile bytes may raise anything
            log.debug("no quick look: %r", error)
            return None


def shrunk(image: Image.Image) -> Image.Image:
    """The same picture with sides of at most LOOK_PX."""
    small = image.reduce(_scale(*image.size)) if _scale(*image.size) > 1 else image
    if max(small.size) > LOOK_PX:
        small = small.resize(fitted(*small.size, LOOK_PX), Image.Resampling.BOX)
    return small


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size within longest × longest of a picture with those proportions."""
    share = min(1.0, longest / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def _scale(width: int, height: int) -> int:
    """By how much to decode smaller: what JPEG can, and not much below LOOK_PX."""
    return next((s for s in (8, 4, 2) if max(width, height) >= 0.88 * LOOK_PX * s), 1)


def _glance(data: bytes, file: bytes, name: str) -> Glance | None:
    remarks: list[str] = []
    with Image.open(io.BytesIO(data), formats=[name]) as opened:
        _refuse_sizes(opened.width, opened.height)
        if opened.mode != "RGB" or opened.has_transparency_data or _turn_of(opened, remarks) is not None:
            return None
        if profile_to_apply(opened, opened.info.get("icc_profile"), remarks) is not None:
            return None
        size, tables = opened.size, getattr(opened, "quantization", None)
    with Image.open(io.BytesIO(file), formats=[name]) as again:
        if again.mode != "RGB" or again.size != size:
            return None
        scale = _scale(*size)
        again.draft("RGB", (size[0] // scale, size[1] // scale))
        again.load()
        small = shrunk(again)
    small.info = {}
    return Glance(file, _SUFFIXES[name], *size, small=small, remarks=tuple(remarks), tables=tables)


def _judged(data: bytes) -> str:
    """Pillow's name of the format; raises InvalidInput for what no decoder shall see."""
    if len(data) > LARGEST_BYTES:
        raise too_many_bytes(len(data))
    name = sniff(data)
    _refuse_tricks(data)
    return name


def too_many_bytes(size: int, limit: int = LARGEST_BYTES) -> InvalidInput:
    """The refusal of a file of `size` bytes where `limit` are taken."""
    unit, name = (1_000_000, "MB") if limit >= 1_000_000 else (1000, "kB")
    shown = math.ceil(size * 10 / unit) / 10
    return InvalidInput(
        f"The file has {shown:,.1f} {name}.", f"At most {limit / unit:,.0f} {name} are taken."
    )


def _decode(data: bytes, name: str) -> Decoded:
    remarks: list[str] = []
    if name == "HEIF":
        from pi_heif import register_heif_opener  # a decoder of its own, loaded when the first one comes

        register_heif_opener(thumbnails=False)
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as opened:
            _refuse_sizes(opened.width, opened.height)
            opened.load()
            lossy, tables = _lossy(opened, data), getattr(opened, "quantization", None)
            turned = _upright(opened, remarks)
            image = to_rgb(turned, remarks)
            file = _untouched(image, data, name) if image is opened else None
    except InvalidInput:
        raise
    except MemoryError:
        raise InvalidInput(
            "The picture needs more memory than is free.", "Make it smaller, or close other programs."
        ) from None
    except Image.DecompressionBombError:
        raise InvalidInput("The picture has too many pixels.", _pixel_hint()) from None
    except Exception as error:
        # A decoder fed with hostile bytes may raise anything; all of it means the same to a person.
        raise InvalidInput(
            "The picture is damaged or cut off.", "Open it in a viewer and save it again."
        ) from error
    image.info = {}
    suffix, options = (lossy[0], lossy[1]) if file is None else (_SUFFIXES[name], {})
    return Decoded(image, suffix, options, remarks=tuple(remarks), file=file, tables=tables)


def _untouched(image: Image.Image, data: bytes, name: str) -> bytes | None:
    """The file without its metadata, if it shows these very pixels."""
    file = without_metadata(data, name)
    if file is None:
        return None
    with Image.open(io.BytesIO(file), formats=[name]) as again:
        return file if again.mode == image.mode and _same_pixels(again, image) else None


def _same_pixels(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    # In strips: the bytes of two whole 40-megapixel pictures would be 240 MB.
    strips = ((0, y, one.width, min(y + 256, one.height)) for y in range(0, one.height, 256))
    return all(one.crop(strip).tobytes() == other.crop(strip).tobytes() for strip in strips)


def _refuse_sizes(width: int, height: int) -> None:
    if width * height > LARGEST_PIXELS:
        raise InvalidInput(
            f"The picture has {width:,} × {height:,} pixels, {width * height / 1e6:,.1f} megapixels.",
            _pixel_hint(),
        )
    if min(width, height) < SMALLEST_SIDE_PX:
        raise InvalidInput(
            f"The picture has only {width:,} × {height:,} pixels.",
            f"Each side needs at least {SMALLEST_SIDE_PX}.",
        )


def _pixel_hint() -> str:
    return f"At most {LARGEST_PIXELS // 1_000_000} megapixels are taken; make it smaller."


def _refuse_tricks(data: bytes) -> None:
    second = ""
    if _holds_archive(data):
        second = "an archive"
    elif b"%PDF-" in data[:1024]:
        second = "a PDF document"
    elif _PAGE.search(data):
        second = "a web page"
    if second:
        raise InvalidInput(
            f"The file is a picture and {second} in one.", "Save the picture again in an image program."
        )


def _holds_archive(data: bytes) -> bool:
    """True for a readable archive at the end; its four-byte mark may be chance."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return bool(archive.namelist())
    except BROKEN_ARCHIVE:
        return False


def _lossy(image: Image.Image, data: bytes) -> tuple[str, dict[str, Any]]:
    """Suffix and options under which storing costs (almost) nothing."""
    if image.format in ("JPEG", "MPO") and isinstance(image, JpegImagePlugin.JpegImageFile):
        sampling = JpegImagePlugin.get_sampling(image)
        if image.mode == "RGB" and sampling in (0, 2) and 1 <= len(image.quantization) <= 4:
            # The file's own tables: decoding and encoding again then rounds to the same numbers.
            return ".jpg", {"qtables": image.quantization, "subsampling": sampling}
        return ".jpg", {"quality": 95, "subsampling": 0}
    if image.format in ("HEIF", "AVIF"):
        return ".jpg", {"quality": 95, "subsampling": 0}
    if image.format == "WEBP" and b"VP8L" not in data[:64]:
        return ".webp", {"quality": 95, "method": 4}
    return ".png", {}


def _upright(image: Image.Image, remarks: list[str]) -> Image.Image:
    # Asked after load(): PNG may carry its EXIF behind the pixels, and TIFF turns itself.
    turn = _turn_of(image, remarks)
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = dict(image.info)
    return turned


def _turn_of(image: Image.Image, remarks: list[str]) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block may raise anything in Pillow's parser
        remarks.append("its EXIF data is broken, so it was taken as it lies")
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None
