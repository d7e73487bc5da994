"""The vault's folder as it can be relied on: any mounted one, however slow or forgetful.

Paths are relative, with slashes. Everything that the vault does to its folder goes through
these few calls, so that tests can put a misbehaving Drive in their place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from masuka.errors import Damaged

CHUNK_BYTES = 1024 * 1024
_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)
"""What mounts answer that cannot flush one file; the copy is read back in any case."""


class Disk:
    """A folder; every call may raise OSError, and may take long.

    A path that leads out of it, by a link too, raises Damaged and touches nothing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def there(self) -> bool:
        """Whether the folder can be used; it is made where its parent is there."""
        if not self.root.is_dir() and self.root.parent.is_dir():
            self.root.mkdir(exist_ok=True)
        return self.root.is_dir()

    def names(self, folder: str) -> list[str]:
        """The names of the files in it, [] where there is no such folder."""
        place = self._place(folder)
        return sorted(entry.name for entry in os.scandir(place) if entry.is_file()) if place.is_dir() else []

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of each file in it by name, {} where there is no such folder."""
        place = self._place(folder)
        return {e.name: e.stat().st_size for e in os.scandir(place) if e.is_file()} if place.is_dir() else {}

    def size(self, path: str) -> int | None:
        """The bytes of the file, None where there is none."""
        try:
            return self._place(path).stat().st_size
        except FileNotFoundError:
            return None

    def changed_s(self, path: str) -> float:
        """When the file was last written to, in seconds since 1970."""
        return self._place(path).stat().st_mtime

    def read(self, path: str) -> Iterator[bytes]:
        """The file's content, piece by piece."""
        with self._place(path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def write(self, path: str, chunks: Iterable[bytes], *, start: int = 0) -> None:
        """Writes from byte `start` on, cuts off what was after it, and flushes."""
        file = self._place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Bucket mounts take files that are written once from the start, and little else.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT, 0o644), "wb", buffering=0) as out:
            if os.fstat(out.fileno()).st_size > start:
                out.truncate(start)
            if start:
                out.seek(start)
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[out.write(left) :]
            flush(out.fileno())

    def rename(self, old: str, new: str) -> None:
        """Gives a finished file its name."""
        self._place(old).replace(self._place(new))

    def discard(self, path: str) -> None:
        """Empties the file, then deletes it: a Drive keeps what is deleted for 30 days."""
        file = self._place(path)
        if file.exists():
            os.truncate(file, 0)
            file.unlink(missing_ok=True)

    def _place(self, path: str) -> Path:
        # Lists in the vault name paths, and anybody who may write there writes lists.
        place = self.root / path
        if not place.resolve().is_relative_to(self.root.resolve()):
            raise Damaged(f"{path!r} leads out of the vault.", "It is left alone.")
        return place


def flush(descriptor: int) -> None:
    """Waits until the open file is on the disk, where the disk can say so."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
