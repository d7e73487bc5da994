"""Pictures made up from a seed, with the statistics of photographs, and changed copies of them.

No two seeds give the same picture. `rival` gives the pictures that are easily mistaken
for one: another figure in the same place, another moment of the same figure.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance

from masuka.pocket import world

Pixels = npt.NDArray[np.uint8]
KINDS = ("leaves", "land", "person", "room", "robot")


def scene(seed: int, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture of one of KINDS; its size varies too unless it is given."""
    rng = random.Random(f"size {seed}")
    width, height = size or rng.choice([(768, 512), (512, 768), (640, 640), (800, 600), (600, 800)])
    return _DRAW[KINDS[seed % len(KINDS)]](width, height, seed, seed)


def rival(seed: int, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture that shares the place, the palette or the figure with `scene(seed)`, not more."""
    rng = random.Random(f"size {seed}")
    width, height = size or rng.choice([(768, 512), (512, 768), (640, 640), (800, 600), (600, 800)])
    kind = KINDS[seed % len(KINDS)]
    if kind == "robot":
        return _robot(width, height, seed, seed + 500_000)
    return _DRAW[kind](width, height, seed, seed + 500_000)


def moment(seed: int, side: int = 512) -> tuple[Image.Image, Image.Image]:
    """Two pictures of one robot at one place in one pose: only its face is another."""
    rng = random.Random(f"moment {seed}")
    before = world.sample_any_scene(rng)
    face = rng.choice([face for face in world.ATTRIBUTES["face"] if face != before.robot.face])
    return world.draw(before, side), world.draw(replace(before, robot=replace(before.robot, face=face)), side)


def rescaled(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture at 30 to 150 % of its size."""
    share = rng.choice([rng.uniform(0.3, 0.9), rng.uniform(1.1, 1.5)])
    filters = (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
    return image.resize((round(image.width * share), round(image.height * share)), rng.choice(filters))


def recompressed(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture after JPEG or WebP of quality 20 to 90."""
    stream = io.BytesIO()
    image.save(stream, rng.choice(["JPEG", "WEBP"]), quality=rng.randint(20, 90))
    return Image.open(stream).convert("RGB")


def cropped(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture without up to a tenth of its width and height, anywhere."""
    width, height = (round(side * rng.uniform(0.9, 0.98)) for side in image.size)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def relit(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture at 60 to 90 or 110 to 140 % of its brightness."""
    return ImageEnhance.Brightness(image).enhance(rng.choice([rng.uniform(0.6, 0.9), rng.uniform(1.1, 1.4)]))


def changed_in_every_way(image: Image.Image, rng: random.Random) -> Image.Image:
    """The picture cropped, relit, rescaled and recompressed."""
    for change in (cropped, relit, rescaled, recompressed):
        image = change(image, rng)
    return image


CHANGES: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "rescaled": rescaled, "recompressed": recompressed, "cropped": cropped, "relit": relit,
    "all four": changed_in_every_way,
}  # fmt: skip


def clouds(width: int, height: int, rng: np.random.Generator, *, falloff: float = 1.9) -> npt.NDArray[np.float32]:
    """Noise of many sizes, 0 to 1, the larger the stronger, as light in nature is."""
    total = np.zeros((height, width), np.float32)
    cells, weight = 3, 1.0
    while cells < max(width, height):
        grid = rng.random((cells, cells), dtype=np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight / falloff
    total -= total.min()
    return total / max(1e-6, float(total.max()))


def _textured(pixels: Pixels, rng: np.random.Generator, strength: float = 0.35) -> Image.Image:
    height, width = pixels.shape[:2]
    light = 1 - strength / 2 + strength * (clouds(width, height, rng, falloff=1.35) - 0.5)[..., None]
    grain = rng.normal(0, 2.0, pixels.shape)
    return Image.fromarray(np.clip(pixels * light + grain, 0, 255).astype(np.uint8))


def _palette(rng: random.Random) -> list[tuple[int, int, int]]:
    base = [rng.randint(30, 225) for _ in range(3)]
    return [
        (min(255, max(0, base[0] + rng.randint(-90, 90))), min(255, max(0, base[1] + rng.randint(-90, 90))),
         min(255, max(0, base[2] + rng.randint(-90, 90))))
        for _ in range(12)
    ]  # fmt: skip


def _leaves(width: int, height: int, place: int, figure: int) -> Image.Image:
    """Overlapping shapes of all sizes (a dead-leaves model); `figure` moves all of them."""
    colours, rng = _palette(random.Random(f"palette {place}")), random.Random(f"leaves {figure}")
    pixels = np.full((height, width, 3), colours[0], np.uint8)
    for _ in range(260):
        radius = min(0.45, 0.02 / max(0.03, rng.random()) ** 0.9) * min(width, height)
        centre = (rng.randrange(width), rng.randrange(height))
        axes = (int(radius) + 1, int(radius * rng.uniform(0.3, 1)) + 1)
        cv2.ellipse(pixels, centre, axes, rng.uniform(0, 180), 0, 360, rng.choice(colours), -1, cv2.LINE_AA)
    return _textured(pixels, np.random.default_rng(figure))


def _land(width: int, height: int, place: int, figure: int) -> Image.Image:
    """Sky, ridges and ground; `figure` moves the ridges and clouds, the colours stay."""
    colours, rng = _palette(random.Random(f"palette {place}")), np.random.default_rng(figure)
    fade = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    pixels = (np.array(colours[0]) * (1 - fade) + np.array(colours[1]) * fade) * np.ones((1, width, 1))
    pixels += (90 * np.clip(clouds(width, height, rng) - 0.5, 0, 1))[..., None]
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    for layer in range(4):
        heights = clouds(width, 8, rng, falloff=1.7)[4]
        line = ((0.35 + 0.15 * layer + 0.3 * (heights - 0.5)) * height).astype(int)
        edge = np.column_stack([np.arange(width), line])
        outline = np.vstack([edge, [[width, height], [0, height]]]).astype(np.int32)
        cv2.fillPoly(pixels, [outline], colours[2 + layer], cv2.LINE_AA)
    for _ in range(30):
        x, y, tall = int(rng.integers(width)), int(rng.integers(height // 2, height)), int(rng.integers(10, 60))
        cv2.line(pixels, (x, y), (x, y - tall), colours[7], 3, cv2.LINE_AA)
        cv2.circle(pixels, (x, y - tall), tall // 3, colours[8], -1, cv2.LINE_AA)
    return _textured(pixels, rng)


def _person(width: int, height: int, place: int, figure: int) -> Image.Image:
    """A figure from the waist up before a blurred place."""
    there, rng = np.random.default_rng(place), random.Random(f"person {figure}")
    colours = _palette(random.Random(f"palette {place}"))
    mixed = clouds(width, height, there)[..., None]
    pixels = np.clip(np.array(colours[0]) * mixed + np.array(colours[1]) * (1 - mixed), 0, 255).astype(np.uint8)
    for _ in range(12):
        centre = (int(there.integers(width)), int(there.integers(height)))
        cv2.circle(pixels, centre, int(there.integers(8, 60)), colours[int(there.integers(2, 12))], -1, cv2.LINE_AA)
    pixels = cv2.GaussianBlur(pixels, (0, 0), 7).astype(np.uint8)
    unit = min(width, height) * rng.uniform(0.1, 0.16)
    x, y = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.3, 0.42)
    skin = rng.choice([(240, 205, 180), (225, 175, 140), (160, 110, 80), (95, 65, 50)])
    hair = rng.choice([(40, 28, 22), (120, 80, 40), (210, 180, 110), (150, 60, 30)])
    cloth = [rng.randint(20, 235) for _ in range(3)]

    def oval(cx: float, cy: float, rx: float, ry: float, colour: object) -> None:
        at, axes = (int(x + cx * unit), int(y + cy * unit)), (max(1, int(rx * unit)), max(1, int(ry * unit)))
        cv2.ellipse(pixels, at, axes, 0, 0, 360, colour, -1, cv2.LINE_AA)  # type: ignore[call-overload]

    oval(0, 3.6, 2.4, 2.3, cloth)
    oval(0, -0.2, 1.2, rng.uniform(1.3, 2.2), hair)
    oval(0, 1.3, 0.45, 0.7, skin)
    oval(0, 0, 0.9, 1.2, skin)
    for side in (-0.38, 0.38):
        oval(side, -0.2, 0.17, rng.uniform(0.05, 0.11), (250, 250, 250))
        oval(side + rng.uniform(-0.06, 0.06), -0.2, 0.07, 0.08, (30, 30, 40))
    oval(rng.uniform(-0.05, 0.05), 0.6, rng.uniform(0.2, 0.4), rng.uniform(0.05, 0.17), (150, 50, 60))
    return _textured(pixels, np.random.default_rng(figure), 0.2)


def _room(width: int, height: int, place: int, figure: int) -> Image.Image:
    """Walls, a floor and things of straight edges; `figure` moves the things."""
    colours, rng = _palette(random.Random(f"palette {place}")), random.Random(f"room {figure}")
    pixels = np.full((height, width, 3), colours[0], np.uint8)
    floor = int(height * random.Random(f"floor {place}").uniform(0.6, 0.8))
    pixels[floor:] = colours[1]
    for _ in range(18):
        w, h = rng.randint(width // 20, width // 3), rng.randint(height // 20, height // 3)
        x, y = rng.randint(-w // 2, width), rng.randint(0, height - h // 2)
        cv2.rectangle(pixels, (x, y), (x + w, y + h), rng.choice(colours[2:]), -1)
        cv2.rectangle(pixels, (x, y), (x + w, y + h), (30, 26, 24), 2, cv2.LINE_AA)
        for line in range(rng.randint(0, 5)):
            cv2.line(pixels, (x, y + line * h // 6), (x + w, y + line * h // 6), rng.choice(colours), 2)
    return _textured(pixels, np.random.default_rng(figure))


def _robot(width: int, height: int, place: int, figure: int) -> Image.Image:
    """One of Pocket's robots; another `figure` is another robot at the very same place."""
    there = world.sample_any_scene(random.Random(f"place {place}"))
    drawn = world.sample_any_scene(random.Random(f"robot {figure}"))
    side = min(width, height)
    return world.draw(replace(drawn, place=there.place, detail=there.detail), side)


_DRAW: dict[str, Callable[[int, int, int, int], Image.Image]] = {
    "leaves": _leaves, "land": _land, "person": _person, "room": _room, "robot": _robot,
}  # fmt: skip
