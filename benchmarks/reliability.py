"""Writes docs/reliability.md: what is promised, and the figures that were measured for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "reliability.md"
RESULT = ROOT / "benchmarks" / "results" / "hosting.json"
TEXT = ROOT / "benchmarks" / "reliability.txt"
LEAST_LOAD = 0.2
SHOWN = {
    "vault_kill": "kill -9 while saves are published and rotated; another machine restores after each",
    "vault_fault": "an error at one call of a save after the other (listing, reading, writing, flushing, renaming, deleting)",
    "vault_full": "the disk is full after one number of bytes or another; that is told, and the save before is whole",
    "vault_flip": "one bit of the newest save altered; it must be found",
    "vault_race": "two machines save to one vault at the same moment; both saves must be there, whole",
    "vault_chaos": "random edits, saves, losses of the machine, on a Drive that delays, reorders, hides, cuts short, fails",
}


def text() -> str:
    """The whole file."""
    return "\n".join([TEXT.read_text(encoding="utf-8").rstrip(), "", *_figures()]).rstrip() + "\n"


def write() -> Path:
    """docs/reliability.md, written anew."""
    FILE.write_text(text(), encoding="utf-8")
    return FILE


def _figures() -> Iterator[str]:
    yield "## Measured"
    yield ""
    if not RESULT.exists():
        yield "Not measured yet: `python -m benchmarks run hosting --out benchmarks/results`, then `python -m benchmarks document`."
        return
    result: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    figures = result["figures"]
    yield (
        f"{result['date'][:10]}, {result['machine']['cores']} cores, masuka {result['versions']['masuka']}, "
        "by `python -m benchmarks run hosting`. All figures with their goals: [performance.md](performance.md)."
    )
    yield ""
    yield from _load(result)
    yield "| trial | times | promise broken |"
    yield "|---|---|---|"
    for name, about in SHOWN.items():
        if f"{name}_tries" in figures:
            yield f"| {about} | {figures[f'{name}_tries']:,.0f} | {figures[f'{name}_broken']:.0f} |"
    if "training_kills" in figures:
        yield (
            f"| a training is killed at one step after the other and goes on; the losses differ by at most "
            f"{figures['training_kill_loss_difference']:.1e} | {figures['training_kills']:.0f} | "
            f"{int(not result['bars']['training_kill_loss_difference']['met'])} |"
        )
    yield ""
    yield from _drill(result)


def _load(result: dict[str, Any]) -> Iterator[str]:
    """Which timings were taken while the machine also did other things."""
    loaded = sorted(part["cores_busy_elsewhere"] for part in result.get("parts", {}).values())
    if loaded and loaded[-1] >= LEAST_LOAD:
        between = f"{loaded[0]:.1f} to {loaded[-1]:.1f}"
        yield f"Meanwhile {between} cores were busy with other work. Counts do not mind that; timings do, and were not corrected."
        yield ""


def _drill(result: dict[str, Any]) -> Iterator[str]:
    figures, bars = result["figures"], result["bars"]
    if "machine_loss_back_s" not in figures:
        return
    yield "The machine is lost: app and worker are killed in the middle of a training, and the whole working folder is deleted."
    yield ""
    yield "| figure | value | goal | |"
    yield "|---|---|---|---|"
    for name, about in (
        ("machine_loss_edits_lost_s", "seconds of edits that were lost"),
        ("machine_loss_back_s", "seconds until the studio was open again"),
        ("machine_loss_training_again_s", "seconds until the training went on"),
        ("machine_loss_final_loss_difference", "largest difference of a loss from the uninterrupted training"),
    ):
        goal = bars.get(name)
        told = f"{goal['goal']} | {'met' if goal['met'] else 'missed'}" if goal else " | "
        yield f"| {about} | {figures[name]:.3g} | {told} |"
