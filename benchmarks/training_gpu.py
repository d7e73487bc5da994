"""Seconds a step, memory and MFU of trainings at true size, on an NVIDIA GPU.

    python -m benchmarks run training-gpu --budget 540 [--cells flux1_1024_bf16,sdxl_1024]

It needs no network and no weights. Beside torch it imports these packages, whose wheels have
to be brought to a machine without them: diffusers, transformers, tokenizers, huggingface_hub,
safetensors, peft, accelerate, prodigyopt, pydantic, psutil, pillow, opencv-python-headless,
typer and what MASUKA's own requirements.txt names for them; bitsandbytes for the cells in
fewer bits, which are left out where it is missing.

Each cell runs in a process of its own, under its cap of memory; what was measured before on
this machine is kept, so that a run that was broken off goes on. A cap imitates memory alone:
a cell under 15 GB was not run on a T4.

MFU is the arithmetic that a LoRA needs (forward, and backward to the activations; what
checkpointing computes again does not count) by the second, over the measured peak of a bf16
matrix product of 8192³.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Bars, Figures, bar, say

ROOT = Path(__file__).parents[1]
RANK = 16
WARM_UP, STEPS = 4, 12
_GIB = 2**30


@dataclass(frozen=True)
class Cell:
    """One training that is measured; `cap_gib` is all of the GPU's memory that it may use."""

    model: str
    px: int
    quantize: str = "none"
    compiled: bool = False
    checkpointing: str = "auto"
    cap_gib: float | None = None
    plain: bool = False
    takes_s: int = 60


CELLS = {
    "flux1_1024_bf16": Cell("FLUX1", 1024),
    "flux1_1024_bf16_compiled": Cell("FLUX1", 1024, compiled=True, takes_s=120),
    "flux1_1024_plain": Cell("FLUX1", 1024, plain=True),
    "flux1_512_nf4": Cell("FLUX1", 512, quantize="nf4", cap_gib=15),
    "sdxl_1024": Cell("SDXL", 1024, checkpointing="on"),
    "klein4b_512": Cell("KLEIN_4B", 512, cap_gib=15),
    "zimage_512": Cell("Z_IMAGE", 512, cap_gib=15),
    "sd35m_1024": Cell("SD35_MEDIUM", 1024),
    "flux1_512_int8": Cell("FLUX1", 512, quantize="int8", cap_gib=22.5),
}
"""In the order of what is worth most."""


def measure(cells: list[str], budget_s: float, known: Figures) -> tuple[Figures, Bars]:
    """Figures of the cells that fit into the budget, beside those that are known already."""
    ends = time.monotonic() + budget_s
    figures = dict(known)
    if "matmul_tflops" not in figures:
        figures |= _asked("matmul", ends)
    for name in cells:
        if f"{name}_step_s" in figures or f"{name}_out_of_memory" in figures:
            continue
        if time.monotonic() + CELLS[name].takes_s > ends:
            say(f"{name} is left out: the time is over")
            continue
        say(name)
        figures |= _asked(name, ends)
        if f"{name}_tflop" in figures and f"{name}_step_s" in figures:
            rate = figures[f"{name}_tflop"] / figures[f"{name}_step_s"]
            figures[f"{name}_mfu"] = rate / figures["matmul_tflops"]
    return figures, bars(figures)


def bars(figures: Figures) -> Bars:
    """The goals of the cells that were measured."""
    found: Bars = {}
    goals = {
        "flux1_1024_bf16_compiled_mfu": ">= 0.5",
        "sdxl_1024_peak_gib": "<= 7.0",
        "flux1_512_nf4_peak_gib": "<= 9.5",
    }
    for name, goal in goals.items():
        if name in figures:
            found[name] = bar(figures[name], goal)
    both = [figures.get(f"{n}_step_s") for n in ("flux1_1024_plain", "flux1_1024_bf16_compiled")]
    if both[0] and both[1]:
        found["flux1_1024_times_as_fast"] = bar(both[0] / both[1], ">= 2.0")
    return found


def _asked(name: str, ends: float) -> Figures:
    """What a process of its own measured; a figure `…_out_of_memory` where it did not fit."""
    left = max(10.0, ends - time.monotonic())
    command = [sys.executable, "-m", "benchmarks.training_gpu", name]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=left, check=False)
    except subprocess.TimeoutExpired:
        say(f"{name} took longer than the time that was left")
        return {}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        say(f"{name} ended with {done.returncode}: {done.stderr[-1500:]}")
        return {f"{name}_out_of_memory": 1.0} if "out of memory" in done.stderr.lower() else {}
    found: Figures = json.loads(lines[-1])
    return found


