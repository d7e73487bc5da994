"""Whether a save has really arrived where the vault's folder only says so.

A folder on a disk or a volume holds what reads back. A mounted Drive does not: it uploads
when it likes, and what reads back may never arrive. Only Drive's own checksum tells.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlencode

from masuka.errors import AccessDenied, RemoteUnavailable

DRIVE = "https://www.googleapis.com"
TIMEOUT_S = 10.0
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Sent:
    """A file as it was sent: its name and the checksum that Drive computes too."""

    name: str
    md5: str


class Confirm(Protocol):
    """How it is known that a save has arrived."""

    can_tell: bool
    """False: what is written stays 'not yet confirmed', because nothing here can know."""

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether all of it is there; may raise ExternalError."""


class ReadBack:
    """For a folder that is what it reads as, or a mount that nobody can ask about."""

    def __init__(self, *, can_tell: bool) -> None:
        self.can_tell = can_tell

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether reading back, which was done already, is proof."""
        return self.can_tell


class DriveChecksums:
    """Asks Drive itself (files.list, md5Checksum). `token` gives a fresh access token.

    Such a token is to be had in a notebook's own kernel only.
    """

    can_tell = True

    def __init__(self, token: Callable[[], str], *, base_url: str = DRIVE) -> None:
        if not base_url.startswith(("https://", "http://127.0.0.1:")):
            raise ValueError(f"a token is not sent to {base_url}")
        self._token = token
        self._base_url = base_url.rstrip("/")

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether Drive has a file of each name with that checksum."""
        return all(file.md5 in self._checksums(file.name) for file in sent)

    def _checksums(self, name: str) -> set[str]:
        wanted = name.replace("\\", "\\\\").replace("'", "\\'")
        query = urlencode(
            {
                "q": f"name = '{wanted}' and trashed = false",
                "fields": "files(md5Checksum)",
                "pageSize": 20,
                "supportsAllDrives": "true",
                "includeItemsFromAllDrives": "true",
            }
        )
        request = urllib.request.Request(  # noqa: S310 - the address was checked above
            f"{self._base_url}/drive/v3/files?{query}", headers={"Authorization": f"Bearer {self._token()}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                files = json.load(answer)["files"]
            return {str(file.get("md5Checksum", "")) for file in files}
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise AccessDenied("Drive does not let MASUKA look at its checksums.", "Allow Drive again.") from error
            raise RemoteUnavailable(f"Drive answered {error.code}.", "It is asked again.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RemoteUnavailable(f"Drive could not be asked: {error}.", "It is asked again.") from error


def for_folder(folder: Path) -> ReadBack:
    """Proof by reading back; none for a folder that a program only pretends to be."""
    return ReadBack(can_tell=not is_pretended(folder))


def is_pretended(folder: Path, *, mounts: Path = MOUNTS) -> bool:
    """Whether the folder lies on a FUSE mount, as Drive's and bucket mounts do."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    best, kind = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        parts = before.split(" ")
        if len(parts) < 5 or not after:
            continue
        point = parts[4].replace("\\040", " ")
        below = folder == Path(point) or Path(point) in folder.parents
        if below and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind.startswith("fuse")


def checksum(chunks: Iterable[bytes]) -> str:
    """The MD5 of all pieces together, as Drive tells it; it protects from nobody."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
