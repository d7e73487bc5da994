"""Draws the training pictures once and keeps them as an array on disk."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np

from masuka.pocket.world import ATTRIBUTES, SIZE_PX, Scene, draw, sample_any_scene, sample_scene

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# any: the full space (judge, VAE); known: what the transformer may see; held out: the benchmark's
KINDS = ("any", "known", "held out")
_CHUNK = 500


def scenes_of(kind: str, count: int) -> list[Scene]:
    """The first count scenes of a kind, always the same."""
    rng = random.Random(kind)
    if kind == "any":
        return [sample_any_scene(rng) for _ in range(count)]
    return [sample_scene(rng, held_out=kind == "held out") for _ in range(count)]


def drawn(folder: Path, kind: str, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures (N, 128, 128, 3) and labels (N, attributes), drawn where missing."""
    scenes = scenes_of(kind, count)
    path = folder / f"{kind.replace(' ', '-')}-{count}.npy"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _draw_to(path, scenes)
    labels = [[ATTRIBUTES[n].index(v) for n, v in scene.attributes.items()] for scene in scenes]
    return np.load(path, mmap_mode="r"), np.array(labels, dtype=np.int64)


def _draw_to(path: Path, scenes: list[Scene]) -> None:
    part = path.with_suffix(".part")
    shape = (len(scenes), SIZE_PX, SIZE_PX, 3)
    pictures: Any = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
    at = 0
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for chunk in pool.map(_draw_chunk, _chunks(scenes)):
            pictures[at : at + len(chunk)] = chunk
            at += len(chunk)
    pictures.flush()
    part.replace(path)


def _chunks(scenes: list[Scene]) -> list[list[Scene]]:
    return [scenes[at : at + _CHUNK] for at in range(0, len(scenes), _CHUNK)]


def _draw_chunk(scenes: list[Scene]) -> NDArray[np.uint8]:
    return np.stack([np.asarray(draw(scene)) for scene in scenes])
