"""Contenders in processes of their own that take steps in turn, so that all meet the same machine.

A contender's module is started as `python -m MODULE NAME …`, says when it is ready, takes a
step for each line that it reads and prints its seconds. Peak memory is the process's highest
resident size above its size after the imports.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

WARM_UP_STEPS = 3


def take_steps(prepare: Callable[[], Callable[[], Any]]) -> None:
    """A contender's side: `prepare` gives the step; what was imported before does not count."""
    before = _resident_bytes()
    step = prepare()
    for _ in range(WARM_UP_STEPS):
        step()
    _say({"ready": True})
    for line in sys.stdin:
        if line.strip() == "memory":
            _say({"peak_bytes": _peak_bytes() - before})
            continue
        started = time.perf_counter()
        step()
        _say({"seconds": time.perf_counter() - started})


def compare(prefix: str, commands: Mapping[str, Sequence[str]], *, pairs: int) -> dict[str, float]:
    """Seconds, GiB, and ratios of the first contender to each other one."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    memory = {}
    with ExitStack() as stack:
        running = {name: stack.enter_context(_Contender(command)) for name, command in commands.items()}
        for contender in running.values():
            contender.read()
        for _ in range(pairs):
            for name, contender in running.items():
                seconds[name].append(float(contender.ask("step")["seconds"]))
        for name, contender in running.items():
            memory[name] = float(contender.ask("memory")["peak_bytes"])
    figures = {f"{prefix}_{n}_step_s": statistics.median(values) for n, values in seconds.items()}
    figures |= {f"{prefix}_{n}_peak_gib": value / 2**30 for n, value in memory.items()}
    ours, *others = commands
    for name in others:
        ratios = [a / b for a, b in zip(seconds[ours], seconds[name], strict=True)]
        figures[f"{prefix}_step_ratio_to_{name}"] = statistics.median(ratios)
        figures[f"{prefix}_memory_ratio_to_{name}"] = memory[ours] / memory[name]
    return {key: round(value, 4) for key, value in figures.items()}


def bars(figures: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Each ratio with its goal: ≤ 0.8 of the plain loop, ≤ 1.0 of its cached form."""
    found = {}
    for name, value in figures.items():
        if "_ratio_to_" in name:
            goal = 1.0 if name.endswith("plain_cached") else 0.8
            found[name] = {"value": value, "goal": f"<= {goal}", "met": value <= goal}
    return found


class _Contender:
    """A child process that steps when asked."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = [sys.executable, "-m", *arguments]

    def __enter__(self) -> _Contender:
        # Idle contenders must not spin on the cores of the one that steps.
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
        self._said = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
            text=True, env=environment, cwd=Path(__file__).parent.parent,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        self._said.seek(0)
        raise RuntimeError(f"{' '.join(self._command[2:])} ended without an answer: {self._said.read()[-2000:]}")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def _peak_bytes() -> int:
    """The most that was resident; `ru_maxrss` would begin at what the parent held."""
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _say(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)
