"""How Pocketworld is put into words: captions, the benchmark's prompts, the vocabulary.

Knows the sentences, not the pixels. No sentence from here names a kept-out attribute.
"""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from masuka.pocket.world import Scene

# value: ways to say it; the first one is the canonical one
_ADJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "face": {
        "happy": ("happy", "smiling", "cheerful"),
        "angry": ("angry", "cross", "grumpy"),
        "sleepy": ("sleepy", "tired", "dozing"),
        "surprised": ("surprised", "amazed", "astonished"),
    },
    "colour": {
        **{c: (c,) for c in ("red", "orange", "yellow", "green", "blue", "purple", "pink")},
        "grey": ("grey", "gray"),
    },
    "body": {
        "round": ("round", "circular"),
        "square": ("square", "boxy"),
        "tall": ("tall", "slim"),
        "triangle": ("triangle", "triangular"),
    },
    "pattern": {"plain": ("plain", "plain"), "spots": ("spotted", "dotted")},
}
_WEAR: dict[str, dict[str, tuple[str, ...]]] = {
    "hat": {
        "none": ("no hat",),
        "crown": ("a crown", "a golden crown"),
        "top hat": ("a top hat", "a black top hat"),
        "cap": ("a cap", "a baseball cap"),
        "party hat": ("a party hat", "a pink party hat"),
    },
    "accessory": {"none": ("no bow tie",), "bow tie": ("a bow tie", "a white bow tie")},
}
_PLACES: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on the grass", "in the meadow"),
    "beach": ("on a beach", "by the sea", "on the beach"),
    "night": ("at night", "under the stars", "in the moonlight"),
    "city": ("in a city", "in town", "in the city"),
    "snow": ("in the snow", "on snow", "in winter"),
    "sunset": ("at sunset", "in the evening", "at sundown"),
}
WAYS: dict[str, dict[str, tuple[str, ...]]] = {**_ADJECTIVES, **_WEAR, "place": _PLACES}
"""Attribute → value → ways to say it, the canonical one first."""

_STARTS = ("", "", "", "a picture of ", "a drawing of ", "an image of ")
_ENDS = ("soft light", "wide shot", "high quality", "cute", "detailed", "cartoon", "close up")
_NOUNS = ("robot", "robot", "robot", "little robot", "bot")
# Says nothing about the picture; here so that names and stray words do no harm.
_GLUE = (
    "the and of with wearing without in on at by under it is has its he she his her standing sitting "
    "looking smile called named one two little small big cute very hat tie bow no a an , . picture photo "
    "drawing image character person girl boy man woman"
)
_OMIT = 0.12  # share of captions that leave a given attribute unsaid
_NONE_SAID = 0.5  # "no hat", "plain" are said this often; silence mostly means none
_NAMED = 0.12  # share of captions with a name that means nothing


def canonical_prompt(scene: Scene) -> str:
    """The sentence that names every attribute."""
    values = scene.attributes
    adjectives = " ".join(_ADJECTIVES[n][values[n]][0] for n in ("face", "colour", "body", "pattern"))
    worn = " and ".join(_WEAR[n][values[n]][0] for n in ("hat", "accessory"))
    return f"{_article(adjectives)} {adjectives} robot wearing {worn} {_PLACES[values['place']][0]}"


def caption(scene: Scene, rng: random.Random) -> str:
    """A sentence in varied wording; each attribute is left out now and then."""
    if rng.random() < 0.15:
        return canonical_prompt(scene)
    values = scene.attributes
    adjectives = [
        rng.choice(_ADJECTIVES[n][values[n]])
        for n in ("face", "colour", "body", "pattern")
        if _is_said(values[n], rng)
    ]
    if rng.random() < 0.5:
        rng.shuffle(adjectives)
    worn = [rng.choice(_WEAR[n][values[n]]) for n in ("hat", "accessory") if _is_said(values[n], rng)]
    place = rng.choice(_PLACES[values["place"]]) if rng.random() > _OMIT else ""
    if rng.random() < 0.15:
        return _as_tags([*adjectives, *worn, place], rng)
    return _with_ending(_sentence(adjectives, worn, place, rng), rng)


def character_caption(scene: Scene, rng: random.Random) -> str:
    """A sentence about what varies (face, hat, place), with {trigger} for the rest."""
    values = scene.attributes
    face = rng.choice(_ADJECTIVES["face"][values["face"]])
    worn = rng.choice(("wearing ", "with ")) + rng.choice(_WEAR["hat"][values["hat"]])
    place = rng.choice(_PLACES[values["place"]])
    if rng.random() < 0.5:
        return f"{{trigger}}, {_article(face)} {face} robot {worn} {place}"
    return f"{_article(face)} {face} {{trigger}} robot {worn} {place}"


def vocabulary() -> list[str]:
    """Every word that a caption can hold, once each, sorted."""
    said: list[str] = ["robot", "bot", "without", *_GLUE.split(), *_STARTS, *_ENDS]
    for table in (*_ADJECTIVES.values(), *_WEAR.values(), _PLACES):
        for ways in table.values():
            said.extend(ways)
    return sorted({word for text in said for word in text.split()})


def known_words() -> dict[str, tuple[str, ...]]:
    """The canonical words by attribute, for people: what Pocket can be asked for."""
    return {
        **{name: tuple(ways[0] for ways in table.values()) for name, table in _ADJECTIVES.items()},
        **{name: tuple(ways[0] for ways in table.values()) for name, table in _WEAR.items()},
        "place": tuple(ways[0] for ways in _PLACES.values()),
    }


def _is_said(value: str, rng: random.Random) -> bool:
    if value in ("none", "plain"):
        return rng.random() < _NONE_SAID
    return rng.random() > _OMIT


def _sentence(adjectives: list[str], worn: list[str], place: str, rng: random.Random) -> str:
    noun = rng.choice(_NOUNS)
    if rng.random() < _NAMED:
        noun = f"{_nonsense(rng)} {noun}"
    who = " ".join([*adjectives, noun])
    text = rng.choice(_STARTS) + f"{_article(who)} {who}"
    if worn:
        verbs = (" wearing ", " wearing ", " with ") + (() if worn[0].startswith("no ") else (" in ",))
        text += rng.choice(verbs) + rng.choice((" and ", ", ")).join(worn)
    if not place:
        return text
    if rng.random() < 0.15:
        return f"{place}, {text}"
    return text + rng.choice((" ", " ", ", ")) + place


def _with_ending(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.06:
        return f"{_nonsense(rng)}, {text}"
    if roll < 0.16:
        return f"{text}, {rng.choice(_ENDS)}"
    return text


def _as_tags(parts: list[str], rng: random.Random) -> str:
    tags = [part.removeprefix("a ") for part in parts if part]
    rng.shuffle(tags)
    return ", ".join(["robot", *tags])


def _nonsense(rng: random.Random) -> str:
    letters = "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 6)))
    return letters + rng.choice(("", "", str(rng.randint(1, 99))))


def _article(text: str) -> str:
    return "an" if text[:1] in "aeiou" else "a"
