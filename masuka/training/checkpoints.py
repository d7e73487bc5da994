"""Checkpoints: everything a training needs to go on as if it had never stopped.

A checkpoint is a folder of safetensors and JSON. It is written aside, flushed to the disk,
its manifest (sizes, hashes, identity) last, and promoted by one rename, so that a folder
named `step-…` is whole or damaged by something else; damage is found by the hashes and
the one before is taken. Knows no model and no optimiser.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from masuka.errors import Conflict

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "state.json"
DAMAGED = "damaged-"
"""In front of the name of a checkpoint that is not whole; it goes when the next one is saved."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` steps: tensors in `groups`, JSON values in `state`."""

    step: int
    groups: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any] = field(default_factory=dict)


class CheckpointFolder:
    """The checkpoints of one run: the newest `keep` stay, and that of `best_step`.

    `identity` is what must be the same for a checkpoint to be gone on from: base, pictures,
    captions, shape of the LoRA, optimiser.
    """

    def __init__(self, folder: Path, *, identity: Mapping[str, Any], keep: int) -> None:
        self._folder = folder
        self._identity = json.loads(json.dumps(identity, default=str))
        self._keep = keep
        self.best_step: int | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".staging-*"):
            shutil.rmtree(left)

    def save(self, checkpoint: Checkpoint) -> Path:
        """The folder of the checkpoint, which is on the disk when this returns."""
        target = self._folder / _name(checkpoint.step)
        staging = self._folder / f".staging-{checkpoint.step:08d}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            for name, tensors in checkpoint.groups.items():
                whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
                save_file(whole, staging / f"{name}.safetensors")
            (staging / STATE).write_text(json.dumps(checkpoint.state))
            manifest = {
                "format": FORMAT,
                "step": checkpoint.step,
                "identity": self._identity,
                "files": {file.name: _described(file) for file in sorted(staging.iterdir())},
            }
            for file in staging.iterdir():
                _flush(file)
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1))
            _flush(staging / MANIFEST)
            _flush(staging)
            if target.exists():
                shutil.rmtree(target)
            staging.replace(target)
            _flush(self._folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._forget_old(target)
        return target

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """(the newest whole checkpoint or None, a sentence for each damaged one).

        Damaged ones are put aside, so that they count as no checkpoint later.
        Raises Conflict when it belongs to a training that differs from this one.
        """
        damaged: list[str] = []
        for folder in reversed(self._folders()):
            manifest = _whole_manifest(folder)
            if manifest is not None:
                self._must_match(manifest["identity"])
                try:
                    return _read(folder, manifest), _sentences(damaged, "the one before it is taken")
                except (SafetensorError, ValueError, OSError):
                    manifest = None
            damaged.append(folder.name)
            self._put_aside(folder)
        return None, _sentences(damaged, "none is left, so the training starts again")

    def at(self, step: int) -> Checkpoint | None:
        """The checkpoint of that step; None where it is gone or damaged."""
        folder = self._folder / _name(step)
        manifest = _whole_manifest(folder)
        if manifest is None:
            return None
        self._must_match(manifest["identity"])
        return _read(folder, manifest)

    def steps(self) -> list[int]:
        """The steps of the checkpoints that lie there, whole or not."""
        return [int(folder.name.removeprefix("step-")) for folder in self._folders()]

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))

    def _put_aside(self, folder: Path) -> None:
        aside = folder.with_name(f"{DAMAGED}{folder.name}")
        if aside.exists():
            shutil.rmtree(aside)
        folder.replace(aside)

    def _forget_old(self, saved: Path) -> None:
        for folder in self._folders()[: -self._keep]:
            if folder != saved and (self.best_step is None or folder.name != _name(self.best_step)):
                shutil.rmtree(folder)
        for damaged in self._folder.glob(f"{DAMAGED}*"):
            shutil.rmtree(damaged)

    def _must_match(self, identity: Mapping[str, Any]) -> None:
        names = {**self._identity, **identity}
        different = [name for name in names if identity.get(name) != self._identity.get(name)]
        if different:
            listed = ", ".join(name.replace("_", " ") for name in different)
            raise Conflict(
                f"The checkpoint of this run was made with another {listed}.",
                "Start a new training, or bring back what was changed.",
            )


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _sentences(damaged: list[str], instead: str) -> list[str]:
    """One for each, the last of which says what happens instead."""
    told = [f"The checkpoint {name} is damaged." for name in damaged]
    return [*told[:-1], f"{told[-1][:-1]}; {instead}."] if told else []


def _described(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _whole_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest when every file is what it says, else None."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return None
        for name, about in manifest["files"].items():
            if _described(folder / name) != about:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest


def _read(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    groups = {file.stem: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return Checkpoint(int(manifest["step"]), groups, json.loads((folder / STATE).read_text()))


def _flush(path: Path) -> None:
    """Waits until the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