def child(name: str, device: str = "cuda") -> Figures:
    """The figures of one cell, measured in this process."""
    import torch

    if name == "matmul":
        return {"matmul_tflops": _matmul_tflops(device)}
    cell = CELLS[name]
    if cell.cap_gib is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, cell.cap_gib * _GIB / total))
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        figures = (_plain if cell.plain else _masuka)(cell, Path(folder), device)
    return {f"{name}_{key}": value for key, value in figures.items()}


def _masuka(cell: Cell, folder: Path, device: str) -> Figures:
    """MASUKA's own learner on caches that are there already."""
    import torch

    from benchmarks import gpu_models
    from masuka.families import family_named
    from masuka.jobs.reporter import EventFile
    from masuka.training.learner import Learner
    from masuka.training.lessons import lessons_of
    from masuka.training.pictures import Picture
    from masuka.training.plan import plan_of

    model = getattr(gpu_models, cell.model)
    params = {
        "request": {
            "dataset_id": 1, "base": model.base, "steps": 1000, "rank": RANK, "resolution_px": cell.px,
            "precision": "bf16", "optimizer": "adamw", "gradient_checkpointing": cell.checkpointing,
            "compile_blocks": cell.compiled, "sample_every": 0,
        },
        "family": model.family, "base": {"id": model.base, "folder": str(folder)},
        "run_folder": str(folder / "run"), "output": str(folder / "out"), "name": "bench",
        "pictures": [], "device": device,
    }  # fmt: skip
    denoiser = gpu_models.denoiser(model, dtype=torch.bfloat16, device=device, quantize=cell.quantize)
    family: Any = gpu_models.Given(family_named(model.family), denoiser)
    texts, latents, captions = gpu_models.caches(model, cell.px)
    # Their files are never read: what a step needs of them is in the caches.
    pictures = tuple(Picture(folder / f"{n}.png", f"{n:064x}", caption) for n, caption in enumerate(captions))
    plan = replace(plan_of(params), family=family, pictures=pictures)
    lessons = lessons_of(plan, texts, latents, captions)
    with closing(EventFile(folder / "events.jsonl", folder / "scratch")) as reporter:
        learner = Learner(plan, lessons, reporter)
        flops = _flops(plan, learner, lessons)
        steps = iter(range(10_000))
        return _timed(lambda: learner.step(next(steps)), device) | {"tflop": flops / 1e12}


def _plain(cell: Cell, folder: Path, device: str) -> Figures:
    """The loop that does what diffusers' own example does, its encoders loaded too."""
    from benchmarks import gpu_plain

    return _timed(gpu_plain.loop(cell.px, RANK, folder, device).step, device)


def _timed(step: Any, device: str) -> Figures:
    import torch

    on_gpu = device.startswith("cuda")
    for _ in range(WARM_UP):
        step()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    figures = {"step_s": statistics.median(seconds)}
    if on_gpu:
        figures |= {
            "peak_gib": torch.cuda.max_memory_allocated() / _GIB,
            "reserved_gib": torch.cuda.max_memory_reserved() / _GIB,
        }
    return figures


def _flops(plan: Any, learner: Any, lessons: Any) -> float:
    """Floating-point operations of a LoRA's step: forward, and backward to the activations.

    A product's backward to its input takes as much as its forward; attention's takes twice as
    much, because both sides of its two products need gradients.
    """
    from torch.utils.flop_counter import FlopCounterMode

    lessons.next(0)
    micro = next(iter(lessons.taken(1))).micro
    lessons.skip(0)
    with learner.as_peft(), FlopCounterMode(display=False) as counter:
        plan.family.predict(learner.denoiser, micro.noisy, micro.sigmas, micro.text)
    counts = counter.get_flop_counts()["Global"]
    attention = sum(n for op, n in counts.items() if "attention" in str(op))
    return float(2 * (sum(counts.values()) - attention) + 3 * attention)


def _matmul_tflops(device: str, size: int = 8192) -> float:
    """The best of several bf16 products of that size, in 10¹² operations a second."""
    import torch

    if not device.startswith("cuda"):
        size = 512
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        started = time.perf_counter()
        a @ b
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e12


if __name__ == "__main__":
    print(json.dumps(child(*sys.argv[1:])), flush=True)
