"""What every benchmark shares: figures against goals, pairs taken in turn, one result object."""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import masuka
from masuka.hosting.doctor import package_versions
from masuka.hosting.machine import machine

Figures = dict[str, float]
Bars = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Benchmark:
    """`measure` is 'module:function', which gives back (figures, bars)."""

    about: str
    measure: str


BENCHMARKS = {
    "datasets": Benchmark("pictures taken in, memory, a large grid, captions typed, copies found", "benchmarks.datasets:measure"),
    "hosting": Benchmark("saves that survive, a machine that is lost, killed trainings, the door", "benchmarks.hosting:measure"),
    "pocket": Benchmark("the built-in model: prompts followed, speed, what a LoRA learns", "benchmarks.pocket:measure"),
    "spine": Benchmark("start, queue, drawing and training against plain loops", "benchmarks.spine:measure"),
}


def measure(name: str) -> dict[str, Any]:
    """The result of that benchmark: {name, figures, bars, machine, versions, date}."""
    module, _, function = BENCHMARKS[name].measure.partition(":")
    started_s = time.monotonic()
    figures, bars = getattr(importlib.import_module(module), function)()
    here = machine(Path.cwd())
    return {
        "name": name,
        "figures": {key: round(value, 4) for key, value in figures.items()},
        "bars": bars,
        "machine": {
            "cpu": cpu_name(), "cores": here.cpu_count, "ram_gib": here.ram_total_gib, "gpu": here.gpu or None,
        },
        "versions": {"masuka": masuka.__version__, "python": sys.version.split()[0], **package_versions()},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started_s, 1),
    }  # fmt: skip


def bar(value: float, goal: str) -> dict[str, Any]:
    """One figure against its goal, written as '>= 0.9' or '<= 3.0'."""
    sign, _, limit = goal.partition(" ")
    met = value >= float(limit) if sign == ">=" else value <= float(limit)
    return {"value": round(value, 4), "goal": goal, "met": met}


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], *, pairs: int
) -> tuple[float, float, float]:
    """Median seconds of both and the median ratio ours / theirs of neighbouring runs.

    The order within a pair alternates, so that a busy machine disturbs both alike.
    """
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(pairs):
        order = ("ours", "theirs") if number % 2 else ("theirs", "ours")
        for name in order:
            started = time.perf_counter()
            (ours if name == "ours" else theirs)()
            seconds[name].append(time.perf_counter() - started)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return statistics.median(seconds["ours"]), statistics.median(seconds["theirs"]), statistics.median(ratios)


def show(result: Mapping[str, Any], *, as_json: bool) -> str:
    """The result as JSON, or as a short table for a person."""
    if as_json:
        return json.dumps(result, indent=1)
    lines = [f"{result['name']}, {result['date']}, {result['machine']['cores']} cores, {result['seconds']:.0f} s"]
    width = max(map(len, [*result["figures"], *result["bars"]]), default=0)
    for name, value in result["figures"].items():
        goal = result["bars"].get(name)
        told = f"   goal {goal['goal']}: {'met' if goal['met'] else 'MISSED'}" if goal else ""
        lines.append(f"  {name:{width}}  {value:>10.4g}{told}")
    return "\n".join(lines)


def write(result: Mapping[str, Any], folder: Path) -> Path:
    """The file NAME.json in the folder, with the result."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{result['name']}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return file


def say(text: str) -> None:
    """Tells on stderr what is being measured."""
    print(f"… {text}", file=sys.stderr, flush=True)


def cpu_name() -> str:
    """The processor's name, '' where the system does not tell."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return ""
    names = [line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else ""
