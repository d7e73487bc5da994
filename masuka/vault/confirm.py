"""Whether a save has really arrived where the vault's folder only says so.

A folder on a disk or a volume holds what reads back. A mounted Drive does not: it uploads
when it likes, and what reads back may never arrive. Only Drive's own checksum tells.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
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
SETTLED_S = 600.0
"""How long a mounted Drive may need to upload what nobody can ask about."""
MOUNTS = Path("/proc/self/mountinfo")
LOCAL = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "bcachefs", "overlay", "tmpfs", "vfat", "exfat", "ntfs3", "apfs", "hfsplus"]
)
"""File systems of Linux whose files are where they are read from; no other one is believed."""
CLOUDS = re.compile(r"(CloudStorage|Mobile Documents|Dropbox|OneDrive|iCloud ?Drive|Google ?Drive|Box Sync|pCloud)\b", re.I)
"""Folders of an ordinary disk that a program uploads when it likes."""


@dataclass(frozen=True)
class Sent:
    """A file as it was sent: its name and the checksum that Drive computes too."""

    name: str
    md5: str


class Confirm(Protocol):
    """How it is known that a save has arrived."""

    at_once: bool
    """Whether what reads back has arrived."""

    @property
    def can_tell(self) -> bool:
        """Whether it can be known at all; else what is written stays unconfirmed."""

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether all of it is there; may raise ExternalError."""


class ReadBack:
    """For a folder that is what it reads as, or a mount that nobody can ask about."""

    def __init__(self, *, can_tell: bool) -> None:
        self.can_tell = self.at_once = can_tell

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether reading back, which was done already, is proof."""
        return self.can_tell


class DriveChecksums:
    """Asks Drive itself (files.list, md5Checksum). `token` gives a fresh access token.

    Such a token is to be had in a notebook's own kernel only.
    """

    can_tell = True
    at_once = False

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
        address = f"{self._base_url}/drive/v3/files?{query}"
        try:
            headers = {"Authorization": f"Bearer {self._token()}"}
            request = urllib.request.Request(address, headers=headers)  # noqa: S310 - checked when it was made
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


class LentToken:
    """Asks Drive with a token from a file, as long as one is there.

    The app is no notebook's kernel, but a kernel may lend it a token and renew it.
    """

    at_once = False

    def __init__(self, file: Path, *, base_url: str = DRIVE) -> None:
        self._file = file
        self._drive = DriveChecksums(lambda: file.read_text(encoding="ascii").strip(), base_url=base_url)

    @property
    def can_tell(self) -> bool:
        return self._file.exists()

    def arrived(self, sent: Sequence[Sent]) -> bool:
        """Whether Drive says so; False while there is no token."""
        return self._file.exists() and self._drive.arrived(sent)


def lend_token(file: Path, token: str) -> Path:
    """The file, readable by its owner only, with a fresh access token for Drive."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
        out.write(token)
    return part.replace(file)


def for_folder(folder: Path, token_file: Path) -> Confirm:
    """Proof by reading back on a local disk, else by a lent token."""
    return ReadBack(can_tell=True) if on_local_disk(folder) else LentToken(token_file)


def on_local_disk(folder: Path, *, mounts: Path = MOUNTS) -> bool:
    """Whether what reads back is there: no network's, no FUSE, no cloud's folder.

    Where the system does not tell its mounts (macOS), every disk that is not the own counts as a network's.
    """
    if CLOUDS.search(str(folder)):
        return False
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Path("/Volumes") not in folder.parents and Path("/Network") not in folder.parents
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
    return kind in LOCAL


def checksum(chunks: Iterable[bytes]) -> str:
    """The MD5 of all pieces together, as Drive tells it; it protects from nobody."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
