"""What the built-in caption model says about Pocketworld, and what its words mean.

Knows every attribute, those kept out of Pocket's own training included; light, pure text.
Absence is not said: no hat, no accessory, no antenna and a plain body go unmentioned.
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from masuka.pocket.words import WAYS

if TYPE_CHECKING:
    from masuka.pocket.world import Scene

SENTENCE, TAGS = "describe", "list"
"""The word that asks the model for a sentence, or for tags."""

NOTHING_KNOWN = "no robot"
"""What it says about a picture that is not of Pocketworld."""

UNSAID = {"pattern": "plain", "hat": "none", "accessory": "none", "antenna": "none"}
SAID: dict[str, dict[str, tuple[str, ...]]] = {
    **{name: WAYS[name] for name in ("face", "colour", "body")},
    "pattern": {"spots": ("spotted", "dotted"), "stripes": ("striped",)},
    # Without the colours that Pocket's captions know ("a pink party hat"): a colour is the robot's.
    "hat": {value: ways[:1] for value, ways in WAYS["hat"].items() if value != "none"},
    "accessory": {"bow tie": ("a bow tie",), "scarf": ("a scarf",)},
    "antenna": {"antenna": ("an antenna",)},
    "place": WAYS["place"],
}
"""Attribute → value → ways to say it, the usual one first."""

_ADJECTIVES = ("face", "colour", "body", "pattern")
_WORN = ("hat", "accessory")
_STARTS = ("", "", "", "a picture of ", "a drawing of ")
_USUAL = 0.6  # share of words said the usual way, so that the likeliest caption is the same everywhere


def sentence(scene: Scene, rng: random.Random) -> str:
    """A sentence that names all there is to see."""
    words = _words(scene, rng)
    adjectives = [words[name] for name in _ADJECTIVES if name in words]
    worn = [words[name] for name in _WORN if name in words]
    text = f"{_start(rng)}{'an' if adjectives[0][0] in 'aeiou' else 'a'} {' '.join(adjectives)} robot"
    if worn:
        text += f" wearing {' and '.join(worn)}"
    if "antenna" in words:
        text += f"{' and' if worn else ''} with {words['antenna']}"
    return f"{text} {words['place']}"


def tags(scene: Scene, rng: random.Random) -> str:
    """The same as tags, always in one order."""
    words = _words(scene, rng)
    order = ("colour", "body", "pattern", "antenna", "hat", "accessory", "face", "place")
    said = [words[name] for name in order if name in words]
    return ", ".join(["robot", *(re.sub(r"^an? ", "", text) for text in said)])


def read(text: str) -> dict[str, str]:
    """Attribute → value of a caption; what is unsaid and cannot be absent is missing."""
    found = dict(UNSAID)
    for name, values in SAID.items():
        for value, ways in values.items():
            if any(_spoken(way).search(text) for way in ways):
                found[name] = value
    return found


def vocabulary() -> list[str]:
    """Every word that the model can say or is asked with, once each, sorted."""
    texts = [SENTENCE, TAGS, NOTHING_KNOWN, "robot wearing and with a an ,", *_STARTS]
    texts += [way for values in SAID.values() for ways in values.values() for way in ways]
    return sorted({word for text in texts for word in text.split()})


def _words(scene: Scene, rng: random.Random) -> dict[str, str]:
    """Attribute → words, for what the scene shows."""
    words: dict[str, str] = {}
    for name, value in scene.attributes.items():
        ways = SAID[name].get(value)
        if ways:
            words[name] = ways[0] if rng.random() < _USUAL else rng.choice(ways)
    return words


def _start(rng: random.Random) -> str:
    return "" if rng.random() < _USUAL else rng.choice(_STARTS)


def _spoken(way: str) -> re.Pattern[str]:
    bare = re.sub(r"^an? ", "", way)
    # "cap" is not in "baseball caption", and "top hat" is not "party hat".
    return re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)")
