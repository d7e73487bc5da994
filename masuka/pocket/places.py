"""Paints the places of Pocketworld: sky, ground and what stands between them."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from collections.abc import Callable

Colour = tuple[int, int, int]
UNITS = 128  # every coordinate is a pixel of a 128 px picture

# place: sky above, sky at the horizon, ground at the horizon, ground in front
LANDS: dict[str, tuple[Colour, Colour, Colour, Colour]] = {
    "meadow": ((126, 206, 250), (214, 240, 252), (132, 206, 98), (84, 170, 78)),
    "beach": ((140, 218, 252), (224, 246, 255), (248, 226, 168), (236, 206, 138)),
    "night": ((24, 26, 74), (64, 62, 128), (62, 66, 118), (42, 44, 90)),
    "city": ((186, 198, 212), (224, 228, 232), (138, 138, 148), (112, 112, 122)),
    "snow": ((188, 216, 240), (226, 238, 248), (255, 255, 255), (226, 236, 248)),
    "sunset": ((240, 106, 96), (255, 202, 120), (150, 84, 112), (112, 62, 98)),
}
_HORIZON_Y = 84.0


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour that lies share of the way from a to b."""
    r, g, bl = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return (r, g, bl)


def gradient(top: Colour, bottom: Colour, width: int, height: int) -> Image.Image:
    """An RGB picture that runs evenly from top to bottom."""
    strip = Image.new("RGB", (1, height))
    strip.putdata([mix(top, bottom, i / max(1, height - 1)) for i in range(height)])
    return strip.resize((width, height))


@lru_cache(maxsize=64)
def backdrop(place: str, detail: int, side: int) -> Image.Image:
    """One of eight variants of the place."""
    sky, haze, far, near = LANDS[place]
    unit = side / UNITS
    rng = random.Random(f"{place} {detail}")
    horizon = round((_HORIZON_Y + rng.uniform(-2, 2)) * unit)
    image = Image.new("RGB", (side, side))
    image.paste(gradient(sky, haze, side, horizon), (0, 0))
    image.paste(gradient(far, near, side, side - horizon), (0, horizon))
    _SCENERY[place](ImageDraw.Draw(image), unit, horizon / unit, rng)
    return image


def disc(pen: ImageDraw.ImageDraw, u: float, x: float, y: float, rx: float, ry: float, c: Colour) -> None:
    """A filled ellipse at (x, y) units with the radii rx and ry; u pixels make a unit."""
    pen.ellipse(((x - rx) * u, (y - ry) * u, (x + rx) * u, (y + ry) * u), fill=c)


def _meadow(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    _cloud(pen, u, 24 + rng.uniform(-5, 5), 20)
    _cloud(pen, u, 104 + rng.uniform(-5, 5), 32)
    for _ in range(7):
        x, y = rng.uniform(4, 124), rng.uniform(horizon + 8, 124)
        disc(pen, u, x, y, 2.4, 2.4, rng.choice([(255, 250, 240), (255, 226, 110), (250, 150, 170)]))


def _cloud(pen: ImageDraw.ImageDraw, u: float, x: float, y: float) -> None:
    for dx, dy, r in ((-8, 1, 6), (0, -2, 8), (9, 1, 6)):
        disc(pen, u, x + dx, y + dy, r, r * 0.8, (255, 255, 255))


def _beach(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    disc(pen, u, 106 + rng.uniform(-6, 6), 22, 11, 11, (255, 226, 104))
    pen.rectangle((0, (horizon - 14) * u, 128 * u, horizon * u), fill=(58, 160, 214))
    pen.rectangle((0, (horizon - 2) * u, 128 * u, horizon * u), fill=(240, 252, 255))


def _night(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    disc(pen, u, 20 + rng.uniform(-4, 4), 22, 11, 11, (255, 240, 190))
    for _ in range(16):
        x, y, r = rng.uniform(3, 125), rng.uniform(3, horizon - 16), rng.uniform(0.9, 1.6)
        disc(pen, u, x, y, r, r, (250, 246, 220))


def _city(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    for i, x in enumerate(range(-4, 128, 19)):
        top = horizon - (24, 46, 30, 54, 34, 50, 28)[i % 7] - rng.uniform(-4, 4)
        tone: Colour = ((112, 122, 142), (134, 144, 164))[i % 2]
        pen.rectangle((x * u, top * u, (x + 17) * u, horizon * u), fill=tone)
        for y in (top + 5, top + 14):
            for wx in (x + 3, x + 10):
                pen.rectangle((wx * u, y * u, (wx + 4) * u, (y + 4) * u), fill=(255, 232, 158))


def _snow(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    for x, h in ((14, 30), (32, 20), (98, 22), (116, 34)):
        x = round(x + rng.uniform(-3, 3))
        pen.polygon(
            [((x - 11) * u, horizon * u), (x * u, (horizon - h) * u), ((x + 11) * u, horizon * u)],
            (74, 134, 124),
        )
        pen.polygon(
            [
                ((x - 4.5) * u, (horizon - h * 0.6) * u),
                (x * u, (horizon - h) * u),
                ((x + 4.5) * u, (horizon - h * 0.6) * u),
            ],
            (250, 252, 255),
        )
    for _ in range(12):
        disc(pen, u, rng.uniform(3, 125), rng.uniform(3, horizon - 4), 1.5, 1.5, (255, 255, 255))


def _sunset(pen: ImageDraw.ImageDraw, u: float, horizon: float, rng: random.Random) -> None:
    disc(pen, u, 100 + rng.uniform(-6, 6), horizon - 12, 16, 16, (255, 240, 168))
    disc(pen, u, 18 + rng.uniform(-6, 6), horizon + 4, 42, 20, (176, 96, 118))
    disc(pen, u, 118 + rng.uniform(-6, 6), horizon + 6, 36, 14, (162, 88, 114))
    pen.rectangle((0, horizon * u, 128 * u, (horizon + 1) * u), fill=(150, 84, 112))


_SCENERY: dict[str, Callable[[ImageDraw.ImageDraw, float, float, random.Random], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "city": _city,
    "snow": _snow,
    "sunset": _sunset,
}
