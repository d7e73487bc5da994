"""Writes docs/performance.md and docs/reliability.md from the committed results, so that no figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import reliability

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FILE = ROOT / "docs" / "performance.md"
HEAD = """# Performance

Written by `python -m benchmarks document` from the results in [benchmarks/results](../benchmarks/results); a test keeps it true. Comparisons take turns and give the median of neighbouring pairs, so that a busy machine disturbs both sides alike.

    python -m benchmarks list
    python -m benchmarks run pocket --out benchmarks/results
    python -m benchmarks run spine --out benchmarks/results
    python -m benchmarks run hosting --out benchmarks/results
    python -m benchmarks run datasets --out benchmarks/results
    python -m benchmarks run training --out benchmarks/results
"""


def text() -> str:
    """The whole file."""
    found = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]
    return "\n".join([HEAD, *(line for result in found for line in _result(result))]).rstrip() + "\n"


def _result(result: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = result["machine"], result["versions"]
    shown = ("python", "torch", "diffusers", "peft", "gradio")
    yield f"## {result['name']}"
    yield ""
    yield (
        f"{result['date'][:10]}, {machine['cores']} cores ({machine.get('cpu') or 'unknown'}), "
        f"{machine.get('gpu') or 'no GPU'}; " + ", ".join(f"{n} {versions[n]}" for n in shown if versions.get(n)) + "."
    )
    yield ""
    yield "| figure | value | goal | |"
    yield "|---|---|---|---|"
    for name, value in result["figures"].items():
        goal = result["bars"].get(name)
        told = f"{goal['goal']} | {'met' if goal['met'] else 'missed'}" if goal else " | "
        yield f"| {name} | {value:.4g} | {told} |"
    yield ""


def write() -> Path:
    """docs/performance.md, written anew."""
    FILE.write_text(text(), encoding="utf-8")
    reliability.write()
    return FILE
