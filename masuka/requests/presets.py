"""Named beginnings for a training's settings: what other trainers start from.

A preset only fills in a form or a command line; every value is checked like a typed one.
Sources are each project's own defaults, as published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masuka.errors import NotFound
from masuka.requests.base import Limit, Param

RECOMMENDED = "Recommended"


@dataclass(frozen=True)
class Preset:
    """Settings under one name.

    `steps_per_picture` takes the place of a fixed number of steps.
    """

    name: str
    about: str
    values: Mapping[str, Any]
    steps_per_picture: int = 0


PRESETS = (
    Preset(
        "CharForge",
        "What CharForge and MASUKA 2 trained with: short, at 512 px.",
        {"steps": 800, "batch_size": 1, "learning_rate": 8e-4, "resolution_px": 512, "rank": 8},
    ),
    Preset(
        "fluxgym",
        "Small LoRAs at a high rate, 160 steps for each picture.",
        {"batch_size": 1, "learning_rate": 8e-4, "resolution_px": 512, "rank": 4},
        steps_per_picture=160,
    ),
    Preset(
        "ai-toolkit",
        "Long and careful, 3,000 steps at rank 32.",
        {
            "steps": 3000, "batch_size": 1, "learning_rate": 1e-4, "resolution_px": 768, "rank": 32,
            "weight_decay": 1e-4, "caption_dropout": 0.05, "checkpoint_every": 250, "keep_checkpoints": 4,
        },
    ),
    Preset(
        "kohya_ss",
        "Its preset for FLUX.1: 1,000 steps at rank 16.",
        {"steps": 1000, "batch_size": 1, "learning_rate": 3e-4, "resolution_px": 512, "rank": 16,
         "timesteps": "logit_normal"},
    ),
)  # fmt: skip


def preset_named(name: str) -> Preset:
    """The preset of that name, whatever its case; raises NotFound."""
    wanted = " ".join(name.split()).casefold()
    for preset in PRESETS:
        if preset.name.casefold() == wanted:
            return preset
    known = ", ".join(preset.name for preset in PRESETS)
    raise NotFound(f"There is no preset {name!r}.", f"Known are: {known}.")


def suits(preset: Preset, limits: Mapping[str, Limit]) -> bool:
    """Whether a base with these ranges can be trained so."""
    return all(_within(value, limits.get(name)) for name, value in preset.values.items())


def values_of(preset: Preset, *, pictures: int, steps: Param) -> dict[str, Any]:
    """The preset's settings for so many pictures, the steps within the base's range."""
    if not preset.steps_per_picture:
        return dict(preset.values)
    wanted = preset.steps_per_picture * max(1, pictures)
    lowest, highest = int(steps.minimum or 1), int(steps.maximum or wanted)
    return {**preset.values, "steps": min(highest, max(lowest, wanted))}


def _within(value: Any, limit: Limit | None) -> bool:
    if limit is None or isinstance(value, str):
        return True
    low = limit.minimum is None or value >= limit.minimum
    return low and (limit.maximum is None or value <= limit.maximum)
