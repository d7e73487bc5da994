"""What a training really takes: peaks of memory, disk and time, told beside its estimate."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import torch

from masuka.jobs.reporter import Reporter
from masuka.training.plan import Plan

_RESET_PEAK = b"5"
"""What Linux takes in clear_refs to begin its peak of resident memory anew (man 5 proc)."""


def forget_peaks(device: str) -> None:
    """Begins the peaks anew where the system allows: a notebook did more before."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    if sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_bytes(_RESET_PEAK)


class Meter:
    """Tells what the training has taken so far, under the keys of its estimate."""

    def __init__(self, plan: Plan, reporter: Reporter) -> None:
        self._plan, self._reporter = plan, reporter

    def tell(self, seconds_per_step: float | None) -> None:
        """Peaks since `forget_peaks`, the median step and what lies on the disk for it."""
        figures: dict[str, float | int] = {
            "peak_gpu_bytes": peak_gpu_bytes(self._plan.device),
            "peak_ram_bytes": peak_ram_bytes(),
            "disk_bytes": sum(map(_bytes_under, (self._plan.run_folder, self._plan.output))),
        }
        if seconds_per_step is not None:
            figures["seconds_per_step"] = seconds_per_step
        self._reporter.tell("measured", **figures)


def peak_gpu_bytes(device: str) -> int:
    """The most that torch's pool held on the device; 0 off CUDA."""
    return int(torch.cuda.max_memory_reserved(device)) if device.startswith("cuda") else 0


def peak_ram_bytes() -> int:
    """The most main memory that this process held, since its start or `forget_peaks`."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):  # Windows
        return int(memory.peak_wset)
    import resource

    # Kilobytes everywhere but on macOS (man 2 getrusage).
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def _bytes_under(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0
