"""What a licence allows, in words; data, read in the licences themselves in October 2026."""

from __future__ import annotations

NAMES = {
    "apache-2.0": ("Apache 2.0", True),
    "mit": ("MIT", True),
    "cc0-1.0": ("CC0", True),
    "cc-by-4.0": ("CC BY 4.0", True),
    "cc-by-sa-4.0": ("CC BY-SA 4.0", True),
    "cc-by-nc-4.0": ("CC BY-NC 4.0", False),
    "cc-by-nc-sa-4.0": ("CC BY-NC-SA 4.0", False),
    "cc-by-nc-nd-4.0": ("CC BY-NC-ND 4.0", False),
    "openrail": ("OpenRAIL", True),
    "openrail++": ("OpenRAIL++", True),
    "creativeml-openrail-m": ("CreativeML OpenRAIL-M", True),
    "bigscience-openrail-m": ("BigScience OpenRAIL-M", True),
}
"""The hub's words for licences, how they are called, and whether they allow commercial use."""
ALLOWED = "may be used commercially"
FORBIDDEN = "not for commercial use"
UNKNOWN = "whether commercial use is allowed is not said here; read it at its page"


def named(licence: str) -> tuple[str, bool | None]:
    """How the licence is called, and whether it allows commercial use, if known."""
    known = NAMES.get(licence.lower())
    if known is not None:
        return known
    return licence, False if "non-commercial" in licence.lower() else None


def sentence(licence: str, commercial: bool | None) -> str:
    """The licence's name and what it allows."""
    if not licence:
        return "No licence is named: read about it where it is from"
    return f"{licence}: {in_words(commercial)}"


def in_words(commercial: bool | None) -> str:
    """What it allows, as a half-sentence."""
    return UNKNOWN if commercial is None else ALLOWED if commercial else FORBIDDEN
