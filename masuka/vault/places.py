"""Which files of a workspace are kept, and what they are called wherever the workspace is."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from masuka.config import Workspace
from masuka.store.snapshots import Referred

SETTLED_S = 2.0
"""A file changed a moment ago may still be written to."""
LOG_SETTLED_S = 120.0
MANIFEST = "manifest.json"
ROOTS = ("media", "adapters", "runs", "jobs")
_LEFT_OUT = re.compile(r"(^|/)(\.|[^/]*\.(part|partial|new|tmp|gone-\d+)(/|$)|previews/|damaged-)")
CHECKPOINT = re.compile(r"runs/(\d+)/checkpoints/step-(\d+)/[^/]+")
_RUN = re.compile(r"runs/(\d+)/")
_JOB = re.compile(r"jobs/(\d+)/")
_ADAPTER = re.compile(r"adapters/(\d+)-")


@dataclass(frozen=True)
class Found:
    """A local file that should be in the vault; `path` is its name on every machine."""

    path: str
    file: Path
    bytes: int
    changed_s: float
    settled: bool = True
    """False while it may still be written to."""

    @property
    def checkpoint(self) -> tuple[int, int] | None:
        """(run, step) for a file of a checkpoint."""
        return checkpoint_of(self.path)

    @property
    def order(self) -> tuple[int, int, bool, int]:
        """Small things first, then checkpoints, the newest first and its manifest last."""
        at = self.checkpoint
        if at is None:
            return (0, 0, False, self.bytes)
        return (1, -at[1], self.path.endswith(f"/{MANIFEST}"), self.bytes)


def checkpoint_of(path: str) -> tuple[int, int] | None:
    """(run, step) when the path is that of a checkpoint's file, else None."""
    match = CHECKPOINT.fullmatch(path)
    return (int(match[1]), int(match[2])) if match else None


def is_kept(path: str) -> bool:
    """Whether it is the name of a file in one of the folders that are kept."""
    pure = PurePosixPath(path)
    plain = str(pure) == path and ".." not in pure.parts and "\\" not in path and "\0" not in path
    return plain and len(pure.parts) > 1 and pure.parts[0] in ROOTS


class Places:
    """A workspace's folders by the names that they have in the vault."""

    def __init__(self, workspace: Workspace) -> None:
        folders = (workspace.media, workspace.adapters, workspace.runs, workspace.jobs)
        self._roots = dict(zip(ROOTS, folders, strict=True))
        self._workspace = workspace
        # A link to another disk is followed once: ten thousand files are asked about at a time.
        self._bases = [(n, base) for n, root in self._roots.items() for base in {root: 0, root.resolve(): 0}]

    def local(self, path: str) -> Path:
        """Where the file belongs here; raises ValueError for a path that leads elsewhere."""
        if not is_kept(path):
            raise ValueError(f"{path!r} is no file of a workspace")
        first, *rest = PurePosixPath(path).parts
        return self._roots[first].joinpath(*rest)

    def path(self, file: Path) -> str | None:
        """The name of a local file or folder on every machine; None for one elsewhere."""
        for name, base in self._bases:
            if file.is_relative_to(base):
                inside = file.relative_to(base).as_posix()
                return name if inside == "." else f"{name}/{inside}"
        return None

    def stored(self, text: str) -> str | None:
        """The same for a path as the database has it."""
        return self.path(self._workspace.root / text) if text else None

    def folders(self) -> dict[str, str]:
        """The folders of this machine that absolute paths begin with."""
        return {
            "media": str(self._workspace.media),
            "root": str(self._workspace.root),
            "code": str(Path(__file__).parents[1]),
        }

    def scan(self) -> Iterator[Found]:
        """Every local file that is to be kept."""
        now_s = time.time()
        for start in self._starts():
            for path, file in _walk(*start):
                if _LEFT_OUT.search(path):
                    continue
                try:
                    about = file.stat()
                except FileNotFoundError:
                    continue
                settled_s = LOG_SETTLED_S if path.startswith("jobs/") else SETTLED_S
                at = checkpoint_of(path)
                settled = at is not None or now_s - about.st_mtime >= settled_s
                # A checkpoint's folder gets its name when it is whole.
                if at is not None and not (file.parent / MANIFEST).exists():
                    continue
                yield Found(path, file, about.st_size, about.st_mtime, settled)

    def _starts(self) -> Iterator[tuple[str, Path]]:
        yield "media/datasets", self._workspace.datasets
        yield "media/items", self._workspace.items
        yield "adapters", self._workspace.adapters
        for folder in _folders(self._workspace.runs):
            yield f"runs/{folder.name}/checkpoints", folder / "checkpoints"
            yield f"runs/{folder.name}/samples", folder / "samples"
        for folder in _folders(self._workspace.jobs):
            yield f"jobs/{folder.name}/log.txt", folder / "log.txt"


class Uses:
    """Whether the database still has a use for a kept file."""

    def __init__(self, referred: Referred, places: Places) -> None:
        self._files = {p for text in referred.files if (p := places.stored(text))}
        self._thumbs = {(str(PurePosixPath(p).parent), PurePosixPath(p).stem) for p in self._files}
        adapters = (p for text in referred.adapters if (p := places.stored(text)))
        self._adapters = {str(PurePosixPath(p).parent) for p in adapters}
        self._runs, self._jobs = referred.runs, referred.jobs
        self._masks = {sha256[:16] for sha256 in referred.masks}

    def __call__(self, path: str) -> bool:
        pure = PurePosixPath(path)
        if path.startswith("media/") and pure.parent.name in ("masks", "mattes"):
            return pure.stem.partition("-")[2] in self._masks
        if path.startswith("media/"):
            thumb = pure.parent.name == "thumbs" and (str(pure.parent.parent), pure.stem) in self._thumbs
            return path in self._files or thumb
        if path.startswith("adapters/"):
            run = _ADAPTER.match(path)
            kept = any(str(parent) in self._adapters for parent in pure.parents)
            return kept or (run is not None and int(run[1]) in self._runs)
        run, job = _RUN.match(path), _JOB.match(path)
        return (run is not None and int(run[1]) in self._runs) or (job is not None and int(job[1]) in self._jobs)


def manifest_says(file: Path) -> str | None:
    """The hash that a checkpoint's manifest has for the file; None without one."""
    try:
        files = json.loads((file.parent / MANIFEST).read_text(encoding="utf-8"))["files"]
        return str(files[file.name]["sha256"]) if file.name in files else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _folders(parent: Path) -> list[Path]:
    return sorted(p for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []


def _walk(path: str, start: Path) -> Iterator[tuple[str, Path]]:
    if start.is_file():
        yield path, start
    for folder, _, names in os.walk(start):
        inside = path + folder[len(str(start)) :].replace(os.sep, "/")
        for name in names:
            yield f"{inside}/{name}", Path(folder, name)
