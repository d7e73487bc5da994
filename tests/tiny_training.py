"""A training job on the tiny random FLUX, as a worker runs it, and what it left behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from masuka.jobs.reporter import EventFile
from masuka.training import image
from tests.tiny_flux import tiny_folder

SIZES = ((128, 128), (200, 120), (60, 100))


def picture_params(folder: Path, count: int) -> list[dict[str, Any]]:
    """Pictures of several shapes, as a job's params list them."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(3)
    pictures = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        file = folder / f"{number}.png"
        Image.fromarray(noise.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(file)
        pictures.append(
            {
                "id": number,
                "file": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "caption": f"{{trigger}} {{class}} number {number}",
                "width": width,
                "height": height,
            }
        )
    return pictures


def train_params(root: Path, *, base: Path | None = None, count: int = 5, **request: Any) -> dict[str, Any]:
    """Complete params of a `train_image` job below `root`; keywords change the request."""
    values = {
        "dataset_id": 1, "base": "pocket", "steps": 6, "learning_rate": 2e-3, "rank": 4,
        "resolution_px": 128, "batch_size": 2, "checkpoint_every": 5, "sample_every": 0,
        "lr_warmup_steps": 2, "precision": "fp32", **request,
    }  # fmt: skip
    return {
        "request": values,
        "family": "flux",
        "base": {
            "id": "pocket", "title": "Pocket", "licence": "Apache-2.0", "repo": "", "revision": None,
            "folder": str(base or tiny_folder()), "training_adapter": None,
        },
        "run_id": 3,
        "run_folder": str(root / "run"),
        "output": str(root / "adapters" / "00003-mira-1"),
        "name": "Mira 1",
        "trigger_word": "mira7x",
        "class_word": "robot",
        "character_id": 9,
        "pictures": picture_params(root / "pictures", count),
        "sample_prompts": ["mira7x robot on a beach"] if values["sample_every"] else [],
        "device": "cpu",
    }  # fmt: skip


class Job(EventFile):
    """A reporter whose job is stopped a given number of checks after a given step's metric."""

    def __init__(
        self, root: Path, *, attempt: int = 1, stop: str = "", after_step: int = 0, checks: int = 1
    ) -> None:
        self.file = root / "jobs" / f"{attempt}.jsonl"
        self._stop, self._after_step, self._checks = stop, after_step, checks
        self._step = 0
        super().__init__(self.file, root / "jobs" / f"scratch-{attempt}", self._why)

    def run(self, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return image.run(params, self)
        finally:
            self.close()

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        self._step = step
        super().metric(step=step, epoch=epoch, **values)

    def events(self, type: str) -> list[dict[str, Any]]:
        return [e for e in map(json.loads, self.file.read_text().splitlines()) if e["type"] == type]

    def artefacts(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events("artefact") if event["kind"] == kind]

    def losses(self) -> dict[int, float]:
        return {event["step"]: event["values"]["loss"] for event in self.events("metric")}

    def _why(self) -> str | None:
        if not self._stop or self._step < self._after_step:
            return None
        self._checks -= 1
        return self._stop if self._checks < 0 else None


def trained_weights(params: Mapping[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint, with its file's name."""
    folder = max(Path(params["run_folder"], "checkpoints").glob("step-*"))
    return {
        f"{file.stem}/{name}": tensor
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
