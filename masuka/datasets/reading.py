"""A file's bytes within a limit, or a sentence about why they cannot be had."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from masuka.datasets.decoding import too_many_bytes
from masuka.errors import InvalidInput


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a plain file; raises InvalidInput, also past `limit`."""
    try:
        must_be_plain(path)
        with path.open("rb") as file:
            # As much as there is: room for the limit would be taken from the system for each anew.
            size = min(limit, os.fstat(file.fileno()).st_size)
            data = file.read(size + 1)
            if len(data) > size:  # it grew meanwhile, or is too large
                data += file.read(limit + 1 - len(data))
            if len(data) > limit:
                raise too_many_bytes(max(len(data), path.stat().st_size), limit)
            return data
    except OSError as error:
        raise unreadable(error) from error


def must_be_plain(path: Path) -> None:
    """Raises InvalidInput for a device or a pipe, OSError where there is nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidInput("It is no file but a device or a pipe.", "Add picture files.")


def unreadable(error: Exception) -> InvalidInput:
    """The refusal of a path that the system does not open."""
    if isinstance(error, ValueError):  # worded differently by each Python
        return InvalidInput("Its name holds a null character.", "Rename the file.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidInput(f"It could not be read: {reason}.", "Check the file and its permissions.")
