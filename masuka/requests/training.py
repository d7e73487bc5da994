"""The request to train an image LoRA."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Limit, Request, field
from masuka.requests.text import clean_name, clean_prompt

LARGEST_SEED = 2**32 - 1

STANDARD_LIMITS = {
    "steps": Limit(100, 10_000),
    "learning_rate": Limit(1e-6, 1e-2),
    "rank": Limit(4, 256),
    "resolution_px": Limit(256, 2048, 16),
    "batch_size": Limit(1, 16),
}
"""Ranges of full-size families; a family starts from these and states its own defaults."""


def clean_base(text: str) -> str:
    """The id of a base model; whether there is such a model, the catalogue says."""
    return clean_name(text, field="base")


def _clean_prompts(prompts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(clean_prompt(p, field="sample_prompts", shortest=1, longest=2000) for p in prompts)


class TrainImage(Request):
    """Train a LoRA of a data set's character on a base model."""

    dataset_id: int = field(help="The data set to learn from.", ge=1)
    base: Annotated[str, AfterValidator(clean_base)] = field(
        "pocket", help="The base model that learns; pictures are drawn with the same."
    )
    name: Annotated[str, AfterValidator(clean_name)] | None = field(
        None, help="What the result is called; the character's name and a number if empty."
    )
    character_id: int | None = field(None, help="The character; the data set's own if empty.", ge=1)

    steps: int = field(800, help="Optimiser steps; more is not always better.", ge=1, le=100_000)
    learning_rate: float = field(
        1e-4, help="How far each step goes; Prodigy finds its own and does not use this.", ge=1e-7, le=1.0
    )
    rank: int = field(16, help="Size of the LoRA.", ge=1, le=256)
    resolution_px: int = field(
        512, label="Resolution", help="Pictures are trained in buckets of this area.",
        unit="px", ge=64, le=4096, multiple_of=16,
    )  # fmt: skip
    batch_size: int = field(1, help="Pictures per micro-step.", ge=1, le=64)

    alpha: int | None = field(
        None, help="Scale of the LoRA; equal to the rank if empty, which every reader agrees on.",
        group="Model", ge=1, le=256,
    )  # fmt: skip
    layers: Literal["attention", "attention_and_mlp"] = field(
        "attention_and_mlp", help="Which layers of the transformer get an adapter.", group="Model"
    )
    train_text_encoder: bool = field(
        False, help="Also adapt the CLIP text encoder; its embeddings are then not cached.", group="Model"
    )
    caption_dropout: float = field(
        0.05, help="Share of steps that see an empty caption.", group="Data", ge=0.0, le=0.9
    )
    optimizer: Literal["adamw", "adamw8bit", "prodigy"] = field(
        "adamw", help="adamw8bit needs an NVIDIA GPU and saves memory.", group="Optimiser"
    )
    lr_scheduler: Literal["constant", "cosine", "linear"] = field(
        "constant", label="Learning-rate schedule", help="How the learning rate changes after warm-up.",
        group="Optimiser",
    )  # fmt: skip
    lr_warmup_steps: int = field(
        10, label="Warm-up", help="Steps until the full learning rate.", unit="steps",
        group="Optimiser", ge=0, le=2000,
    )  # fmt: skip
    weight_decay: float = field(0.01, help="Pull of the weights towards zero.", group="Optimiser", ge=0, le=1)
    max_grad_norm: float = field(
        1.0, label="Gradient clipping", help="Longest gradient that is used as it is.",
        group="Optimiser", ge=0.01, le=100,
    )  # fmt: skip
    gradient_accumulation_steps: int = field(
        1, label="Accumulation", help="Micro-steps per optimiser step.", group="Optimiser", ge=1, le=64
    )
    ema_decay: float = field(
        0.0, label="EMA", help="Averaging of the weights; 0 is off, 0.99 is usual.",
        group="Optimiser", ge=0, le=0.9999,
    )  # fmt: skip
    seed: int = field(42, help="Same seed, same data, same result.", group="Optimiser", ge=0, le=LARGEST_SEED)

    precision: Literal["auto", "fp32", "bf16", "fp16"] = field(
        "auto", help="auto takes bf16 where the GPU computes in it, else what the model tolerates.",
        group="Memory",
    )  # fmt: skip
    gradient_checkpointing: Literal["auto", "on", "off"] = field(
        "auto", help="Less memory for more time; auto turns it on for large models.", group="Memory"
    )
    quantize: Literal["none", "int8", "nf4"] = field(
        "none", label="Quantise the base", help="Frozen base in fewer bits; needs an NVIDIA GPU.",
        group="Memory",
    )  # fmt: skip
    checkpoint_every: int = field(
        250, help="Steps between checkpoints; a lost machine costs at most this.", unit="steps",
        group="Output", ge=5, le=10_000,
    )  # fmt: skip
    keep_checkpoints: int = field(4, help="How many checkpoints stay on disk.", group="Output", ge=1, le=100)
    sample_every: int = field(
        250,
        help="Steps between sample pictures; 0 draws none.",
        unit="steps",
        group="Output",
        ge=0,
        le=10_000,
    )
    sample_prompts: Annotated[tuple[str, ...], AfterValidator(_clean_prompts)] = field(
        (), help="What the samples show; {trigger} and {class} are filled in. Empty: two of the captions.",
        group="Output", max_length=8,
    )  # fmt: skip

    def must_fit_together(self) -> None:
        if self.lr_warmup_steps > self.steps:
            raise InvalidInput(
                f"The warm-up takes {self.lr_warmup_steps:,} steps and the training only {self.steps:,}.",
                f"Set the warm-up to {self.steps:,} or fewer, or train for longer.",
                field="lr_warmup_steps",
            )
