"""Paints a Pocketworld scene with Pillow; knows shapes and colours, not words."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from masuka.pocket.places import LANDS, UNITS, Colour, backdrop, disc, gradient, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from masuka.pocket.world import Scene

Point = tuple[float, float]

_OVERSAMPLE = 3
_INK: Colour = (58, 40, 44)
_CREAM: Colour = (255, 248, 232)
_FLOOR_Y = 112.0  # where the feet stand

COLOURS: dict[str, Colour] = {
    "red": (222, 52, 48),
    "orange": (244, 140, 38),
    "yellow": (252, 212, 60),
    "green": (76, 176, 84),
    "blue": (62, 124, 226),
    "purple": (142, 84, 200),
    "pink": (246, 146, 192),
    "grey": (158, 160, 168),
}
# body: half width of the head where antennas start, their height, face y, eye distance, neck y, top y
_FIT: dict[str, tuple[float, float, float, float, float, float]] = {
    "round": (22.0, -55.0, -42.0, 11.5, -15.0, -64.0),
    "square": (25.0, -60.0, -45.0, 12.0, -16.0, -63.0),
    "tall": (16.0, -66.0, -51.0, 9.0, -19.0, -73.0),
    "triangle": (13.0, -52.0, -34.0, 10.0, -9.5, -66.0),
}


def paint(scene: Scene, size_px: int) -> Image.Image:
    """The scene as RGB, drawn at three times the size and reduced."""
    side = size_px * _OVERSAMPLE
    brush = _Brush(backdrop(scene.place, scene.detail, side).copy(), scene)
    _ground_shadow(brush, scene.place)
    _limbs(brush, scene)
    if scene.robot.antenna == "antenna":
        _antennas(brush, scene.robot.body)
    _body(brush, scene)
    _FACES[scene.robot.face](brush, scene.robot.body)
    if scene.robot.accessory != "none":
        _ACCESSORIES[scene.robot.accessory](brush, scene.robot.body)
    if scene.robot.hat != "none":
        _HATS[scene.robot.hat](brush, _FIT[scene.robot.body][5])
    return brush.image.resize((size_px, size_px), Image.Resampling.LANCZOS)


class _Brush:
    """Draws in the robot's own coordinates: origin between the feet, y upwards is negative."""

    def __init__(self, image: Image.Image, scene: Scene) -> None:
        self.image = image
        self.pen = ImageDraw.Draw(image)
        self.unit = image.width / UNITS
        angle = math.radians(scene.tilt_deg)
        self._cos, self._sin = math.cos(angle) * scene.size, math.sin(angle) * scene.size
        self.origin = (64 + scene.shift_x_px, _FLOOR_Y + scene.shift_y_px)
        self.size = scene.size

    def place(self, points: list[Point]) -> list[Point]:
        """The points in image pixels."""
        (ox, oy), u = self.origin, self.unit
        c, s = self._cos, self._sin
        return [((ox + x * c - y * s) * u, (oy + x * s + y * c) * u) for x, y in points]

    def fill(self, points: list[Point], colour: Colour, ink: float = 1.7) -> None:
        """A filled shape with an outline of ink units (0 for none)."""
        placed = self.place(points)
        self.pen.polygon(placed, fill=colour)
        if ink:
            self._stroke([*placed, placed[0], placed[1]], _INK, ink)

    def line(self, points: list[Point], width: float, colour: Colour = _INK) -> None:
        """A round-ended stroke."""
        placed = self.place(points)
        self._stroke(placed, colour, width)
        r = width * self.unit * self.size / 2
        for x, y in (placed[0], placed[-1]):
            self.pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def _stroke(self, placed: list[Point], colour: Colour, width: float) -> None:
        self.pen.line(placed, fill=colour, width=round(width * self.unit * self.size), joint="curve")


def _oval(x: float, y: float, rx: float, ry: float, n: int = 28) -> list[Point]:
    return [(x + rx * c, y + ry * s) for c, s in _circle(n)]


@lru_cache(maxsize=8)
def _circle(n: int) -> tuple[Point, ...]:
    return tuple((math.cos(2 * math.pi * i / n), math.sin(2 * math.pi * i / n)) for i in range(n))


