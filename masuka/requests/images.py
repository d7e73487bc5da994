"""The request to draw pictures."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from masuka.requests.base import Limit, Request, field
from masuka.requests.text import clean_prompt
from masuka.requests.training import LARGEST_SEED, clean_base

STANDARD_LIMITS = {"width": Limit(256, 2048, 16, 1024), "height": Limit(256, 2048, 16, 1024)}
"""Ranges of full-size families; a family starts from these and states its own defaults."""


def _prompt(text: str) -> str:
    return clean_prompt(text, field="prompt", shortest=3, longest=2000)


def _negative(text: str) -> str:
    return clean_prompt(text, field="negative_prompt", longest=1000)


class DrawImages(Request):
    """Draw pictures from a prompt, with a character's LoRA or without."""

    prompt: Annotated[str, AfterValidator(_prompt)] = field(
        help="What the picture shows, 3 to 2,000 characters; {trigger} and {class} are filled in."
    )
    adapter_id: int | None = field(None, label="Character", help="The trained LoRA to use.", ge=1)
    adapter_weight: float = field(
        0.8, label="How much", help="Strength of the LoRA; 0 is without it.", ge=0, le=2
    )
    num_images: int = field(1, label="Pictures", help="How many pictures.", ge=1, le=8)
    width: int = field(1024, help="Width of a picture.", unit="px", ge=64, le=4096, multiple_of=16)
    height: int = field(1024, help="Height of a picture.", unit="px", ge=64, le=4096, multiple_of=16)
    base: Annotated[str, AfterValidator(clean_base)] = field(
        "pocket", help="The model that draws; a LoRA draws with its own base.", group="Model"
    )
    negative_prompt: Annotated[str, AfterValidator(_negative)] = field(
        "", help="What the picture should not show, where the model supports it.", group="Model"
    )
    num_inference_steps: int = field(30, label="Steps", help="Denoising steps.", group="Model", ge=1, le=100)
    guidance_scale: float = field(
        3.5, label="Guidance", help="How strictly the prompt is followed.", group="Model", ge=0, le=20
    )
    seed: int | None = field(
        None, help="First picture's seed, the next ones count on from it; empty draws one at random.",
        group="Model", ge=0, le=LARGEST_SEED - 8,
    )  # fmt: skip
