"""What every benchmark shares: figures against goals, pairs taken in turn, one result object."""

from __future__ import annotations

import importlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import masuka
from masuka.hosting.doctor import package_versions
from masuka.hosting.machine import machine

Figures = dict[str, float]
Bars = dict[str, dict[str, Any]]
Parts = Mapping[str, Callable[[], tuple[Figures, Bars]]]


@dataclass(frozen=True)
class Benchmark:
    """`measure` is 'module:function', which gives back (figures, bars).

    With `in_parts` it gives back Parts instead, which are measured and kept one by one. With
    `cells`, a table, it is asked for some of them within a time, beside what is known.
    """

    about: str
    measure: str
    in_parts: bool = False
    cells: str = ""


BENCHMARKS = {
    "datasets": Benchmark("pictures taken in, memory, a large grid, captions typed, copies found", "benchmarks.datasets:parts", in_parts=True),
    "hosting": Benchmark("saves that survive, a machine that is lost, killed trainings, the door", "benchmarks.hosting:parts", in_parts=True),
    "pocket": Benchmark("the built-in model: prompts followed, speed, what a LoRA learns", "benchmarks.pocket:measure"),
    "training": Benchmark("steps, memory and losses against plain loops, Pocket, killed trainings", "benchmarks.training:parts", in_parts=True),
    "training-gpu": Benchmark(
        "trainings at true size on a GPU: seconds a step, memory, MFU",
        "benchmarks.training_gpu:measure", cells="benchmarks.training_gpu:CELLS",
    ),
    "spine": Benchmark("start, queue, drawing and training against plain loops", "benchmarks.spine:measure"),
}


def measure(name: str) -> dict[str, Any]:
    """The result of that benchmark: {name, figures, bars, machine, versions, date, seconds}."""
    started_s = time.monotonic()
    figures, bars = _function(name)()
    return _result(name, figures, bars, time.monotonic() - started_s)


def measure_parts(name: str, folder: Path | None, *, again: Collection[str] = ()) -> dict[str, Any]:
    """The result of a benchmark in parts; NAME.json in the folder is written after each.

    A file of this machine and these versions that lacks parts is gone on with; a whole one
    is measured anew, or, where `again` names parts, those alone.
    """
    parts: Parts = _function(name)()
    result = _begun(name, folder, again)
    for part, measure_part in parts.items():
        if part in result["parts"]:
            continue
        before = _spent()
        figures, bars = measure_part()
        after = _spent()
        wall_s, all_s, ours_s = (b - a for a, b in zip(before, after, strict=True))
        own = _result(name, {**result["figures"], **figures}, {**result["bars"], **bars}, result["seconds"] + wall_s)
        result = {**own, "parts": dict(result["parts"])}
        result["parts"][part] = {
            "date": own["date"], "seconds": round(wall_s, 1), "figures": sorted(figures),
            "cores_busy_elsewhere": round(max(0.0, all_s - ours_s) / wall_s, 2),
        }  # fmt: skip
        result["missing"] = [p for p in parts if p not in result["parts"]]
        if folder is not None:
            write(result, folder)
    return result


def measure_cells(name: str, folder: Path | None, *, budget_s: float, cells: Sequence[str]) -> dict[str, Any]:
    """The result of a benchmark of cells; of this machine and these versions is kept what was known.

    `cells` are all where none is named. Raises ValueError for one that there is not.
    """
    offered = _found(BENCHMARKS[name].cells)
    unknown = [cell for cell in cells if cell not in offered]
    if unknown:
        raise ValueError(f"There is no cell {unknown[0]!r}. Known are: {', '.join(offered)}.")
    started_s = time.monotonic()
    before = _result(name, {}, {}, 0.0)
    file = None if folder is None else folder / f"{name}.json"
    if file is not None and file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if all(found[key] == before[key] for key in ("machine", "versions")):
            before = found
    known = {k: v for k, v in before["figures"].items() if not any(k.startswith(f"{c}_") for c in cells)}
    figures, bars = _function(name)(list(cells or offered), budget_s, known)
    result = _result(name, figures, bars, before["seconds"] + time.monotonic() - started_s)
    result["missing"] = [cell for cell in offered if not any(figure.startswith(f"{cell}_") for figure in figures)]
    if folder is not None:
        write(result, folder)
    return result


def _begun(name: str, folder: Path | None, again: Collection[str]) -> dict[str, Any]:
    """What is to be gone on with: an earlier result without the parts that are due."""
    fresh = {**_result(name, {}, {}, 0.0), "parts": {}}
    file = None if folder is None else folder / f"{name}.json"
    if file is None or not file.exists():
        return fresh
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    same = all(found[key] == fresh[key] for key in ("machine", "versions"))
    if not same or not (again or found.get("missing")):
        return fresh
    for part in again:
        gone = found["parts"].pop(part, {"seconds": 0.0, "figures": []})
        found["seconds"] = round(found["seconds"] - gone["seconds"], 1)
        for figure in gone["figures"]:
            found["figures"].pop(figure, None)
            found["bars"].pop(figure, None)
    return found


def _spent() -> tuple[float, float, float]:
    """Seconds of the clock, of all cores together, and of those our own."""
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    every = psutil.cpu_times()
    busy_s = sum(every) - every.idle - getattr(every, "iowait", 0.0) - getattr(every, "guest", 0.0)
    return time.monotonic(), busy_s, sum(u.ru_utime + u.ru_stime for u in own)


def _function(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = _found(BENCHMARKS[name].measure)
    return found


def _found(path: str) -> Any:
    module, _, thing = path.partition(":")
    return getattr(importlib.import_module(module), thing)


def _result(name: str, figures: Figures, bars: Bars, seconds: float) -> dict[str, Any]:
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
        "seconds": round(seconds, 1),
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
    written = file.with_suffix(".partial")
    written.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return written.replace(file)


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
