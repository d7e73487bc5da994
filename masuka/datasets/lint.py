"""What is wrong with captions: the trigger word, length, sameness, words that contradict.

Pure text. Says only what it is sure of: a caption that it does not understand is well.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import lru_cache

from masuka.datasets.captions.text import count_trigger

FEWEST_THE_SAME = 4
"""From so many captions on, one text for all is worth a word."""
MOST_AGREE = 0.7
FEWEST_AGREE = 3
"""A caption contradicts the others where so many of them, and so large a share, agree."""
CLIP_TOKENS, T5_TOKENS, POCKET_TOKENS = 75, 510, 31
"""What encoders read, without their own marks; SDXL and Pocket's first encoder read as CLIP."""
TOKENS_OF_BASE = {"pocket": POCKET_TOKENS, "flux1-schnell": 254, "flux1-dev": T5_TOKENS}

_COLOURS = (
    "black", "brown", "blonde", "blond", "red", "ginger", "auburn", "grey", "gray", "white", "silver", "blue", "green",
    "pink", "purple", "hazel", "amber", "orange",
)  # fmt: skip
_SAME_COLOUR = {"blond": "blonde", "gray": "grey", "ginger": "red"}
_COLOUR_OF = re.compile(
    rf"\b({'|'.join(_COLOURS)})(?:[ -](?:coloured|colored))?(?:,? (?:\w+ ){{0,2}}?)(hair|eyes|eyed|haired)\b"
)
_OPPOSITES = (
    ("the time of day", ("daytime", "in daylight", "at noon", "sunny day"), ("at night", "nighttime", "night sky", "midnight")),
    ("the place", ("indoors", "inside a room", "in a studio"), ("outdoors", "outside in", "in the open air")),
    ("the eyes", ("eyes closed", "closed eyes"), ("eyes open", "open eyes", "wide eyes")),
    ("the picture", ("black and white", "monochrome"), ("in full colour", "in full color", "colourful", "colorful")),
)  # fmt: skip
_ANY_OPPOSITE = re.compile("|".join(re.escape(word) for _, *sides in _OPPOSITES for side in sides for word in side))
_KEPT = 20_000
"""Captions whose reading is kept: a page of a large set asks for all of them, few having changed."""
_WORD = re.compile(r"\w+|[^\w\s]")


def lint(
    captions: Mapping[int, str], *, trigger_word: str, longest_tokens: int = CLIP_TOKENS
) -> dict[int, list[str]]:
    """Sentences about each caption that something is wrong with, by picture id."""
    found: dict[int, list[str]] = defaultdict(list)
    for id, caption in captions.items():
        found[id] += _alone(caption, trigger_word, longest_tokens)
    for id, sentences in _against_each_other(captions).items():
        found[id] += sentences
    return {id: sentences for id, sentences in found.items() if sentences}


def summary(found: Mapping[int, list[str]]) -> list[str]:
    """One sentence for each problem, with its number of captions, the most first."""
    counts = Counter(sentence for sentences in found.values() for sentence in dict.fromkeys(sentences))
    return [f"{'1 caption' if n == 1 else f'{n:,} captions'}: {sentence}" for sentence, n in counts.most_common()]


def tokens(caption: str) -> int:
    """About how many tokens an encoder makes of it: pieces of some six letters.

    An estimate that was not compared with the tokenizers themselves; names take more.
    """
    return sum(1 if len(piece) <= 7 else -(-len(piece) // 6) for piece in _WORD.findall(caption))


def is_longer(caption: str, longest_tokens: int) -> bool:
    """Whether it has about more tokens than that; each has a character at least."""
    return len(caption) > longest_tokens and tokens(caption) > longest_tokens


def longest_for(base: str) -> int:
    """How many tokens of a caption that base reads; CLIP's number for unknown ones."""
    return TOKENS_OF_BASE.get(base, CLIP_TOKENS)


@lru_cache(maxsize=_KEPT)
def _alone(caption: str, trigger_word: str, longest_tokens: int) -> tuple[str, ...]:
    if not caption.strip():
        return ("It is empty.",)
    found: list[str] = []
    count = count_trigger(caption, trigger_word)
    if not count:
        found.append(f"The trigger word {trigger_word} is missing.")
    elif count > 1:
        found.append(f"The trigger word {trigger_word} stands in it more than once.")
    if is_longer(caption, longest_tokens):
        found.append(f"It is longer than about {longest_tokens} tokens; what is behind them is not read.")
    lower = caption.casefold()
    for what, one, other in _OPPOSITES if _ANY_OPPOSITE.search(lower) else ():
        if _says(lower, one) and _says(lower, other):
            found.append(f"It contradicts itself about {what}.")
    for part, colours in _colours(caption).items():
        if len(colours) > 1:
            found.append(f"It gives the {part} two colours: {' and '.join(sorted(colours))}.")
    return tuple(found)


def _against_each_other(captions: Mapping[int, str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = defaultdict(list)
    texts = Counter(text.strip().casefold() for text in captions.values() if text.strip())
    if len(captions) >= FEWEST_THE_SAME and len(texts) == 1:
        for id in captions:
            found[id].append("All captions say the same; say what differs from picture to picture.")
    said = {id: {part: c for part, c in _colours(text).items() if len(c) == 1} for id, text in captions.items()}
    for part in ("hair", "eyes"):
        votes = Counter(next(iter(colours[part])) for colours in said.values() if part in colours)
        usual, count = votes.most_common(1)[0] if votes else ("", 0)
        if count < FEWEST_AGREE or count < MOST_AGREE * votes.total():
            continue
        for id, colours in said.items():
            colour = next(iter(colours.get(part, {usual})))
            if colour != usual:
                found[id].append(f"It says {colour} {part} where {count} others say {usual}.")
    return found


@lru_cache(maxsize=_KEPT)
def _colours(caption: str) -> Mapping[str, set[str]]:
    """The colours that the caption gives hair and eyes."""
    found: dict[str, set[str]] = defaultdict(set)
    lower = caption.casefold()
    for colour, part in _COLOUR_OF.findall(lower) if "hair" in lower or "eye" in lower else ():
        found["hair" if part.startswith("hair") else "eyes"].add(_SAME_COLOUR.get(colour, colour))
    return found


def _says(caption: str, words: tuple[str, ...]) -> bool:
    return any(word in caption and re.search(rf"\b{re.escape(word)}\b", caption) for word in words)