def _arc(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    steps = [math.radians(start + (end - start) * i / 12) for i in range(13)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in steps]


def _rounded(corners: list[Point], radius: float) -> list[Point]:
    """The polygon with each corner replaced by a curve that starts radius away from it."""
    points: list[Point] = []
    for i, (x, y) in enumerate(corners):
        ends: list[Point] = []
        for px, py in (corners[i - 1], corners[(i + 1) % len(corners)]):
            length = math.hypot(px - x, py - y)
            share = min(radius, length / 2) / length
            ends.append((x + (px - x) * share, y + (py - y) * share))
        (ax, ay), (bx, by) = ends
        for k in range(7):
            t = k / 6
            a, b, c = (1 - t) ** 2, 2 * t * (1 - t), t * t
            points.append((a * ax + b * x + c * bx, a * ay + b * y + c * by))
    return points


@lru_cache(maxsize=8)
def _outline(body: str) -> tuple[Point, ...]:
    if body == "round":
        return tuple(_oval(0, -35, 31, 30, 48))
    if body == "square":
        return tuple(_rounded([(-29, -64), (29, -64), (29, -5), (-29, -5)], 11))
    if body == "tall":
        return tuple(_rounded([(-20, -74), (20, -74), (20, -5), (-20, -5)], 19))
    return tuple(_rounded([(0, -82), (41, -5), (-41, -5)], 17))


def _body(brush: _Brush, scene: Scene) -> None:
    robot = scene.robot
    base = COLOURS[robot.colour]
    outline = list(_outline(robot.body))
    placed = brush.place(outline)
    xs, ys = [p[0] for p in placed], [p[1] for p in placed]
    left, top = math.floor(min(xs)), math.floor(min(ys))
    width, height = math.ceil(max(xs)) - left + 1, math.ceil(max(ys)) - top + 1
    skin = gradient(mix(base, (255, 255, 255), 0.22), mix(base, _INK, 0.16), width, height)
    mask = Image.new("L", (width, height), 0)
    ImageDraw.Draw(mask).polygon([(x - left, y - top) for x, y in placed], fill=255)
    pen = ImageDraw.Draw(skin)
    for shape, colour in _pattern(robot.pattern, robot.body, base):
        pen.polygon([(x - left, y - top) for x, y in brush.place(shape)], fill=colour)
    brush.image.paste(skin, (left, top), mask)
    brush.pen.line([*placed, placed[0], placed[1]], _INK, round(2 * brush.unit * brush.size))


_SPOTS: dict[str, tuple[Point, ...]] = {
    "round": ((-24, -27), (24, -26), (0, -59), (-14, -10), (15, -9), (-27, -47), (27, -47)),
    "square": ((-24, -28), (24, -27), (0, -58), (-20, -10), (20, -10), (-25, -54), (25, -54)),
    "tall": ((-15, -31), (15, -33), (0, -66), (-10, -12), (13, -14), (-18, -62), (18, -62)),
    "triangle": ((-24, -16), (24, -16), (0, -54), (-13, -9), (33, -9), (-34, -9), (13, -46)),
}


def _pattern(pattern: str, body: str, base: Colour) -> list[tuple[list[Point], Colour]]:
    if pattern == "spots":
        tone = mix(base, _INK, 0.45)
        return [(_oval(x, y, 6.2, 6.2, 20), tone) for x, y in _SPOTS[body]]
    if pattern == "stripes":
        bands = [(-72.0, -65.0), (-57.0, -50.0), (-42.0, -35.0), (-27.0, -20.0), (-12.0, -5.0)]
        return [([(-50, a), (50, a), (50, b), (-50, b)], _CREAM) for a, b in bands]
    return []


def _limbs(brush: _Brush, scene: Scene) -> None:
    tone = mix(COLOURS[scene.robot.colour], _INK, 0.35)
    reach = {"round": 33.0, "square": 32.0, "tall": 23.0, "triangle": 33.0}[scene.robot.body]
    for side in (-1, 1):
        brush.fill(_oval(side * 11, -4, 9, 5.5, 20), tone)
        brush.fill(_oval(side * reach, -24, 6, 7, 20), tone)


def _antennas(brush: _Brush, body: str) -> None:
    x, y = _FIT[body][0], _FIT[body][1]
    for side in (-1, 1):
        brush.line([(side * (x - 4), y + 4), (side * (x + 12), y - 13)], 3.6)
        brush.fill(_oval(side * (x + 13), y - 15, 6.6, 6.6), (255, 92, 116))
        brush.fill(_oval(side * (x + 13) - 2, y - 17, 2, 2, 12), (255, 214, 220), 0)


def _eyes(brush: _Brush, body: str, radius: float, pupil: float, drop: float = 0.0) -> None:
    _, _, y, dx, _, _ = _FIT[body]
    for side in (-1, 1):
        brush.fill(_oval(side * dx, y, radius, radius), (255, 255, 255))
        brush.fill(_oval(side * dx, y + drop, pupil, pupil, 18), (36, 28, 36), 0)
        brush.fill(_oval(side * dx + 1.3, y + drop - 1.6, 1.3, 1.3, 10), (255, 255, 255), 0)


def _happy(brush: _Brush, body: str) -> None:
    _eyes(brush, body, 7.0, 3.9)
    y = _FIT[body][2] + 10
    brush.fill([*_arc(0, y, 11.5, 10, 0, 180)], (150, 36, 48))
    brush.fill([*_arc(0, y, 11.5, 3, 0, 180)], (255, 255, 255), 0)


def _angry(brush: _Brush, body: str) -> None:
    _eyes(brush, body, 6.6, 3.6, 1.0)
    _, _, y, dx, _, _ = _FIT[body]
    for side in (-1, 1):
        brush.line([(side * (dx + 7), y - 10), (side * (dx - 6), y - 3)], 4.2)
    brush.line(_arc(0, y + 19, 10, 7, 200, 340), 3.4)


def _sleepy(brush: _Brush, body: str) -> None:
    _, _, y, dx, _, _ = _FIT[body]
    for side in (-1, 1):
        brush.line(_arc(side * dx, y - 2, 6.4, 5, 0, 180), 3.2)
    brush.line([(-5.5, y + 14), (5.5, y + 14)], 3.4)


def _surprised(brush: _Brush, body: str) -> None:
    _eyes(brush, body, 8.2, 2.8)
    brush.fill(_oval(0, _FIT[body][2] + 16, 6, 6.6), (110, 28, 44))


def _bow_tie(brush: _Brush, body: str) -> None:
    y = _FIT[body][4] + 2
    for side in (-1, 1):
        brush.fill([(side * 2, y - 2), (side * 15, y - 7.5), (side * 15, y + 7.5), (side * 2, y + 2)], _CREAM)
    brush.fill(_oval(0, y, 3.8, 4.2, 18), (206, 44, 62))


def _scarf(brush: _Brush, body: str) -> None:
    y = _FIT[body][4]
    reach = {"round": 27.0, "square": 31.0, "tall": 22.0, "triangle": 37.0}[body]
    teal: Colour = (34, 172, 160)
    brush.fill(_rounded([(8, y + 2), (20, y + 2), (23, y + 19), (11, y + 19)], 2), mix(teal, _INK, 0.2))
    brush.fill(_rounded([(-reach, y - 5), (reach, y - 5), (reach, y + 5), (-reach, y + 5)], 4), teal)
    brush.line([(10.5, y + 14), (21, y + 14)], 2.2, _CREAM)


def _crown(brush: _Brush, top: float) -> None:
    gold: Colour = (255, 206, 46)
    base = top + 5
    points: list[Point] = [(-17, base), (-19, base - 21), (-9, base - 11), (0, base - 24)]
    brush.fill([*points, (9, base - 11), (19, base - 21), (17, base)], gold)
    for x, tone in ((-9.0, (226, 54, 70)), (0.0, (62, 130, 230)), (9.0, (226, 54, 70))):
        brush.fill(_oval(x, base - 5, 2.4, 2.4, 14), tone, 0)


def _top_hat(brush: _Brush, top: float) -> None:
    felt: Colour = (74, 62, 88)
    base = top + 4
    brush.fill([(-12, base - 3), (-13.5, base - 25), (13.5, base - 25), (12, base - 3)], felt)
    brush.fill([(-12.3, base - 4), (-12.8, base - 10), (12.8, base - 10), (12.3, base - 4)], (226, 64, 72), 0)
    brush.fill(_rounded([(-22, base - 4), (22, base - 4), (22, base + 2), (-22, base + 2)], 3), felt)


def _cap(brush: _Brush, top: float) -> None:
    cloth: Colour = (46, 188, 206)
    base = top + 6
    brush.fill(
        _rounded([(8, base - 5), (31, base - 4), (31, base + 1), (8, base + 1)], 3), mix(cloth, _INK, 0.3)
    )
    brush.fill(_arc(0, base, 18, 18, 180, 360), cloth)
    brush.fill(_arc(0, base, 7, 17.5, 180, 360), _CREAM, 0)
    brush.fill(_oval(0, base - 18, 2.8, 2.4, 12), cloth)


def _party_hat(brush: _Brush, top: float) -> None:
    base = top + 5
    brush.fill([(-13, base), (0, base - 25), (13, base)], (252, 106, 166))
    brush.fill([(-10.5, base - 5), (-7.5, base - 11), (7.5, base - 11), (10.5, base - 5)], (255, 232, 120), 0)
    brush.fill(_oval(0, base - 25, 4.6, 4.6, 18), (255, 255, 255))


_FACES: dict[str, Callable[[_Brush, str], None]] = {
    "happy": _happy,
    "angry": _angry,
    "sleepy": _sleepy,
    "surprised": _surprised,
}
_HATS: dict[str, Callable[[_Brush, float], None]] = {
    "crown": _crown,
    "top hat": _top_hat,
    "cap": _cap,
    "party hat": _party_hat,
}
_ACCESSORIES: dict[str, Callable[[_Brush, str], None]] = {"bow tie": _bow_tie, "scarf": _scarf}


def _ground_shadow(brush: _Brush, place: str) -> None:
    near = LANDS[place][3]
    (x, y), u, k = brush.origin, brush.unit, brush.size
    for grow, share in ((1.0, 0.14), (0.82, 0.26)):
        disc(brush.pen, u, x, y, 38 * k * grow, 7 * k * grow, mix(near, (20, 16, 40), share))
