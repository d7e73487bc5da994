"""Which file is kept in the vault under which name: short lists, each written once.

Every runtime writes lists of its own. One that came from another's save reads that one's
lists too, as far as the save goes back.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from pydantic import TypeAdapter

from masuka.errors import Damaged
from masuka.vault.disk import Disk
from masuka.vault.generations import Digest, Moment, Number, Runtime, opened, sealed
from masuka.vault.moving import put_text
from masuka.vault.places import is_kept

FOLDER = "index"
FILES = "files"
SEGMENT = re.compile(r"([0-9a-f]{8})-(\d{6,})-([0-9a-f]{16})( \(\d+\))?\.json")
SEGMENTS_BEFORE_ONE = 40
"""After so many lists of one runtime, one list with everything replaces them."""
LONGEST_STEM_BYTES, LONGEST_SUFFIX_BYTES = 120, 40
"""With the hash and what a copy is called before it is whole, a name fits into 255 bytes."""


@dataclass(frozen=True)
class Kept:
    """A file in the vault: `path` as in the workspace, `stored` as in the vault.

    `gone` is the number of the first save that does not need it; 0 while it is in use.
    """

    path: str
    stored: str
    sha256: Digest
    bytes: Number
    at: Moment
    gone: Number = 0


@dataclass(frozen=True)
class _Segment:
    runtime: Runtime
    number: Number
    generation: Number
    full: bool
    entries: tuple[Kept, ...]


_SEGMENT = TypeAdapter(_Segment)


def stored_name(path: str, sha256: str) -> str:
    """Where a file of that content is kept, in words that a person can read."""
    pure = PurePosixPath(path)
    stem, suffix = _cut(pure.stem, LONGEST_STEM_BYTES), _cut(pure.suffix, LONGEST_SUFFIX_BYTES)
    return f"{FILES}/{pure.parent}/{stem}~{sha256[:12]}{suffix}"


def _cut(text: str, most_bytes: int) -> str:
    return os.fsencode(text)[:most_bytes].decode("utf-8", "ignore")


class Index:
    """The lists in a vault."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._known: dict[str, _Segment] = {}

    def read(self, runtime: str, chain: Mapping[str, int]) -> dict[str, Kept]:
        """Every kept file by its stored name, as this line of saves knows them."""
        segments = [s for s in self._segments() if s.runtime == runtime or s.runtime in chain]
        found: dict[str, Kept] = {}

        def rank(segment: _Segment) -> tuple[int, int, int]:
            mine = segment.runtime == runtime
            within = mine or segment.generation <= chain.get(segment.runtime, 0)
            return (2 if mine else int(within), chain.get(segment.runtime, 0), segment.number)

        # What another runtime wrote after our line left it comes first, to be overruled.
        for segment in sorted(segments, key=rank):
            for entry in segment.entries:
                # Last in the order is what counts for a path that is kept twice.
                found.pop(entry.stored, None)
                found[entry.stored] = entry
        return found

    def write(self, entries: Iterable[Kept], *, runtime: str, number: int, generation: int, full: bool) -> None:
        """Adds a list; a full one then replaces this runtime's earlier ones."""
        text = sealed(
            {
                "runtime": runtime,
                "number": number,
                "generation": generation,
                "full": full,
                "entries": [asdict(entry) for entry in entries],
            }
        )
        name = f"{runtime}-{number:06d}-{hashlib.sha256(text).hexdigest()[:16]}.json"
        put_text(self._disk, text, f"{FOLDER}/{name}", mine=runtime)
        if full:
            for other in self._disk.names(FOLDER):
                match = SEGMENT.fullmatch(other)
                if match and match[1] == runtime and int(match[2]) < number:
                    self._disk.discard(f"{FOLDER}/{other}")

    def last_number(self, runtime: str) -> int:
        """The number of the runtime's newest list, 0 without one."""
        matches = (SEGMENT.fullmatch(name) for name in self._disk.names(FOLDER))
        return max((int(m[2]) for m in matches if m and m[1] == runtime), default=0)

    def _segments(self) -> list[_Segment]:
        found: dict[str, _Segment] = {}
        for name in self._disk.names(FOLDER):
            if SEGMENT.fullmatch(name):
                segment = self._known.get(name) or self._read(name)
                if segment is not None:
                    found[name] = segment
        self._known = found
        return list(found.values())

    def _read(self, name: str) -> _Segment | None:
        try:
            segment = opened(b"".join(self._disk.read(f"{FOLDER}/{name}")), _SEGMENT)
        except (Damaged, FileNotFoundError):
            # What an altered list named is copied again by whoever has it, or is missing.
            return None
        true = all(is_kept(k.path) and k.stored == stored_name(k.path, k.sha256) for k in segment.entries)
        return segment if true and name.startswith(f"{segment.runtime}-{segment.number:06d}-") else None
