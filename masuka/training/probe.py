"""The job `try_training`: the real training for a few steps, to know what it takes.

Everything is as in the training itself, its caches too, which that finds again; only no
checkpoint, sample or LoRA comes of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from masuka.jobs.reporter import Reporter
from masuka.models.loading import quiet_libraries
from masuka.training.image import prepare
from masuka.training.memory import plain_errors
from masuka.training.meter import forget_peaks, peak_gpu_bytes, peak_ram_bytes
from masuka.training.plan import plan_of
from masuka.training.randomness import own_randomness

STEPS = 3
"""Measured after one that is not: it allocates, and compiles where that is asked for."""


def run(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Seconds a step, peaks of memory and the seconds before the first step.

    Raises what the training would raise: OutOfMemory where it does not fit.
    """
    began = time.monotonic()
    quiet_libraries()
    folders = {"run_folder": str(reporter.scratch), "output": str(reporter.scratch / "output")}
    plan = plan_of({**params, **folders})
    forget_peaks(plan.device)
    with plain_errors(), own_randomness(plan.request.seed):
        learner = prepare(plan, reporter).learner
        prepared_s = time.monotonic() - began
        reporter.stage("Trying steps")
        seconds = []
        for step in range(STEPS + 1):
            started = time.perf_counter()
            learner.step(step)
            seconds.append(time.perf_counter() - started)
            reporter.progress(step + 1, STEPS + 1)
    return {
        "seconds_per_step": statistics.median(seconds[1:]),
        "first_step_s": round(seconds[0], 3),
        "prepared_s": round(prepared_s, 1),
        "peak_gpu_bytes": peak_gpu_bytes(plan.device),
        "peak_ram_bytes": peak_ram_bytes(),
    }
