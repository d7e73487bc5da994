"""What a captioner said becomes a caption: its style, its trigger word, the same words everywhere.

Pure text. A phrase is a piece of a caption between commas, or between the words that join
a sentence's parts; its key is what makes two phrases the same whatever their article or case.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from masuka.datasets.captions.slots import SINGLE, SLOTS, slot_of
from masuka.requests.datasets import clean_caption

PEOPLE = ("person", "woman", "man", "girl", "boy", "lady", "guy", "female", "male", "child", "character", "1girl",
          "1boy", "1other", "solo")  # fmt: skip
"""What captioners call whom the trigger word stands for."""

SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("grey", "gray"), ("blonde", "blond"), ("smiling", "grinning", "with a smile on her face", "with a smile on his face",
    "with a smile"), ("close-up", "close up", "closeup", "close-up shot"), ("t-shirt", "tee shirt", "tshirt", "tee"),
    ("trousers", "pants", "slacks"), ("sweater", "jumper", "pullover"), ("glasses", "eyeglasses", "spectacles"),
    ("sofa", "couch"), ("outdoors", "outside"), ("indoors", "inside"), ("full body", "full-body", "full length"),
    ("looking at the camera", "looking at viewer", "looking at the viewer", "looking into the camera"),
    ("jewellery", "jewelry"), ("armour", "armor"), ("sitting", "seated"), ("photo", "photograph"),
)  # fmt: skip
"""Ways to say one thing; of each the one that a set says most often is kept."""

_OPENINGS = re.compile(
    r"^(?:(?:this|the) (?:image|picture|photo|photograph|drawing) (?:shows|depicts|features|is of) |"
    r"there is |(?:an?|the) (?:close[- ]up )?(?:image|picture|photo|photograph|drawing|painting|illustration) of |"
    r"in (?:this|the) (?:image|picture|photo),? )",
    re.IGNORECASE,
)
_GAP = (
    r"\s*[,;.]\s*|(?<!\band)\s+(?=(?:and )?(?:wearing|wears|dressed|standing|sitting|seated|lying|kneeling|walking|running|"
    r"holding|looking|smiling|posing|leaning|with|in front of|against|in|on|at(?! (?:the )?(?:camera|viewer))|by|under|"
    r"near|beside|behind)\b)"
)
_BREAKS, _BREAKS_KEPT = re.compile(_GAP), re.compile(f"({_GAP})")
_ITEMS = re.compile(r"\s+and\s+|,\s*")
_HAVING = re.compile(r"(?:and )?(?:with|wearing|wears|has|having|dressed in)\s+", re.IGNORECASE)
_JOINING = re.compile(
    r"^(?:and|who|that|which|is|are|she|he|it|they|has|having|with|wearing|wears)(?:\s+|$)", re.IGNORECASE
)
_HANGING = re.compile(r"\s*\b(?:and|is|are|who|that|she|he|it|they|has)$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """What holds for every caption of one job."""

    style: str
    trigger_word: str
    class_word: str
    constant: Sequence[str] = ()


def compose(said: str, rules: Rules, *, partial: str = "") -> str:
    """One caption: styled, constant traits left out, the trigger word once.

    `partial` is what a person had written; what the captioner did not say of it is worked in.
    """
    said = _OPENINGS.sub("", " ".join(said.split())).strip().rstrip(".")
    own = _whole(rules.trigger_word).sub("", partial)
    kept = [p for p in _described(own, rules) if not _is_constant(p, rules.constant)] if own.strip() else []
    if rules.style == "sentence":
        return _sentence(said, kept, rules)
    said_phrases = [p for p in _described(said, rules) if not _is_constant(p, rules.constant)]
    told = [bare for phrase in _together(said_phrases, kept) if (bare := _nameless(phrase, rules))]
    if rules.style == "fixed":
        told = sorted(told, key=lambda phrase: SLOTS.index(slot_of(phrase)))
        return clean_caption(", ".join([f"{rules.trigger_word} {rules.class_word}", *told]))
    return clean_caption(", ".join([rules.trigger_word, rules.class_word, *told]))


def phrases(text: str) -> list[str]:
    """The pieces of a caption, tags and sentences alike, without joining words."""
    # Tags hold their own joining words ('looking at viewer'); only sentences are taken apart.
    tags = text.count(",") >= 2 and max(len(piece.split()) for piece in text.split(",")) <= 4
    pieces = text.split(",") if tags else _BREAKS.split(text)
    found = []
    for piece in pieces:
        bare = piece.strip().replace("_", " ")
        if bare and not tags:
            bare = _bare(bare)
            if " and " in bare and not bare.startswith(("in ", "on ", "at ", "by ")):
                found += [_ARTICLE.sub("", half.strip()) for half in bare.split(" and ")]
                continue
        found.append(_ARTICLE.sub("", bare))
    return list(dict.fromkeys(phrase for phrase in found if phrase))


def _bare(piece: str) -> str:
    """The piece without what only joins it to its neighbours."""
    while (shorter := _HANGING.sub("", _JOINING.sub("", piece)).strip()) != piece:
        piece = shorter
    return piece


def traits(text: str, rules: Rules) -> list[str]:
    """What a caption says of its subject, each trait apart, in lower case."""
    return [phrase.lower() for phrase in _described(text.rstrip("."), rules)]


def key_of(phrase: str) -> str:
    """What two phrases that say the same share: no article, hyphen, capital."""
    return _ARTICLE.sub("", phrase.strip().lower().replace("-", " ").replace("_", " "))


def settled(
    captions: Mapping[int, str],
    others: Iterable[str] = (),
    synonyms: Sequence[Sequence[str]] = (),
    *,
    trigger_word: str = "",
) -> dict[int, str]:
    """The captions in one wording: each synonym as the set says it most often.

    `others` are the set's captions that stay as they are. Between equals the first one of its
    group wins. The trigger word, as it is written, is a name: it stays, and is no vote.
    """
    name = _named(trigger_word)
    every = [name.sub("", text) if trigger_word else text for text in (*captions.values(), *others)]
    swaps: list[tuple[re.Pattern[str], str]] = []
    for group in (*SYNONYMS, *synonyms):
        patterns = {word: _whole(word) for word in group}
        # The longest first, so that 'close-up shot' is not counted as 'close-up' too.
        counts = _counted(patterns, every)
        best = max(group, key=lambda word: (counts[word], -group.index(word)))
        if counts[best]:
            swaps += [(patterns[word], best) for word in sorted(group, key=len, reverse=True) if word != best]
    even = _spelt_alike(captions, every, name if trigger_word else None)
    return {
        id: _one_form(_swapped_but(text, swaps, name) if trigger_word else _swapped(text, swaps))
        for id, text in even.items()
    }


def without(text: str, tag: str) -> str:
    """The caption without every piece between commas that is this tag."""
    return ", ".join(piece for piece in pieces_of(text) if key_of(piece) != key_of(tag))


def renamed(text: str, tag: str, to: str) -> str:
    """The caption with this tag under its new name; twice the same stays once."""
    new = [to if key_of(piece) == key_of(tag) else piece for piece in pieces_of(text)]
    return ", ".join(dict.fromkeys(new))


def pieces_of(text: str) -> list[str]:
    """What stands between commas, as written."""
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def statistics(captions: Iterable[str]) -> list[tuple[str, int]]:
    """Each tag with how many captions have it, the most frequent first."""
    shown: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for caption in captions:
        keys: dict[str, str] = {}
        for piece in pieces_of(caption):
            keys.setdefault(key_of(piece), piece)
        for key, piece in keys.items():
            shown.setdefault(key, piece)
            counts[key] += 1
    return sorted(
        ((shown[key], count) for key, count in counts.items()), key=lambda row: (-row[1], row[0].lower())
    )


def _sentence(said: str, kept: Sequence[str], rules: Rules) -> str:
    text = _whole(rules.trigger_word).sub("", said)
    for trait in rules.constant:
        text = _cut(text, trait)
    name = f"{rules.trigger_word} {rules.class_word}"
    subjects = [rules.class_word, *(PEOPLE if rules.class_word.lower() in PEOPLE else ())]
    found = min((m for s in subjects if (m := _whole(s).search(text))), key=lambda m: m.start(), default=None)
    text = f"{text[: found.start()]}{name}{text[found.end() :]}" if found else f"{name}, {text}"
    said_words = set(re.findall(r"\w+", text.lower()))
    missing = [p for p in kept if not set(re.findall(r"\w+", p.lower())) <= said_words]
    text = ", ".join([_tidy(text), *missing])
    return clean_caption(re.sub(r"\b([Aa])n?(?= (\w))", _article, text))


def _nameless(phrase: str, rules: Rules) -> str:
    """The phrase without the trigger word, which stands at the beginning already."""
    return " ".join(_whole(rules.trigger_word).sub("", phrase).split())


def _article(found: re.Match[str]) -> str:
    """'a' or 'an', as the word that now follows wants it."""
    return found[1] + ("n" if found[2].lower() in "aeiou" else "")


def _cut(text: str, trait: str) -> str:
    """The sentence without the trait, nor the 'with' or 'and' that would be left hanging."""
    parts = _BREAKS_KEPT.split(text)
    kept = [parts[0] if not _says(parts[0], trait) else _without_words(parts[0], trait)]
    for gap, part in zip(parts[1::2], parts[2::2], strict=True):
        if _says(part, trait):
            opening = _HAVING.match(part)
            if opening:
                items = [i for i in _ITEMS.split(part[opening.end() :]) if i and not _says(i, trait)]
                part = f"{opening[0]}{' and '.join(items)}" if items else ""
            else:
                part = _without_words(part, trait)
        if part.strip():
            kept += [gap, part]
    return _tidy("".join(kept))


def _says(part: str, trait: str) -> bool:
    said = set(re.findall(r"[\w-]+", part.lower()))
    return set(key_of(trait).split()) <= said | {word for whole in said for word in whole.split("-")}


def _without_words(part: str, trait: str) -> str:
    bare = re.escape(_ARTICLE.sub("", trait))
    return re.sub(rf"(?<![\w-]){bare}(?![\w-])", "", part, flags=re.IGNORECASE)


def _tidy(text: str) -> str:
    text = re.sub(r"\s+([,.;])", r"\1", " ".join(text.split()))
    return re.sub(r"(?:[,;]\s*)+(?=[,;])", "", text).strip(" ,;")


def _described(said: str, rules: Rules) -> list[str]:
    """The phrases of what was said; a subject's adjectives become phrases of their own."""
    said = _OPENINGS.sub("", " ".join(said.split()))
    found: list[str] = []
    for phrase in phrases(said):
        words = phrase.split()
        subject = {rules.class_word.lower(), rules.trigger_word.lower(), *PEOPLE}
        if words[-1].lower() in subject and len(words) > 1:
            found += [w for w in words[:-1] if w.lower() not in subject and w.lower() != "little"]
        elif not _is_subject(phrase, rules):
            found.append(phrase)
    return found


