"""What this machine has now: GPU, memory, disk, cores. Never loads torch.

Free figures are read at each call; limits of a container are respected.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pynvml

GIB = 2**30
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA card; `compute_capability` is (major, minor)."""

    name: str
    vram_total_gib: float
    vram_free_gib: float
    compute_capability: tuple[int, int]
    driver: str


@dataclass(frozen=True)
class Machine:
    """One look at the machine; sizes in GiB.

    `gpu` is '' and VRAM 0 without an NVIDIA card.
    `device` is what jobs will use: 'cuda', 'mps' or 'cpu'.
    """

    gpu: str
    vram_total_gib: float
    vram_free_gib: float
    ram_total_gib: float
    ram_free_gib: float
    disk_free_gib: float
    cpu_count: int
    device: str
    gpus: tuple[Gpu, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-ready values."""
        return asdict(self)


def machine(folder: Path, *, device: str = "auto") -> Machine:
    """This machine now; `folder` says which disk, `device` is the person's setting."""
    gpus = list_gpus()
    first = gpus[0] if gpus else None
    ram_total_gib, ram_free_gib = memory_gib()
    return Machine(
        gpu=first.name if first else "",
        vram_total_gib=first.vram_total_gib if first else 0.0,
        vram_free_gib=first.vram_free_gib if first else 0.0,
        ram_total_gib=ram_total_gib,
        ram_free_gib=ram_free_gib,
        disk_free_gib=disk_free_gib(folder),
        cpu_count=cpu_count(),
        device=likely_device(device, has_nvidia=bool(gpus)),
        gpus=tuple(gpus),
    )


def list_gpus() -> list[Gpu]:
    """Every NVIDIA card, read from the driver; [] without one."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        # No driver on this machine: that is the answer, not a failure.
        return []
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return [_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def memory_gib() -> tuple[float, float]:
    """(total, free) memory in GiB that this process may use, in a container too."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    if CGROUP_LIMIT.is_file() and CGROUP_USED.is_file():
        limit = CGROUP_LIMIT.read_text().strip()
        if limit.isdigit():
            total = min(total, int(limit))
            free = min(free, max(0, int(limit) - int(CGROUP_USED.read_text())))
    return round(total / GIB, 2), round(free / GIB, 2)


def disk_free_gib(folder: Path) -> float:
    """Free GiB on the disk of the folder, or of its nearest parent that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return round(shutil.disk_usage(folder).free / GIB, 2)


def cpu_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def likely_device(setting: str, *, has_nvidia: bool) -> str:
    """What a worker will choose for the setting 'auto', else the setting itself."""
    if setting != "auto":
        return setting
    if has_nvidia:
        return "cuda"
    return "mps" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"


def _gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        vram_total_gib=round(int(memory.total) / GIB, 2),
        vram_free_gib=round(int(memory.free) / GIB, 2),
        compute_capability=(int(major), int(minor)),
        driver=driver,
    )


def _text(value: str | bytes) -> str:
    # nvidia-ml-py before 12 answers in bytes.
    return value.decode() if isinstance(value, bytes) else value
