"""Saves of the database: immutable, numbered, each saying which ones it follows.

A save is written by one runtime (a workspace with its database). `chain` says up to which
number of every runtime its content goes back, `merged` which branches a person set aside
for it. Of two saves of which neither follows the other, both are kept: that is a fork, and
a person chooses. Nothing is locked, because a Drive cannot lock; nothing is overwritten,
because no two saves have the same name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from masuka.errors import Damaged
from masuka.vault.disk import Disk
from masuka.vault.moving import PART, Going, always, get, put, put_text

FOLDER = "db"
FORMAT = 1
HEAD = re.compile(r"head-(\d{6,})-([0-9a-f]{8})-([0-9a-f]{16})( \(\d+\))?\.json")
KEPT_LATEST, KEPT_HOURS, KEPT_DAYS = 10, 24, 7

ShapeT = TypeVar("ShapeT")


def _with_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Runtime = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0, lt=10**15)]
Moment = Annotated[str, AfterValidator(_with_zone)]


@dataclass(frozen=True)
class Head:
    """One save; `purged` is the number below which its line must not be kept.

    `parent` is the hash of the save before it; `places` are folders of the machine that
    made it; `mark` and `schema` are the snapshot's own. `kin` are keys of saves that it
    follows though somebody else has used their numbers. `rootless` is a line that began
    from nothing beside saves that were there: no start takes it where it has a choice.
    """

    generation: Number
    runtime: Runtime
    sha256: Digest
    size_bytes: Number
    created_at: Moment
    parent: str = ""
    chain: dict[Runtime, Number] = field(default_factory=dict)
    merged: dict[Runtime, Number] = field(default_factory=dict)
    purged: Number = 0
    mark: str = ""
    schema: tuple[str, ...] = ()
    masuka: str = ""
    places: dict[str, str] = field(default_factory=dict)
    kin: tuple[str, ...] = ()
    rootless: bool = False

    @property
    def key(self) -> str:
        """What its two files are named by."""
        return f"{self.generation:06d}-{self.runtime}-{self.sha256[:16]}"

    @property
    def head_path(self) -> str:
        return f"{FOLDER}/head-{self.key}.json"

    @property
    def db_path(self) -> str:
        return f"{FOLDER}/gen-{self.key}.db"

    def descends(self, other: Head) -> bool:
        """Whether its content came from the other one."""
        if other.key in self.kin:
            return True
        if other.runtime == self.runtime:
            return other.generation < self.generation
        return self.chain.get(other.runtime, 0) >= other.generation

    def follows(self, other: Head) -> bool:
        """Whether the other one needs no choice beside this one: older, or set aside."""
        return self.descends(other) or self.merged.get(other.runtime, 0) >= other.generation

    def as_text(self) -> bytes:
        """The manifest's file, with a hash over itself."""
        return _sealed({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_text(cls, text: bytes) -> Head:
        """The save that the manifest describes; raises Damaged for an altered one."""
        return opened(text, _HEAD)


_HEAD = TypeAdapter(Head)


class Generations:
    """The saves in a vault."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._known: dict[str, Head] = {}

    def heads(self) -> list[Head]:
        """Every save with a sound manifest, the newest first."""
        found: dict[str, Head] = {}
        known: dict[str, Head] = {}
        for name in self._disk.names(FOLDER):
            match = HEAD.fullmatch(name)
            if match is None:
                continue
            head = self._known.get(name) or self._read(name, f"{match[1]}-{match[2]}-{match[3]}")
            if head is not None:
                known[name] = head
                found[head.key] = head
        self._known = known
        return newest_first(found.values())

    def publish(self, snapshot: Path, head: Head) -> None:
        """Brings the snapshot in, and its manifest once that reads back whole."""
        put(self._disk, snapshot, head.db_path, sha256=head.sha256, mine=head.runtime)
        put_text(self._disk, head.as_text(), head.head_path, mine=head.runtime)

    def fetch(self, head: Head, to: Path, *, going: Going = always) -> Path:
        """The save's database at `to`; raises Damaged when it is not whole."""
        return get(self._disk, head.db_path, to, sha256=head.sha256, going=going)

    def discard(self, keys: Iterable[str]) -> None:
        """Deletes these saves and what is left of their copies, each manifest first."""
        names = self._disk.names(FOLDER)
        for key in keys:
            starts = (f"head-{key}.json", f"gen-{key}.db")
            for start in starts:
                for name in names:
                    if name == start or (name.startswith(f"{start}.") and name.endswith(PART)):
                        self._disk.discard(f"{FOLDER}/{name}")

    def _read(self, name: str, key: str) -> Head | None:
        try:
            head = Head.from_text(b"".join(self._disk.read(f"{FOLDER}/{name}")))
        except (Damaged, FileNotFoundError):
            # An altered or half-written manifest is no save; its database may have another.
            return None
        return head if head.key == key else None


def newest_first(heads: Iterable[Head]) -> list[Head]:
    """The saves by number, which grows along every line; a clock may go back."""
    return sorted(heads, key=lambda h: (h.generation, h.created_at, h.sha256), reverse=True)


def tips(heads: Sequence[Head]) -> list[Head]:
    """The saves that no other follows, the newest first; more than one is a fork."""
    return [h for h in heads if not any(other.follows(h) for other in heads if other is not h)]


def superfluous(heads: Sequence[Head], mine: Head, *, protected: Collection[str] = ()) -> list[Head]:
    """The saves in `mine`'s own line that rotation may delete.

    Kept are the ten newest, the newest of each of 24 hours and of 7 days, those that no
    confirmed save replaces yet (`protected`, by key), and all other branches.
    """
    line = [h for h in newest_first(heads) if h.key == mine.key or mine.descends(h)]
    kept = {h.key for h in line[:KEPT_LATEST]}
    for unit, count in (("hours", KEPT_HOURS), ("days", KEPT_DAYS)):
        periods: dict[str, str] = {}
        for head in line:
            moment = datetime.fromisoformat(head.created_at)
            periods.setdefault(moment.strftime("%Y-%m-%d %H" if unit == "hours" else "%Y-%m-%d"), head.key)
        kept.update(list(periods.values())[:count])
    return [h for h in line if h.key not in kept and h.key not in protected and h.key != mine.key]


def purgeable(heads: Sequence[Head], mine: Head) -> list[Head]:
    """The saves that a purge reaches: older ones of its line, and branches set aside."""
    return [h for h in heads if h.key != mine.key and h.generation < mine.purged and mine.follows(h)]


def opened(text: bytes, shape: TypeAdapter[ShapeT]) -> ShapeT:
    """What a manifest says; raises Damaged when a byte or a type in it is wrong."""
    try:
        values = json.loads(text)
        seal = values.pop("seal")
        told = values.get("format")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise Damaged("A manifest in the vault cannot be read.", "An older one is used.") from error
    if _seal(values) != seal or text != _sealed(values):
        raise Damaged("A manifest in the vault was altered.", "An older one is used.")
    if told != FORMAT:
        raise Damaged(f"A manifest in the vault has the format {told}.", "Update MASUKA.")
    try:
        # Anybody can compute a seal; what is in it is believed only as far as it fits.
        return shape.validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise Damaged("A manifest in the vault says what no save can say.", "An older one is used.") from error


def sealed(values: dict[str, Any]) -> bytes:
    """The values as a manifest's file, with a hash over themselves."""
    return _sealed({"format": FORMAT, **values})


def _sealed(values: dict[str, Any]) -> bytes:
    return json.dumps({**values, "seal": _seal(values)}, indent=1, sort_keys=True).encode() + b"\n"


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
