"""Which file is kept in the vault under which name: short lists, each written once.

Every runtime writes lists of its own. One that came from another's save reads that one's
lists too, as far as the save goes back.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from masuka.errors import Damaged
from masuka.vault.disk import Disk
from masuka.vault.generations import opened, sealed
from masuka.vault.moving import put_text

FOLDER = "index"
FILES = "files"
SEGMENT = re.compile(r"([0-9a-f]{8})-(\d{6,})-([0-9a-f]{16})( \(\d+\))?\.json")
SEGMENTS_BEFORE_ONE = 40
"""After so many lists of one runtime, one list with everything replaces them."""
LONGEST_STEM = 120


@dataclass(frozen=True)
class Kept:
    """A file in the vault: `path` as in the workspace, `stored` as in the vault.

    `gone_at` is when nothing referred to it any more; '' while it is in use.
    """

    path: str
    stored: str
    sha256: str
    bytes: int
    at: str
    gone_at: str = ""


@dataclass(frozen=True)
class _Segment:
    runtime: str
    number: int
    generation: int
    full: bool
    entries: tuple[Kept, ...]
    name: str


def stored_name(path: str, sha256: str) -> str:
    """Where a file of that content is kept, in words that a person can read."""
    pure = PurePosixPath(path)
    return f"{FILES}/{pure.parent}/{pure.stem[:LONGEST_STEM]}~{sha256[:12]}{pure.suffix}"


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
            values = opened(b"".join(self._disk.read(f"{FOLDER}/{name}")))
            entries = tuple(Kept(**entry) for entry in values["entries"])
            return _Segment(
                values["runtime"], values["number"], values["generation"], values["full"], entries, name
            )
        except (Damaged, FileNotFoundError, KeyError, TypeError):
            # What an altered list named is copied again by whoever has it, or is missing.
            return None
