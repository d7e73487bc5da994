"""Where each base model lies, and whether it is there; looks at files, loads nothing."""

from __future__ import annotations

import json
from pathlib import Path

from masuka.config import Workspace
from masuka.families.base import Entry

FINISHED = ".masuka-download.json"
"""Written into a folder when its download is whole; a folder without it is half a model."""


def folder_of(entry: Entry, workspace: Workspace) -> Path:
    """The folder of a base: the shipped one, or its place in the workspace."""
    return entry.folder or workspace.models / entry.id


def is_built_in(entry: Entry) -> bool:
    """Whether the base comes with MASUKA and works on any machine."""
    return entry.folder is not None


def training_adapter_of(entry: Entry, workspace: Workspace) -> Path | None:
    """The folder of the LoRA that is merged while training this base, or None."""
    return None if entry.training_adapter is None else repo_folder(entry.training_adapter, workspace)


def repo_folder(repo: str, workspace: Workspace) -> Path:
    """The place of a hub repository's files in the workspace."""
    return workspace.models / repo.rsplit("/", 1)[-1]


def is_installed(entry: Entry, workspace: Workspace) -> bool:
    """Whether the base is there whole, with what it learns with."""
    adapter = training_adapter_of(entry, workspace)
    if adapter is not None and not (adapter / FINISHED).is_file():
        return False
    folder = folder_of(entry, workspace)
    index = folder / "model_index.json"
    if not index.is_file() or (entry.folder is None and not (folder / FINISHED).is_file()):
        return False
    parts = json.loads(index.read_text(encoding="utf-8"))
    return all(
        any((folder / name).glob("*.json"))
        for name, about in parts.items()
        if isinstance(about, list) and about[0] is not None
    )


def size_bytes(folder: Path) -> int:
    """Bytes of all files under the folder; 0 when it is not there."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
