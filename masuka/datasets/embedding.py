"""Small pictures as vectors by which likeness can be told: DINOv2, where it was downloaded.

Behind `Embedder`, so that another model can take its place. Runs on the CPU: a small
picture takes some hundredths of a second. torch and transformers load when one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from masuka.models.catalogue import FINISHED

REPO = "facebook/dinov2-small"
REVISION = "ed25f3a31f01632728cabb09d1542f84ab7b0056"
LICENCE = "Apache-2.0"
PATTERNS = ("model.safetensors", "config.json", "preprocessor_config.json", "README.md")
SIZE_GIB = 88_253_000 / 2**30
SIDE_PX = 224
BATCH = 16
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the model's preprocessor_config.json says."""

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns RGB pictures into rows of numbers, (N, D); alike ones point the same way."""

    def embed(self, pictures: Sequence[Image.Image]) -> Vectors: ...


class DinoV2:
    """The first token of DINOv2's last layer, for squares of 224 px."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import Dinov2Model

        self._torch = torch
        model = Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = model.to("cpu", dtype=torch.float32).eval()

    def embed(self, pictures: Sequence[Image.Image]) -> Vectors:
        """One row for each picture; it is squeezed into the square, nothing is cut off."""
        torch = self._torch
        squares = [p.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC) for p in pictures]
        values = np.stack([np.asarray(square, np.float32) for square in squares]) / 255
        pixels = torch.from_numpy((values - np.array(_MEAN, np.float32)) / np.array(_SPREAD, np.float32)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            hidden = self._model(pixel_values=pixels).last_hidden_state
        return np.asarray(hidden[:, 0].numpy(), np.float32)


def folder_in(models: Path) -> Path:
    """Where the model lies once it was downloaded."""
    return models / REPO.rsplit("/", 1)[-1]


def is_here(models: Path) -> bool:
    """Whether the model was downloaded whole."""
    return (folder_in(models) / FINISHED).is_file()


def download_params(models: Path) -> dict[str, Any]:
    """The params of a `download_model` job that fetches it."""
    return {
        "repo": REPO, "revision": REVISION, "folder": str(folder_in(models)), "patterns": list(PATTERNS),
        "size_gib": SIZE_GIB,
    }  # fmt: skip


def embedded(
    rows: Sequence[Mapping[str, Any]],
    thumbnail: Callable[[Mapping[str, Any]], Image.Image | None],
    embedder: Embedder,
    *,
    check: Callable[[], None],
) -> dict[str, Vectors]:
    """The vector of each row that has a thumbnail, by SHA-256; `check` may raise."""
    found: dict[str, Vectors] = {}
    for batch in _batches(rows, thumbnail):
        check()
        vectors = embedder.embed([picture for _, picture in batch])
        found.update((sha256, vector) for (sha256, _), vector in zip(batch, vectors, strict=True))
    return found


def _batches(
    rows: Sequence[Mapping[str, Any]], thumbnail: Callable[[Mapping[str, Any]], Image.Image | None]
) -> Iterator[list[tuple[str, Image.Image]]]:
    for start in range(0, len(rows), BATCH):
        seen = [(row["sha256"], thumbnail(row)) for row in rows[start : start + BATCH]]
        batch = [(sha256, picture) for sha256, picture in seen if picture is not None]
        if batch:
            yield batch
