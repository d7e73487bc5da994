"""One sanitiser per kind of outside text; every request model calls them.

They remove what is never meant (NUL, control characters, bidirectional overrides) and
refuse what cannot be kept, with a sentence. They never guess at a meaning.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

from masuka.errors import InvalidInput

LARGEST_ID = 2**63 - 1
"""SQLite's; a larger number is no id at all."""
NAME_CHARS = 100
FILENAME_BYTES = 255
RESERVED = frozenset({"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)})
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
# Joiners belong inside emoji and Persian or Indic words; elsewhere they only hide.
_STRAY_JOINER = re.compile(
    "(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)
_TRIGGER = re.compile(r"\w[\w-]{1,39}")
_UNSAFE_IN_LOGS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\\\\]")


def without_control(text: str, *, keep: str = "") -> str:
    """The text without control, surrogate, non- and invisible direction characters."""
    kept = "".join(c for c in text if c in keep or not _never_meant(c))
    return _STRAY_JOINER.sub("", _INVISIBLE.sub("", kept))


def _never_meant(c: str) -> bool:
    # Non-characters only, not all of Cn: an older Python does not know the newest emoji.
    return unicodedata.category(c) in ("Cc", "Cs") or ord(c) & 0xFFFE == 0xFFFE or "\ufdd0" <= c <= "\ufdef"


def clean_name(text: str, *, field: str = "name") -> str:
    """A name of 1–100 characters on one line.

    Raises InvalidInput when nothing is left or it is too long.
    """
    name = " ".join(without_control(text, keep="\t\n\r").split())
    what = field.replace("_", " ")
    if not name:
        raise InvalidInput(f"The {what} is empty.", "Type at least one letter.", field=field)
    if len(name) > NAME_CHARS:
        raise InvalidInput(
            f"The {what} has {len(name):,} characters.", f"Use at most {NAME_CHARS}.", field=field
        )
    return name


def clean_trigger(text: str, *, field: str = "trigger_word") -> str:
    """A trigger word: one word of 2–40 letters, digits, '-' and '_'."""
    word = without_control(text).strip()
    if not _TRIGGER.fullmatch(word):
        raise InvalidInput(
            "The trigger word must be one word.",
            "Use 2 to 40 letters, digits, '-' or '_', for example mira7x.",
            field=field,
        )
    return word


def clean_prompt(text: str, *, field: str = "prompt", shortest: int = 0, longest: int = 2000) -> str:
    """A prompt with its punctuation and line breaks kept, control characters removed."""
    prompt = without_control(text.replace("\r\n", "\n").replace("\r", "\n"), keep="\n\t").strip()
    if not shortest <= len(prompt) <= longest:
        raise InvalidInput(
            f"The {field.replace('_', ' ')} has {len(prompt):,} characters.",
            f"Use {shortest:,} to {longest:,}.",
            field=field,
        )
    return prompt


def clean_filename(text: str, *, field: str = "filename") -> str:
    """A file name of ≤ 255 bytes that is safe on every system, its extension kept.

    Directory parts are dropped; characters that a file system forbids become '_'.
    """
    base = PurePosixPath(PureWindowsPath(without_control(text)).as_posix()).name
    base = re.sub(r'[<>:"/\\|?*]', "_", base).strip(" .")
    if not base:
        raise InvalidInput("The file has no usable name.", "Rename it and try again.", field=field)
    stem, dot, suffix = base.rpartition(".")
    if not dot or len(suffix) > 10:
        stem, suffix = base, ""
    if base.partition(".")[0].rstrip(" ").lower() in RESERVED:
        stem = f"_{stem}"
    ending = f".{suffix}" if suffix else ""
    room = FILENAME_BYTES - len(ending.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + ending


def clean_path(text: str, *, field: str = "path") -> str:
    """A path as text; refuses what no file system means, such as a NUL inside.

    Resolving and permission checks are the workspace's; this judges the text alone.
    """
    path = without_control(text).strip()
    if path != text.strip() or not path:
        raise InvalidInput(
            "The path is empty or holds control characters.", "Type the path again.", field=field
        )
    if len(path.encode()) > 4096:
        raise InvalidInput("The path is longer than 4,096 bytes.", "Use a shorter one.", field=field)
    return path


def id_in(value: object) -> int | None:
    """The id that outside text or a number names; None for what cannot be one."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))):
        return None
    number = int(text)
    return number if 0 < number <= LARGEST_ID else None


def log_safe(text: str) -> str:
    """The text on one line, control characters written out: no forged log entry."""
    return _UNSAFE_IN_LOGS.sub(lambda c: c.group().encode("unicode_escape").decode(), text)
