"""A picture's colours in sRGB with eight bits a channel, whatever it came with."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, cast

from PIL import Image, ImageCms

from masuka.errors import InvalidInput

_CMS_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY"}
_BROKEN_PROFILE = "its colour profile is broken and was left out"


def to_rgb(image: Image.Image, remarks: list[str]) -> Image.Image:
    """The picture in sRGB, on white where transparent; itself where it is so."""
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
    source = profile_to_apply(image, profile, remarks)
    try:
        if source is not None:
            return _transformed(image, source, srgb)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        remarks.append(_BROKEN_PROFILE)
    return image if image.mode == "RGB" else image.convert("RGB")


def profile_to_apply(image: Image.Image, profile: bytes | None, remarks: list[str]) -> Any:
    """The colour profile to turn the pixels from; None where they are sRGB."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "RGB" and ImageCms.getProfileDescription(source).startswith("sRGB"):
            return None
        if source.profile.xcolor_space == _CMS_SPACES.get(image.mode):
            return source
        remarks.append("its colour profile does not fit its pixels and was left out")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        remarks.append(_BROKEN_PROFILE)
    return None


def _transformed(image: Image.Image, source: Any, target: Any) -> Image.Image:
    turned = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    if turned is None:  # only with inPlace=True
        raise InvalidInput("The colours could not be converted.", "Save the picture as sRGB.")
    return turned
