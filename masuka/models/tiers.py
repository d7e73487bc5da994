"""Which bases suit a machine: a table that a person can edit, and the proof that each fits.

The table only proposes. What is shown was put before the estimator first (`models.memory`),
so that a wrong line of the table can name no base that does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from masuka.errors import InvalidInput
from masuka.families import FAMILIES, family_of
from masuka.families.base import Entry
from masuka.models import memory
from masuka.models.memory import GIB, Machine
from masuka.requests.training import TrainImage

Task = Literal["draw", "train"]
TASKS: Mapping[Task, str] = {"draw": "To draw", "train": "To train"}
TYPICAL_PICTURES = 20
"""A training is estimated with so many, at the base's default settings."""
LONGEST_TABLE = 20_000

DEFAULT: dict[str, Any] = {
    "tiers": [
        {"name": "no GPU", "vram_gib": 0, "ram_gib": 0, "draw": ["pocket"], "train": ["pocket"]},
        {
            "name": "small GPU", "vram_gib": 5.5, "ram_gib": 7,
            "draw": ["sdxl", "illustrious-xl", "pocket"], "train": ["sdxl", "illustrious-xl", "pocket"],
        },
        {
            "name": "8 GB GPU", "vram_gib": 7.2, "ram_gib": 11,
            "draw": ["sdxl", "juggernaut-xl-v9", "illustrious-xl", "sd35-medium"],
            "train": ["sdxl", "juggernaut-xl-v9", "illustrious-xl", "pocket"],
        },
        {
            "name": "12 to 16 GB GPU", "vram_gib": 11, "ram_gib": 12,
            "draw": ["flux2-klein-4b", "zimage-turbo", "sdxl", "sd35-medium", "juggernaut-xl-v9"],
            "train": ["flux2-klein-base-4b", "sdxl", "zimage", "sd35-medium", "illustrious-xl"],
        },
        {
            "name": "24 GB GPU", "vram_gib": 21, "ram_gib": 20,
            "draw": ["zimage-turbo", "flux1-schnell", "flux2-klein-4b", "chroma1-hd", "sdxl"],
            "train": ["flux1-schnell", "zimage", "flux2-klein-base-4b", "flux1-dev", "sd35-large", "sdxl"],
        },
        {
            "name": "48 GB GPU or more", "vram_gib": 44, "ram_gib": 48,
            "draw": ["flux1-schnell", "qwen-image-2512", "flux1-dev", "krea2-turbo", "zimage"],
            "train": ["flux1-dev", "qwen-image-2512", "flux2-klein-base-9b", "flux1-schnell", "sd35-large"],
        },
    ]
}  # fmt: skip
"""By what a card of that size draws and trains at its default size; bases by the catalogue's
ids, the first is recommended. Bounds lie below what cards of a size report as theirs."""


@dataclass(frozen=True)
class Fit:
    """Whether one task is possible with a base on a machine, in a sentence.

    `need_bytes` and `room_bytes` are of the memory that decides; 0 where nobody counted.
    """

    works: bool
    sentence: str
    need_bytes: int = 0
    room_bytes: int = 0
    slow: bool = False


@dataclass(frozen=True)
class Advice:
    """A base that is recommended for a task, with the proof that it fits."""

    task: Task
    entry: Entry
    fit: Fit


def parsed(text: str) -> dict[str, Any]:
    """The table that a person wrote; raises InvalidInput with what is wrong."""
    if len(text) > LONGEST_TABLE:
        raise _wrong(f"The table has {len(text):,} characters.")
    try:
        table = json.loads(text)
    except ValueError as error:
        raise _wrong(f"This is no JSON: {error}.") from error
    tiers = table.get("tiers") if isinstance(table, dict) else None
    if not isinstance(tiers, list) or not tiers:
        raise _wrong("The table has no list of tiers.")
    for tier in tiers:
        _must_be_a_tier(tier)
    return {"tiers": tiers}


