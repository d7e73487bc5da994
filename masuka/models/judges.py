"""The models that tell how good a training is: where they lie, and what their downloads are.

Light: what they say is in `masuka.training.scoring`, in a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from masuka.datasets import embedding
from masuka.models.catalogue import FINISHED

REPO = "google/siglip-base-patch16-224"
REVISION = "7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed"
LICENCE = "Apache-2.0"
PATTERNS = ("model.safetensors", "config.json", "tokenizer.json", "README.md")
SIZE_GIB = 813_000_000 / 2**30
LIKENESS, PROMPT = "likeness", "prompt"


def folders(models: Path) -> dict[str, str | None]:
    """What tells likeness and prompts, as a worker is told; None: not here."""
    return {
        LIKENESS: str(embedding.folder_in(models)) if embedding.is_here(models) else None,
        PROMPT: str(folder_in(models)) if is_here(models) else None,
    }


def folder_in(models: Path) -> Path:
    """Where the model that compares pictures with sentences lies."""
    return models / REPO.rsplit("/", 1)[-1]


def is_here(models: Path) -> bool:
    """Whether it was downloaded whole."""
    return (folder_in(models) / FINISHED).is_file()


def missing(models: Path) -> dict[str, tuple[str, float, dict[str, Any]]]:
    """What is not here, by what it tells: (title, GiB, params of its download)."""
    own = {
        "repo": REPO, "revision": REVISION, "folder": str(folder_in(models)), "patterns": list(PATTERNS),
        "size_gib": SIZE_GIB,
    }  # fmt: skip
    all_of_them = {
        LIKENESS: ("DINOv2", embedding.SIZE_GIB, embedding.download_params(models)),
        PROMPT: ("SigLIP", SIZE_GIB, own),
    }
    return {name: about for name, about in all_of_them.items() if folders(models)[name] is None}
