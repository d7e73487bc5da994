"""Where the files of a MASUKA 2 installation lie now, and what they are."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

from PIL import Image

from masuka.config import Workspace

PLACES = (
    "masuka.db", "database.db", "database/masuka.db", "database/database.db",
    "MASUKA/database/masuka.db", "CharForgeData/database/masuka.db",
    "backend/database.db", "backend/masuka.db",
    "charforge-gui/backend/database.db", "charforge-gui/backend/masuka.db",
)  # fmt: skip
"""Paths under a folder where MASUKA 2 kept its database."""


@dataclass(frozen=True)
class Found:
    """A file as we store it; the size in pixels is 0 × 0 for what is no picture."""

    path: str
    sha256: str
    bytes: int
    width: int
    height: int


class Files:
    """Finds old files by the path or name that the database has for them.

    The folders were often moved with the database, so an absolute path that leads nowhere
    is tried again by its last parts beside the database.
    """

    def __init__(self, database: Path, workspace: Workspace) -> None:
        self._database = database.resolve()
        self._workspace = workspace
        self._known: dict[Path, Found] = {}

    @cached_property
    def _roots(self) -> tuple[Path, ...]:
        folders = [self._database.parent, *list(self._database.parents)[1:4]]
        return tuple(folder for folder in folders if folder != folder.parent)

    def picture(self, filename: str, user_id: int | None) -> Found | None:
        """An uploaded picture of that person."""
        person = str(user_id if user_id is not None else 1)
        folders = (
            f"media/{person}",
            f"media/uploads/{person}",
            f"uploads/{person}",
            "media/uploads",
            "media",
            "uploads",
        )
        return self._first(filename, folders)  # fmt: skip

    def result(self, path: str) -> Found | None:
        """A finished picture."""
        return self._first(path, ("media/results", "results", "media/outputs", "generated", "media"))

    def adapters(self, name: str, work_dir: str) -> list[Found]:
        """The trained LoRA files of a character, the finished one first."""
        safe = re.sub(r"[^\w-]", "", name)
        found: dict[str, Found] = {}
        for folder in self._work_folders(safe, work_dir):
            for pattern in (
                "char/char.safetensors",
                f"{safe}.safetensors",
                "*.safetensors",
                "char/*.safetensors",
            ):
                for file in sorted(folder.glob(pattern)):
                    described = self._describe(file)
                    if described:
                        found.setdefault(described.sha256, described)
        for folder in self._folders(("media/loras", "loras")):
            for file in sorted(folder.glob("*.safetensors")):
                described = self._describe(file) if safe and file.stem.lower() == safe.lower() else None
                if described:
                    found.setdefault(described.sha256, described)
        return list(found.values())

    def folder(self, name: str, work_dir: str) -> str:
        """The character's working folder as we store it; the old text when it is gone."""
        folders = self._work_folders(re.sub(r"[^\w-]", "", name), work_dir)
        return self._workspace.relative(folders[0]) if folders else work_dir

    def _work_folders(self, safe: str, work_dir: str) -> list[Path]:
        candidates = [Path(work_dir)] if work_dir else []
        if safe:
            candidates += [
                root / place / safe for root in self._roots for place in ("scratch", "media/loras", "loras")
            ]
        return [folder for folder in dict.fromkeys(candidates) if folder.is_absolute() and folder.is_dir()]

    def _folders(self, places: tuple[str, ...]) -> list[Path]:
        return [root / place for root in self._roots for place in places if (root / place).is_dir()]

    def _first(self, path: str, places: tuple[str, ...]) -> Found | None:
        if not path or "\0" in path:
            return None
        plain = PureWindowsPath(path).as_posix() if "\\" in path else path
        if Path(plain).is_absolute() and (described := self._describe(Path(plain))):
            return described
        parts = [part for part in PurePosixPath(plain).parts if part not in ("/", "..", ".")]
        tails = [Path(*parts[-count:]) for count in (3, 2, 1) if len(parts) >= count]
        for folder in [*self._folders(places), *self._roots]:
            for tail in tails:
                if described := self._describe(folder / tail):
                    return described
        return None

    def _describe(self, path: Path) -> Found | None:
        """The file with its hash; remembered, because Drive is slow."""
        if path in self._known:
            return self._known[path]
        try:
            if not path.is_file():
                return None
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
        except OSError:
            return None
        width, height = (0, 0) if path.suffix == ".safetensors" else _pixels(path)
        self._known[path] = Found(self._workspace.relative(path), sha256, size, width, height)
        return self._known[path]


def _pixels(path: Path) -> tuple[int, int]:
    """Width and height from the header alone; nothing is decoded."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 0, 0
