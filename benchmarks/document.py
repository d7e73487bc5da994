"""Writes docs/performance.md and docs/reliability.md from the committed results, so that no figure is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import reliability
from masuka.cli.planning import memory_table

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
    lines = [HEAD, *_memory(found), *(line for result in found for line in _result(result))]
    return "\n".join(lines).rstrip() + "\n"


def _memory(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What training each base takes: estimated, and measured where somebody measured it."""
    yield "## VRAM"
    yield ""
    yield (
        "**Estimated**, by the arithmetic that plans a training (`python -m masuka train memory`): a LoRA of rank "
        "16, batch 1, AdamW, activations computed again, samples drawn; the peak of the hungriest phase with "
        "0.7 GiB for CUDA. Where 512 and 1024 px are equal, the text encoders decide."
    )
    yield ""
    yield memory_table()
    yield ""
    measured = [result for result in found if result["name"] == "training-gpu"]
    for result in measured:
        yield f"**Measured on** {result['machine'].get('gpu')}, {result['date'][:10]}: see training-gpu below."
    if not measured:
        yield "**Measured on** a GPU: nothing yet. `python -m benchmarks run training-gpu` measures it."
    yield ""


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
