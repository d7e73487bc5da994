"""Which kind of host this is, told by its environment, and how its page is reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from masuka.config import host_marks

HostName = Literal["colab", "kaggle", "space", "runpod", "docker", "local"]
PORT = 7860
COLAB_FRAMES = ("https://colab.research.google.com", "https://*.googleusercontent.com")
SPACE_FRAMES = ("https://huggingface.co", "https://*.hf.space")


@dataclass(frozen=True)
class Runtime:
    """A host: what it is called, what it keeps, how people reach the page."""

    name: HostName
    title: str
    keeps_files: bool
    """Whether the workspace is still there after the session."""
    zero_gpu: bool = False
    """A Space where the GPU belongs to each request, not to the process."""
    public_address: str = ""
    """Where the host's own proxy shows the page; no tunnel is opened then."""
    host_names: tuple[str, ...] = ()
    """The names of that proxy."""
    framed_by: tuple[str, ...] = ()
    """Sites that show the page inside one of theirs."""


def detect(marks: Mapping[str, str] | None = None, *, root: Path = Path("/"), port: int = PORT) -> Runtime:
    """The host of this process; `marks` are variables as `host_marks` gives them.

    MASUKA_PLATFORM names it outright: a notebook tells it to the app that it starts.
    """
    seen = host_marks() if marks is None else marks
    told = seen.get("MASUKA_PLATFORM", "")
    if told == "colab" or _any(seen, "COLAB_") or (root / "var/colab/hostname").exists():
        return Runtime("colab", "Google Colab", keeps_files=False, framed_by=COLAB_FRAMES)
    if told == "kaggle" or _any(seen, "KAGGLE_KERNEL_"):
        return Runtime("kaggle", "Kaggle", keeps_files=False)
    if "SPACE_ID" in seen:
        return _space(seen)
    if "RUNPOD_POD_ID" in seen:
        return _runpod(seen, root, port)
    if told == "docker" or (root / ".dockerenv").exists() or (root / "run/.containerenv").exists():
        return Runtime("docker", "a container", keeps_files=(root / "data").is_mount())
    return Runtime("local", "this computer", keeps_files=True)


def _space(seen: Mapping[str, str]) -> Runtime:
    names = tuple(part.strip().lower() for part in seen.get("SPACE_HOST", "").split(",") if part.strip())
    return Runtime(
        "space",
        "a Hugging Face Space",
        keeps_files=False,
        zero_gpu="SPACES_ZERO_GPU" in seen,
        public_address=f"https://{names[0]}" if names else "",
        host_names=names,
        framed_by=SPACE_FRAMES,
    )


def _runpod(seen: Mapping[str, str], root: Path, port: int) -> Runtime:
    pod = seen.get("RUNPOD_POD_ID", "").lower()
    name = f"{pod}-{port}.proxy.runpod.net"
    return Runtime(
        "runpod",
        "RunPod",
        keeps_files=(root / "workspace").is_dir(),
        public_address=f"https://{name}" if pod else "",
        host_names=(name,) if pod else (),
    )


def _any(marks: Mapping[str, str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in marks)
