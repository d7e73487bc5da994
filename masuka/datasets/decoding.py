"""A picture file's bytes as an upright sRGB picture, or a sentence about why not.

Judges by content, never by the ending. Knows nothing of folders, archives or captions.
Everything a file carries besides its pixels (GPS, comments, profiles, appended data)
stays behind.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from PIL import Image, ImageCms, JpegImagePlugin

from masuka.datasets.stripping import without_metadata
from masuka.errors import InvalidInput

LARGEST_BYTES = 50_000_000
LARGEST_PIXELS = 40_000_000
SMALLEST_SIDE_PX = 16
MOST_SCANS = 500

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"BM", "BMP"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"II+\x00", "TIFF"), (b"MM\x00+", "TIFF"),
)  # fmt: skip
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
_CMS_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}


@dataclass(frozen=True)
class Decoded:
    """An upright RGB picture without metadata, and how to store it well.

    `file` is the source cut down to its pixels, where those needed no change at all.
    """

    image: Image.Image
    suffix: str
    save_options: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    file: bytes | None = None


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
        raise InvalidInput("The file is a HEIC, AVIF or video file.", "Save it as JPEG or PNG first.")
    if data[:64].lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x00").startswith(b"<"):
        raise InvalidInput("The file is an SVG, HTML or XML text, not a picture.", "Save it as PNG first.")
    raise InvalidInput("The file is not a picture.", "Add PNG, JPEG, WebP, BMP, TIFF or GIF pictures.")


def decode(data: bytes) -> Decoded:
    """The first frame, upright, in sRGB, on white where it was transparent.

    Sizes are judged from the header, before any pixel is decoded.
    Raises InvalidInput with a sentence for everything that is not one sound picture.
    """
    if len(data) > LARGEST_BYTES:
        raise too_many_bytes(len(data))
    name = sniff(data)
    _refuse_tricks(data)
    with warnings.catch_warnings():
        # Pillow warns about oddities of the file; what matters of them is judged here.
        warnings.simplefilter("ignore")
        return _decode(data, name)


def too_many_bytes(size: int, limit: int = LARGEST_BYTES) -> InvalidInput:
    """The refusal of a file of `size` bytes where `limit` are taken."""
    unit, name = (1_000_000, "MB") if limit >= 1_000_000 else (1000, "kB")
    shown = math.ceil(size * 10 / unit) / 10
    return InvalidInput(
        f"The file has {shown:,.1f} {name}.", f"At most {limit / unit:,.0f} {name} are taken."
    )


def _decode(data: bytes, name: str) -> Decoded:
    remarks: list[str] = []
    try:
        with Image.open(io.BytesIO(data), formats=[name]) as opened:
            _refuse_sizes(opened.width, opened.height)
            opened.load()
            lossy = _lossy(opened, data)
            turned = _upright(opened, remarks)
            image = _to_rgb(turned, remarks)
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
    return Decoded(image, *lossy, remarks=tuple(remarks), file=file)


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
    if data.startswith(b"\xff\xd8") and data.count(_JPEG_SCAN) > MOST_SCANS:
        # Each scan of a progressive JPEG passes over the whole picture; real ones have about ten.
        raise InvalidInput(
            f"The picture is stored in more than {MOST_SCANS} layers.",
            "Save the picture again in an image program.",
        )
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
    if image.format == "WEBP" and b"VP8L" not in data[:64]:
        return ".webp", {"quality": 95, "method": 4}
    return ".png", {}


def _upright(image: Image.Image, remarks: list[str]) -> Image.Image:
    # Asked after load(): PNG may carry its EXIF behind the pixels, and TIFF turns itself.
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a broken EXIF block may raise anything in Pillow's parser
        remarks.append("its EXIF data is broken, so it was taken as it lies")
        return image
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image
    turned = image.transpose(turn)
    turned.info = dict(image.info)
    return turned


def _to_rgb(image: Image.Image, remarks: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    transparency = image.has_transparency_data
    image = _eight_bits(image)
    alpha = None
    if transparency:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in _CMS_SPACES and image.mode != "LAB":
        image = image.convert("RGB")
    rgb = _to_srgb(image, profile, remarks)
    if alpha is None:
        return rgb
    white = Image.new("RGB", rgb.size, "white")
    white.paste(rgb, mask=alpha)
    return white


def _eight_bits(image: Image.Image) -> Image.Image:
    """The picture with 8 bits a channel; integers and floats are scaled, not clipped."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = image.convert("F")
    low, high = cast(tuple[float, float], values.getextrema())
    if image.mode.startswith("I;16") or (image.mode == "I" and low >= 0 and high <= 65535):
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scale = 255.0 / (high - low) if high > low else 0.0
    stretch: Callable[[Any], Any] = lambda value: value * scale + (0.5 - low * scale)  # noqa: E731
    return values.point(stretch).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None, remarks: list[str]) -> Image.Image:
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        return _transformed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), srgb)
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
                return image
            if source.profile.xcolor_space == _CMS_SPACES.get(image.mode):
                return _transformed(image, source, srgb)
            remarks.append("its colour profile does not fit its pixels and was left out")
        except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
            remarks.append("its colour profile is broken and was left out")
    return image if image.mode == "RGB" else image.convert("RGB")


def _transformed(image: Image.Image, source: Any, target: Any) -> Image.Image:
    turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    if turned is None:  # only with inPlace=True
        raise InvalidInput("The colours could not be converted.", "Save the picture as sRGB.")
    return turned
