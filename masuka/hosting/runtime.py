"""Which kind of host this is, told by its environment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masuka.config import host_marks

HostName = Literal["colab", "kaggle", "space", "runpod", "docker", "local"]


@dataclass(frozen=True)
class Runtime:
    """A host: what it is called, what it keeps, how people reach the page."""

    name: HostName
    title: str
    keeps_files: bool
    """Whether the workspace is still there after the session."""
    zero_gpu: bool = False
    """A Space where the GPU belongs to each request, not to the process."""


def detect(marks: Collection[str] | None = None, *, root: Path = Path("/")) -> Runtime:
    """The host of this process; `marks` are the names of variables that hosts set."""
    seen = host_marks() if marks is None else marks
    if _any(seen, "COLAB_") or (root / "var/colab/hostname").exists():
        return Runtime("colab", "Google Colab", keeps_files=False)
    if _any(seen, "KAGGLE_KERNEL_"):
        return Runtime("kaggle", "Kaggle", keeps_files=False)
    if "SPACE_ID" in seen:
        return Runtime("space", "a Hugging Face Space", keeps_files=False, zero_gpu="SPACES_ZERO_GPU" in seen)
    if "RUNPOD_POD_ID" in seen:
        return Runtime("runpod", "RunPod", keeps_files=(root / "workspace").is_dir())
    if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return Runtime("docker", "a container", keeps_files=False)
    return Runtime("local", "this computer", keeps_files=True)


def _any(marks: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in marks)
