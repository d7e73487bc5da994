"""Pocketworld: the little robots that the built-in model learns to draw.

Owns what a scene is, how it is drawn and how it is described. Pure Pillow and
the standard library: it knows nothing of torch, of files or of the training.
The same seed gives the same pixels and the same words on every machine.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass, replace

from PIL import Image

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "body": ("round", "square", "tall", "triangle"),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "grey"),
    "pattern": ("plain", "spots", "stripes"),
    "face": ("happy", "angry", "sleepy", "surprised"),
    "hat": ("none", "crown", "top hat", "cap", "party hat"),
    "accessory": ("none", "bow tie", "scarf"),
    "antenna": ("none", "antenna"),
    "place": ("meadow", "beach", "night", "city", "snow", "sunset"),
}
# Never in the transformer's or the text encoders' data, so that a LoRA has something new to learn.
KEPT_OUT: dict[str, str] = {"pattern": "stripes", "accessory": "scarf", "antenna": "antenna"}
SIZE_PX = 128
_HELD_OUT_SHARE = 16  # one combination in 16 is never trained on


@dataclass(frozen=True)
class Robot:
    """What makes a robot itself, and what it wears today."""

    body: str
    colour: str
    pattern: str = "plain"
    face: str = "happy"
    hat: str = "none"
    accessory: str = "none"
    antenna: str = "none"


@dataclass(frozen=True)
class Scene:
    """A robot somewhere; the pose (pixels at 128 px, degrees) is in no caption."""

    robot: Robot
    place: str
    shift_x_px: float = 0.0
    shift_y_px: float = 0.0
    size: float = 1.0
    tilt_deg: float = 0.0
    detail: int = 0

    @property
    def attributes(self) -> dict[str, str]:
        """Every attribute by name, in the order of ATTRIBUTES."""
        values = {**asdict(self.robot), "place": self.place}
        return {name: values[name] for name in ATTRIBUTES}

    def with_pose(self, rng: random.Random) -> Scene:
        """The same scene in a new pose."""
        return replace(
            self,
            shift_x_px=rng.uniform(-7, 7),
            shift_y_px=rng.uniform(-3, 3),
            size=rng.uniform(0.93, 1.07),
            tilt_deg=rng.uniform(-5, 5),
            detail=rng.randrange(8),
        )


def is_held_out(scene: Scene) -> bool:
    """True for combinations that no training picture shows (benchmark prompts)."""
    key = "|".join(scene.attributes.values()).encode()
    return hashlib.sha256(key).digest()[0] % _HELD_OUT_SHARE == 0


def sample_scene(rng: random.Random, *, held_out: bool = False) -> Scene:
    """A scene without kept-out attributes; held_out picks untrained combinations."""
    while True:
        picked = {
            name: rng.choice([v for v in values if v != KEPT_OUT.get(name)])
            for name, values in ATTRIBUTES.items()
        }
        scene = _scene(picked, rng)
        if is_held_out(scene) == held_out:
            return scene


def sample_any_scene(rng: random.Random) -> Scene:
    """A scene over the full space, kept-out attributes included (VAE and judge)."""
    return _scene({name: rng.choice(values) for name, values in ATTRIBUTES.items()}, rng)


def unseen_character(seed: int) -> Robot:
    """A robot that the base cannot know: stripes, antennas, every other one a scarf."""
    rng = random.Random(f"character {seed}")
    return Robot(
        body=rng.choice(ATTRIBUTES["body"]),
        colour=rng.choice(ATTRIBUTES["colour"]),
        pattern="stripes",
        accessory="scarf" if seed % 2 else "none",
        antenna="antenna",
    )


def character_scenes(seed: int, n: int = 20) -> list[Scene]:
    """n scenes of one unseen character; place, face and hat vary evenly."""
    rng = random.Random(f"scenes {seed}")
    columns = {name: _shuffled_cycle(ATTRIBUTES[name], n, rng) for name in ("face", "hat", "place")}
    robot = unseen_character(seed)
    return [
        Scene(replace(robot, face=face, hat=hat), place).with_pose(rng)
        for face, hat, place in zip(columns["face"], columns["hat"], columns["place"], strict=True)
    ]


def character_set(seed: int, n: int = 20) -> list[tuple[Image.Image, str]]:
    """n (picture, caption) pairs of one unseen character; captions hold {trigger}."""
    from masuka.pocket.words import character_caption

    rng = random.Random(f"captions {seed}")
    return [(draw(scene), character_caption(scene, rng)) for scene in character_scenes(seed, n)]


def draw(scene: Scene, size_px: int = SIZE_PX) -> Image.Image:
    """The scene as an RGB picture of size_px × size_px."""
    from masuka.pocket.drawing import paint

    return paint(scene, size_px)


def caption(scene: Scene, rng: random.Random) -> str:
    """A sentence about the scene in varied wording; some attributes may be left out."""
    from masuka.pocket.words import caption as words_caption

    return words_caption(scene, rng)


def canonical_prompt(scene: Scene) -> str:
    """The sentence that names every attribute, "no hat" and "plain" included."""
    from masuka.pocket.words import canonical_prompt as words_prompt

    return words_prompt(scene)


def _scene(picked: dict[str, str], rng: random.Random) -> Scene:
    place = picked.pop("place")
    return Scene(Robot(**picked), place).with_pose(rng)


def _shuffled_cycle(values: tuple[str, ...], n: int, rng: random.Random) -> list[str]:
    column = [values[i % len(values)] for i in range(n)]
    rng.shuffle(column)
    return column