def tier_of(table: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """The most demanding tier whose bounds the machine meets, else the least."""
    vram = (machine.vram_bytes or 0) / GIB if machine.device.startswith("cuda") else 0
    tiers: list[dict[str, Any]] = sorted(table["tiers"], key=lambda t: (float(t["vram_gib"]), float(t["ram_gib"])))
    met = [t for t in tiers if float(t["vram_gib"]) <= vram and float(t["ram_gib"]) <= machine.ram_bytes / GIB]
    return met[-1] if met else tiers[0]


def recommended(table: Mapping[str, Any], machine: Machine) -> list[Advice]:
    """For each task the bases of the machine's tier that fit on it, the best first.

    Where none of the tier fits, those of the tiers below are asked, and at the end Pocket,
    which runs anywhere.
    """
    mine = tier_of(table, machine)
    below = [t for t in table["tiers"] if float(t["vram_gib"]) < float(mine["vram_gib"])]
    order = [mine, *sorted(below, key=lambda t: -float(t["vram_gib"])), DEFAULT["tiers"][0]]
    found: list[Advice] = []
    for task in TASKS:
        for tier in order:
            known = [entry for id in tier[task] if (entry := _entry(id)) is not None]
            fitting = [Advice(task, e, fit) for e in known if (fit := fit_of(e, machine, task)).works and not fit.slow]
            if fitting:
                found += fitting
                break
    return found


def fit_of(entry: Entry, machine: Machine, task: Task) -> Fit:
    """Whether the task is possible with the base at its default size, and how."""
    if entry.folder is not None:
        return Fit(True, "Draws on any machine." if task == "draw" else "Learns on any machine, in minutes.")
    return _drawing(entry, machine) if task == "draw" else _training(entry, machine)


def _drawing(entry: Entry, machine: Machine) -> Fit:
    width, height = _side(entry, "width"), _side(entry, "height")
    if machine.device == "cpu":
        estimate = memory.drawing(entry, width=width, height=height, dtype="fp32")
        if estimate is None:
            return _unknown()
        need = int(estimate.parts["weights"] + estimate.parts["text encoders"] + estimate.parts["VAE"])
        room = machine.free_ram_bytes
        if need > room:
            return Fit(False, f"Too large to draw here: {_gib(need)} of {_gib(room)} memory.", need, room)
        return Fit(True, "Draws here in main memory, slowly: minutes a picture.", need, room, slow=True)
    estimate = memory.drawing(entry, width=width, height=height, dtype=_half(entry, machine))
    if estimate is None:
        return _unknown()
    room = machine.room_bytes
    if estimate.gpu_bytes <= room * memory.USABLE:
        return Fit(True, f"Draws here: about {_gib(estimate.gpu_bytes)} of {_gib(room)}.", estimate.gpu_bytes, room)
    if machine.device.startswith("cuda") and estimate.ram_bytes <= machine.free_ram_bytes:
        said = f"Draws here piece by piece from main memory, slowly: it needs {_gib(estimate.gpu_bytes)} of {_gib(room)}."
        return Fit(True, said, estimate.gpu_bytes, room, slow=True)
    return Fit(False, f"Too large to draw here: {_gib(estimate.gpu_bytes)} of {_gib(room)}.", estimate.gpu_bytes, room)


def _training(entry: Entry, machine: Machine) -> Fit:
    if not entry.trainable:
        return Fit(False, "Is not made to be trained.")
    if machine.device == "cpu":
        return Fit(False, "Trains well on a GPU only: here a step takes minutes.")
    request = TrainImage.parse({"dataset_id": 1, "base": entry.id}, limits=entry.train_limits)
    planned = memory.plan(entry, request, machine, pictures=TYPICAL_PICTURES)
    if planned.estimate is None:
        return _unknown()
    need, room = planned.estimate.gpu_bytes, machine.room_bytes
    if not planned.fits:
        return Fit(False, f"Too large to train here: {_gib(need)} of {_gib(room)}.", need, room)
    how = " with less memory and more time" if planned.changes else ""
    return Fit(True, f"Trains here{how}: about {_gib(need)} of {_gib(room)}.", need, room)


def _side(entry: Entry, side: str) -> int:
    limit = entry.draw_limits.get(side)
    return int(limit.default) if limit is not None and limit.default else 1024


def _half(entry: Entry, machine: Machine) -> str:
    if machine.bf16:
        return "bf16"
    return "fp16" if family_of(entry.id)[0].capabilities.fp16 else "fp32"


def _unknown() -> Fit:
    return Fit(False, "How much memory it takes is not known.")


def _entry(base_id: str) -> Entry | None:
    return next((e for f in FAMILIES.values() for e in f.entries if e.id == base_id), None)


def _must_be_a_tier(tier: Any) -> None:
    if not isinstance(tier, dict) or not isinstance(tier.get("name"), str) or not 0 < len(tier["name"]) <= 60:
        raise _wrong("Each tier needs a name.")
    for bound in ("vram_gib", "ram_gib"):
        value = tier.get(bound)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 10_000:
            raise _wrong(f"{bound} of {tier['name']} must be a number from 0 to 10,000.")
    for task in TASKS:
        named = tier.get(task)
        if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
            raise _wrong(f"{task!r} of {tier['name']} must list one base or more.")
        unknown = [name for name in named if _entry(name) is None]
        if unknown:
            raise _wrong(f"There is no base {unknown[0]!r}, which {tier['name']} names.")


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, "Correct it, or reset the table.", field="table")


def _gib(size: int) -> str:
    return f"{size / GIB:,.1f} GiB"
