"""Where each base model lies, and whether it is there; looks at files, loads nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from masuka.config import Workspace
from masuka.families.base import OWN, Entry

FINISHED = ".masuka-download.json"
"""Written into a folder when its download is whole; a folder without it is half a model."""
INDEXES = ("model_index.json", "modular_model_index.json")
"""What names the parts of a diffusers folder, in the order in which they are looked for."""


def folder_of(entry: Entry, workspace: Workspace) -> Path:
    """The folder of a base: shipped, linked, or its place in the workspace."""
    if entry.folder is not None:
        return entry.folder
    linked = note_of(entry, workspace).get("linked")
    return Path(linked) if linked else place_of(entry.id, workspace)


def place_of(base_id: str, workspace: Workspace) -> Path:
    """The place in the workspace that is the base's own, whatever is there."""
    return workspace.models / base_id


def note_of(entry: Entry, workspace: Workspace) -> dict[str, Any]:
    """What was written down when the base had arrived: repo, commit, files; {} before."""
    note = place_of(entry.id, workspace) / FINISHED
    read: dict[str, Any] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    return read


def digest_of(note: dict[str, Any]) -> str:
    """One SHA-256 for all files of a note, by which two copies of a base are compared."""
    files = note.get("files") or {}
    lines = "".join(f"{name}\0{files[name]}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest() if files else ""


def is_built_in(entry: Entry) -> bool:
    """Whether the base comes with MASUKA and works on any machine."""
    return entry.folder is not None


def is_own(base_id: str) -> bool:
    """Whether a person brought the base; its facts are its catalogue entry's."""
    return OWN in base_id


def training_adapter_of(entry: Entry, workspace: Workspace) -> Path | None:
    """The folder of the LoRA that is merged while training this base, or None."""
    return None if entry.training_adapter is None else repo_folder(entry.training_adapter, workspace)


def repo_folder(repo: str, workspace: Workspace) -> Path:
    """The place of a hub repository's files in the workspace."""
    return workspace.models / repo.rsplit("/", 1)[-1]


def is_installed(entry: Entry, workspace: Workspace) -> bool:
    """Whether the base is there whole, with what it learns with."""
    return is_drawable(entry, workspace) and has_training_adapter(entry, workspace)


def has_training_adapter(entry: Entry, workspace: Workspace) -> bool:
    """Whether what the base learns with is there, or it needs none."""
    adapter = training_adapter_of(entry, workspace)
    return adapter is None or (adapter / FINISHED).is_file()


def is_drawable(entry: Entry, workspace: Workspace) -> bool:
    """Whether the base's own files are there whole."""
    if entry.folder is None and not (place_of(entry.id, workspace) / FINISHED).is_file():
        return False
    folder = folder_of(entry, workspace)
    return all(any((folder / name).glob("*.json")) for name in parts_of(folder)) if has_index(folder) else False


def has_index(folder: Path) -> bool:
    """Whether the folder has a diffusers index at all."""
    return index_of(folder) is not None


def index_of(folder: Path) -> Path | None:
    """The file that names the folder's parts; None without one."""
    return next((folder / name for name in INDEXES if (folder / name).is_file()), None)


def parts_of(folder: Path) -> list[str]:
    """The names of the parts that lie in the folder, from its index."""
    index = index_of(folder)
    return [] if index is None else parts_in(json.loads(index.read_text(encoding="utf-8")))


def parts_in(index: dict[str, Any]) -> list[str]:
    """The parts that an index names, without those that are left out.

    A modular index says where a part lies in a third place, and may leave its class open. A
    name that is no plain word leads out of the folder, and is none of a part.
    """
    return [name for name, about in index.items() if _is_part(name) and _is_there(about)]


def classes_of(folder: Path) -> dict[str, str]:
    """The class of each part that lies in the folder, from its index."""
    index = index_of(folder)
    read: dict[str, Any] = {} if index is None else json.loads(index.read_text(encoding="utf-8"))
    return {name: _class_in(read[name]) for name in parts_in(read)}


def _is_part(name: str) -> bool:
    return name.isidentifier() and not name.startswith("_")


def _class_in(about: list[Any]) -> str:
    said = about[2] if len(about) > 2 and isinstance(about[2], dict) else {}
    return str(about[1] or (said.get("type_hint") or ("", ""))[1])


def _is_there(about: Any) -> bool:
    # A pipeline's own settings may be lists too: Krea 2's say which layers it reads.
    if not isinstance(about, list) or not about or not all(v is None or isinstance(v, str) for v in about[:2]):
        return False
    said = about[2] if len(about) > 2 and isinstance(about[2], dict) else {}
    return about[0] is not None or bool(said.get("subfolder"))


def size_bytes(folder: Path) -> int:
    """Bytes of all files under the folder; 0 when it is not there."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
