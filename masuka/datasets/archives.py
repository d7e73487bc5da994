"""The files inside a zip archive, read one by one into memory, never unpacked to disk.

Names in an archive are only ever labels here. Each limit is checked on what the archive
claims and again on what really comes out.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from masuka.datasets.decoding import BROKEN_ARCHIVE, LARGEST_BYTES, too_many_bytes
from masuka.errors import InvalidInput

MOST_MEMBERS = 25_000
LARGEST_TOTAL_BYTES = 16_000_000_000
LARGEST_RATIO = 100
RATIO_COUNTS_FROM_BYTES = 200_000_000
_LARGEST_DIRECTORY_BYTES = 8_000_000
_ENCRYPTED = 0x1


class _BoundedFile(io.FileIO):
    """A file with bounded reads: `zipfile` reads an archive's directory in one.

    An archive can carry gigabytes of directory, which would be parsed before any count.
    """

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes; raises InvalidInput when more are asked for at once."""
        if size is not None and size > _LARGEST_DIRECTORY_BYTES:
            raise too_many(MOST_MEMBERS)
        return super().read(_LARGEST_DIRECTORY_BYTES if size is None or size < 0 else size)


@dataclass(frozen=True)
class Member:
    """One file of an archive; `refusal` says why it cannot be taken, if so."""

    name: str
    size: int
    info: zipfile.ZipInfo | None = None
    refusal: InvalidInput | None = None
    at: int = 0
    """Where a tar's member begins; a zip's is found by its `info`."""


class Archive:
    """An open archive: its members, and the bytes of one, within the limits."""

    def __init__(self, path: Path) -> None:
        self._file = _BoundedFile(path)
        try:
            self._zip = zipfile.ZipFile(self._file)
            self.members = tuple(_members(self._zip, path.stat().st_size))
        except BROKEN_ARCHIVE as error:
            self._file.close()
            raise broken() from error
        except InvalidInput:
            self._file.close()
            raise
        self._left = LARGEST_TOTAL_BYTES

    def close(self) -> None:
        """Closes the file; members cannot be read any more."""
        self._zip.close()
        self._file.close()

    def read(self, member: Member, limit: int = LARGEST_BYTES) -> bytes:
        """The member's bytes; raises InvalidInput past `limit` or the archive's total."""
        if member.refusal is not None:
            raise member.refusal
        assert member.info is not None
        try:
            with self._zip.open(member.info) as stream:
                data = stream.read(min(limit, self._left) + 1)
        except BROKEN_ARCHIVE as error:
            raise InvalidInput("The file is damaged inside the archive.", "Pack it again.") from error
        self._left -= len(data)
        if self._left < 0:
            raise too_large()
        if len(data) > limit:
            raise too_many_bytes(max(len(data), member.size), limit)
        return data


def _members(archive: zipfile.ZipFile, archive_bytes: int) -> Iterator[Member]:
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MOST_MEMBERS:
        raise too_many(MOST_MEMBERS)
    total = sum(info.file_size for info in infos)
    if total > LARGEST_TOTAL_BYTES:
        raise too_large()
    if total > RATIO_COUNTS_FROM_BYTES and total > archive_bytes * LARGEST_RATIO:
        raise grows(total / archive_bytes)
    for info in infos:
        yield Member(info.filename.replace("\\", "/"), info.file_size, info, _refusal(info))


def _refusal(info: zipfile.ZipInfo) -> InvalidInput | None:
    # orig_filename: zipfile cuts the other one at a NUL.
    wrong = misleading(info.orig_filename.replace("\\", "/"))
    if wrong is not None:
        return wrong
    if stat.S_ISLNK(info.external_attr >> 16):
        return InvalidInput("The archive holds a link, not the file itself.", "Pack the file it points to.")
    if info.flag_bits & _ENCRYPTED:
        return InvalidInput("The file is locked with a password.", "Unpack the archive and add the pictures.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return InvalidInput("The file is packed in a way that is not read here.", "Pack it as a plain zip.")
    if info.file_size > LARGEST_BYTES:
        return too_many_bytes(info.file_size)
    return None


def misleading(name: str) -> InvalidInput | None:
    """Why a member of that name (slashes forward) is not taken; None for a plain one."""
    if name.startswith("/") or name[1:2] == ":":
        return InvalidInput("The name in the archive is an absolute path.", "Pack it with plain names.")
    if ".." in name.split("/"):
        return InvalidInput("The name in the archive leads out of it.", "Pack it with plain names.")
    if any(ord(c) < 32 for c in name):
        return InvalidInput("The name in the archive holds control characters.", "Rename it and pack again.")
    return None


def broken() -> InvalidInput:
    """The refusal of an archive that cannot be read."""
    return InvalidInput("The archive is damaged or cut off.", "Pack it again.")


def grows(times: float) -> InvalidInput:
    """The refusal of an archive that holds next to nothing, many times over."""
    return InvalidInput(
        f"The archive would grow {times:,.0f}-fold when unpacked.", "Pictures do not; look at what is inside."
    )


def too_many(most: int) -> InvalidInput:
    """The refusal of an archive with more than `most` files."""
    return InvalidInput(f"The archive holds more than {most:,} files.", "Split it into smaller archives.")


def too_large() -> InvalidInput:
    """The refusal of an archive whose files are too large together."""
    return InvalidInput(
        f"The archive unpacks to more than {LARGEST_TOTAL_BYTES // 1_000_000_000} GB.",
        "Split it into smaller archives.",
    )
