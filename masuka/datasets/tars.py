"""The files inside a .tar or .tar.gz, under the same limits as those of a zip.

A compressed one is unpacked into one nameless file first, counted while it grows: its
members lie behind each other and could not be read in another order.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from masuka.datasets.archives import (
    LARGEST_RATIO,
    LARGEST_TOTAL_BYTES,
    MOST_MEMBERS,
    RATIO_COUNTS_FROM_BYTES,
    Member,
    broken,
    grows,
    misleading,
    too_large,
    too_many,
)
from masuka.datasets.decoding import LARGEST_BYTES, too_many_bytes
from masuka.errors import InvalidInput

GZIP = b"\x1f\x8b"
_PIECE_BYTES = 2**20
_LARGEST_HEADER_BYTES = 1_000_000
_MARK_AT, _MARK = 257, b"ustar"
_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, OverflowError, RecursionError)


def is_tar(beginning: bytes) -> bool:
    """Whether a file that begins so (at least 262 bytes) is a tar archive."""
    return beginning[_MARK_AT:].startswith(_MARK)


class TarArchive:
    """An open archive: its members, and the bytes of one, within the limits."""

    def __init__(
        self, path: Path, scratch: Path | None = None, check: Callable[[], None] = lambda: None
    ) -> None:
        with path.open("rb") as source:
            compressed = source.read(2) == GZIP
        self._file = _unpacked(path, scratch, check) if compressed else path.open("rb")
        try:
            self.members = tuple(_members(self._file, check))
        except _BROKEN as error:
            self._file.close()
            raise broken() from error
        except BaseException:
            self._file.close()
            raise
        self._left = LARGEST_TOTAL_BYTES

    def close(self) -> None:
        """Closes the file; members cannot be read any more."""
        self._file.close()

    def read(self, member: Member, limit: int = LARGEST_BYTES) -> bytes:
        """The member's bytes; raises InvalidInput past `limit` or the archive's total."""
        if member.refusal is not None:
            raise member.refusal
        if member.size > limit:
            raise too_many_bytes(member.size, limit)
        self._left -= member.size
        if self._left < 0:
            raise too_large()
        self._file.seek(member.at)
        data = self._file.read(member.size)
        if len(data) < member.size:
            raise InvalidInput("The file is damaged inside the archive.", "Pack it again.")
        return data


class _Bounded(io.RawIOBase):
    """The same file with bounded reads: `tarfile` reads a long name in one."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises InvalidInput when more are asked for at once."""
        if not 0 <= size <= _LARGEST_HEADER_BYTES:
            raise InvalidInput("A name in the archive is too long.", "Pack it with plain names.")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()


def _members(file: IO[bytes], check: Callable[[], None]) -> Iterator[Member]:
    file.seek(0)
    count = 0
    with tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:
        while (info := archive.next()) is not None:
            check()
            if info.isdir():
                continue
            count += 1
            if count > MOST_MEMBERS:
                raise too_many(MOST_MEMBERS)
            name = info.name.replace("\\", "/")
            yield Member(
                name.removeprefix("./"), info.size, at=info.offset_data, refusal=_refusal(info, name)
            )


def _refusal(info: tarfile.TarInfo, name: str) -> InvalidInput | None:
    wrong = misleading(name)
    if wrong is not None:
        return wrong
    if info.issym() or info.islnk():
        return InvalidInput("The archive holds a link, not the file itself.", "Pack the file it points to.")
    if info.size < 0:  # a number that says: read to the end of the archive
        return broken()
    if not info.isfile() or info.issparse():
        return InvalidInput("It is no file but a device or a pipe.", "Pack plain files.")
    return too_many_bytes(info.size) if info.size > LARGEST_BYTES else None


def _unpacked(path: Path, scratch: Path | None, check: Callable[[], None]) -> IO[bytes]:
    """What the compressed file holds, in a file without a name."""
    packed_bytes, total = path.stat().st_size, 0
    file = tempfile.TemporaryFile(dir=scratch)
    try:
        with gzip.open(path, "rb") as source:
            while piece := _piece_of(source):
                check()
                total += len(piece)
                if total > LARGEST_TOTAL_BYTES:
                    raise too_large()
                if total > RATIO_COUNTS_FROM_BYTES and total > packed_bytes * LARGEST_RATIO:
                    raise grows(total / packed_bytes)
                file.write(piece)
        file.seek(0)
        if not is_tar(file.read(512)):
            raise InvalidInput(
                "The compressed file holds no tar archive.", "Pack the pictures as zip or tar."
            )
        return file
    except BaseException:
        file.close()
        raise


def _piece_of(source: gzip.GzipFile) -> bytes:
    try:
        return source.read(_PIECE_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise broken() from error