def _is_subject(phrase: str, rules: Rules) -> bool:
    words = {
        rules.trigger_word.lower(),
        *rules.class_word.lower().split(),
        *PEOPLE,
        "a",
        "of",
        "picture",
        "photo",
        "the",
    }
    return all(word in words for word in phrase.lower().split())


def _is_constant(phrase: str, constant: Sequence[str]) -> bool:
    said = set(key_of(phrase).split())
    return any(set(key_of(trait).split()) <= said for trait in constant)


def _together(said: Sequence[str], kept: Sequence[str]) -> list[str]:
    """What a person wrote stands; what a model says of the same single thing gives way."""
    theirs = {slot_of(phrase) for phrase in kept} & SINGLE
    told = {key_of(phrase): phrase for phrase in said if slot_of(phrase) not in theirs}
    for phrase in kept:
        words = set(key_of(phrase).split())
        if not any(words <= set(key.split()) for key in told):
            told[key_of(phrase)] = phrase
    return list(told.values())


def _counted(patterns: Mapping[str, re.Pattern[str]], texts: Sequence[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        for word in sorted(patterns, key=len, reverse=True):
            text, number = patterns[word].subn("", text)
            counts[word] += number
    return counts


def _swapped(text: str, swaps: Sequence[tuple[re.Pattern[str], str]]) -> str:
    for pattern, best in swaps:
        text = pattern.sub(best, text)
    return text


def _swapped_but(text: str, swaps: Sequence[tuple[re.Pattern[str], str]], name: re.Pattern[str]) -> str:
    """The same around the name, which stays."""
    around, names = name.split(text), name.findall(text)
    swapped = [_swapped(piece, swaps) for piece in around]
    return "".join(piece for pair in zip(swapped, [*names, ""], strict=True) for piece in pair)


def _spelt_alike(
    captions: Mapping[int, str], every: Sequence[str], name: re.Pattern[str] | None
) -> dict[int, str]:
    """Tags that differ in article, hyphen or capital alone get the set's most frequent spelling.

    Those with the name in them stay as they are.
    """
    forms: dict[str, Counter[str]] = {}
    for text in every:
        for piece in pieces_of(text):
            forms.setdefault(key_of(piece), Counter())[piece] += 1
    best = {key: max(counter, key=lambda form: (counter[form], form)) for key, counter in forms.items()}
    return {
        id: ", ".join(p if name and name.search(p) else best[key_of(p)] for p in pieces_of(text))
        for id, text in captions.items()
    }


def _one_form(text: str) -> str:
    """Two tags that became the same are one."""
    return ", ".join(dict.fromkeys(pieces_of(text)))


def _named(word: str) -> re.Pattern[str]:
    """The word as it is written, alone."""
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")


def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])", re.IGNORECASE)
