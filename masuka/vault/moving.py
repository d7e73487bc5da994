"""Bringing one file into the vault and out again, whole or not at all.

A file goes in under a name of its own for the time being, is flushed, renamed and read
back; what does not read back as it was is an error and is tried again later. A copy that
was cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from masuka.errors import Damaged, StoreError
from masuka.vault.disk import CHUNK_BYTES, Disk, flush

PART = ".part"
_ENDINGS = re.compile(r"( \(\d+\))?(\.[0-9a-f]{8}\.part|\.part)?")
"""What a Drive adds to a name that exists twice, and what a lost rename leaves on it."""

Going = Callable[[], bool]


class Interrupted(StoreError):
    """The copy was told to leave; what is there already is used again."""


def always() -> bool:
    """True: the copy may go on."""
    return True


def put(disk: Disk, source: Path, path: str, *, sha256: str, mine: str, going: Going = always) -> None:
    """Copies the file to `path`, and returns once it reads back with that hash.

    `mine` is eight characters that no other writer uses. Raises OSError, Damaged, or
    Interrupted once `going` says no.
    """
    if reads_as(disk, path, sha256):
        return
    part = f"{path}.{mine}{PART}"
    start = _common(disk, part, source)
    disk.write(part, _pieces(source, start, going), start=start)
    disk.rename(part, path)
    if not reads_as(disk, path, sha256):
        disk.discard(path)
        raise Damaged(f"{path} did not arrive in the vault as it was sent.", "It is sent again.")


def put_text(disk: Disk, text: bytes, path: str, *, mine: str) -> None:
    """The same for a few bytes, which are there whole or under no final name."""
    part = f"{path}.{mine}{PART}"
    disk.write(part, [text])
    disk.rename(part, path)
    if b"".join(disk.read(path)) != text:
        disk.discard(path)
        raise Damaged(f"{path} did not arrive in the vault as it was sent.", "It is sent again.")


def get(disk: Disk, path: str, to: Path, *, sha256: str, going: Going = always) -> Path:
    """The file at `to`, where it appears whole; raises Damaged if none has that hash.

    A copy beside it under a name that a Drive has altered is as good.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    # The background and somebody who asks may fetch the same file at the same time.
    part = to.with_name(f".{to.name}.{threading.get_native_id()}.fetched")
    try:
        for candidate in variants(disk, path):
            digest = hashlib.sha256()
            with part.open("wb") as out:
                for chunk in disk.read(candidate):
                    if not going():
                        raise Interrupted("The vault was left.", "Try again.")
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                flush(out.fileno())
            if digest.hexdigest() == sha256:
                part.replace(to)
                return to
    finally:
        part.unlink(missing_ok=True)
    raise Damaged(f"{path} is not whole in the vault.", "An older save may be.")


def variants(disk: Disk, path: str) -> list[str]:
    """The path and its lookalikes that are there, the exact one first.

    A Drive may hold two files of one name, which a mount shows as 'name (1).db'; and it
    may lose a rename.
    """
    folder, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    found: list[str] = []
    for other in disk.names(folder):
        if other == name:
            found.insert(0, path)
        elif other.startswith(stem):
            rest = other[len(stem) :].replace(f"{dot}{suffix}", "", 1)
            if _ENDINGS.fullmatch(rest):
                found.append(f"{folder}/{other}")
    return found


def reads_as(disk: Disk, path: str, sha256: str) -> bool:
    """Whether the file is there and has that hash."""
    return disk.size(path) is not None and hash_of(disk.read(path)) == sha256


def hash_of(chunks: Iterable[bytes]) -> str:
    """The SHA-256 of all pieces together."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def file_hash(file: Path) -> str:
    """The SHA-256 of a local file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _common(disk: Disk, part: str, source: Path) -> int:
    """How many bytes of an earlier copy are the source's own; 0 when they differ."""
    size = disk.size(part)
    if not size or size > source.stat().st_size:
        return 0
    with source.open("rb") as file:
        for chunk in disk.read(part):
            if file.read(len(chunk)) != chunk:
                return 0
    return size


def _pieces(source: Path, start: int, going: Going) -> Iterator[bytes]:
    with source.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK_BYTES):
            if not going():
                raise Interrupted("The copy to the vault was left; it goes on later.")
            yield chunk
