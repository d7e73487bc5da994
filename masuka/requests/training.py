"""The request to train an image LoRA."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Limit, Request, field
from masuka.requests.text import clean_name, clean_prompt

_BLOCKS = re.compile(r"\d{1,3}( ?- ?\d{1,3})?( ?, ?\d{1,3}( ?- ?\d{1,3})?)*")
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


def _clean_blocks(text: str) -> str:
    """'7-12, 20' in one spelling; raises InvalidInput for anything else."""
    text = " ".join(text.replace("\u2013", "-").split())
    if text and not _BLOCKS.fullmatch(text):
        raise InvalidInput(
            f"Blocks are given as {text[:40]!r}.", "Write numbers and ranges, as 7-12, 20.", field="blocks"
        )
    return text


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

    method: Literal["lora", "dora", "lokr", "full"] = field(
        "lora", label="What is learnt",
        help="lora suits nearly always; dora is a little truer and slower, lokr smaller; "
        "full trains the whole model and makes a base of it.",
        group="Model",
    )  # fmt: skip
    alpha: int | None = field(
        None, help="Scale of the LoRA; equal to the rank if empty, which every reader agrees on.",
        group="Model", ge=1, le=256,
    )  # fmt: skip
    dropout: float = field(
        0.0, label="Dropout", help="Share of the LoRA that is left out of a step, against learning by heart.",
        group="Model", ge=0.0, le=0.9,
    )  # fmt: skip
    lokr_factor: int = field(
        8, label="LoKr factor", help="How finely lokr divides a layer; lower learns more and is larger.",
        group="Model", ge=2, le=64,
    )  # fmt: skip
    layers: Literal["attention", "attention_and_mlp"] = field(
        "attention_and_mlp", help="Which layers of the model get an adapter.", group="Model"
    )
    blocks: Annotated[str, AfterValidator(_clean_blocks)] = field(
        "", label="Only these blocks",
        help="Numbers as 7-12, 20, counted from 0 through all of the base's blocks; empty: all.", group="Model",
    )  # fmt: skip
    train_text_encoder: bool = field(
        False, help="Also adapt the CLIP text encoder; its embeddings are then not cached.", group="Model"
    )
    caption_dropout: float = field(
        0.05, help="Share of steps that see an empty caption.", group="Data", ge=0.0, le=0.9
    )
    validation_share: float = field(
        0.0, label="Kept for validation", help="Share of the pictures that are not learnt from, only measured.",
        group="Data", ge=0.0, le=0.5,
    )  # fmt: skip
    prior_dataset_id: int | None = field(
        None, label="Pictures of the class",
        help="A data set of other members of the class, learnt beside, so that the class stays as it is.",
        group="Data", ge=1,
    )  # fmt: skip
    prior_weight: float = field(
        1.0, label="Weight of the class", help="How much those pictures count.", group="Data", ge=0.0, le=10.0
    )
    class_preservation: float = field(
        0.0, label="Keep the class",
        help="How strongly the class word alone is held to what the base draws for it; "
        "0 is off, 1 is usual. A step takes more than twice as long.",
        group="Data", ge=0.0, le=10.0,
    )  # fmt: skip
    timesteps: Literal["auto", "uniform", "logit_normal"] = field(
        "auto", label="Noise levels", help="Which are learnt most; auto is the base's own.", group="Data"
    )
    timestep_shift: float = field(
        1.0, label="Shift", help="Above 1 more noise is learnt (composition), below 1 less (detail).",
        group="Data", ge=0.1, le=20.0,
    )  # fmt: skip
    min_snr_gamma: float = field(
        0.0, label="Min-SNR", help="Evens out noise levels of SDXL and its kind; 5 is usual, 0 is off.",
        group="Data", ge=0.0, le=20.0,
    )  # fmt: skip
    noise_offset: float = field(
        0.0, label="Noise offset", help="Lets SDXL and its kind learn dark and light pictures.",
        group="Data", ge=0.0, le=0.2,
    )  # fmt: skip
    optimizer: Literal[
        "adamw", "adamw8bit", "prodigy", "adafactor", "lion", "came", "schedulefree"
    ] = field(
        "adamw",
        help="adamw8bit needs an NVIDIA GPU and saves memory; adafactor and came save it anywhere; "
        "prodigy finds its own rate; schedulefree needs no schedule.",
        group="Optimiser",
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
    compile_blocks: bool = field(
        False, label="Compile", help="Quicker steps on an NVIDIA GPU, after a minute or two of compiling.",
        group="Memory",
    )  # fmt: skip
    blocks_on_host: float = field(
        0.0, label="Blocks in main memory",
        help="Share of the base that waits outside the GPU and comes when it is its turn; slower.",
        group="Memory", ge=0.0, le=1.0,
    )  # fmt: skip
    processes: int = field(1, label="GPUs", help="How many learn together.", group="Memory", ge=1, le=16)
    when_memory_runs_short: Literal["adapt", "stop"] = field(
        "adapt", label="When memory runs short",
        help="adapt goes on with checkpointing, blocks in main memory, smaller micro-steps, in this order; "
        "what was changed is said.",
        group="Memory",
    )  # fmt: skip
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

    sample_without: bool = field(
        False, label="Compare with the base", help="Also draws every sample at weight 0, once.", group="Output"
    )
    score_every: int = field(
        0, label="Score every", help="Steps between scores of likeness and validation; 0: at every checkpoint.",
        unit="steps", group="Output", ge=0, le=10_000,
    )  # fmt: skip
    stop_early: int = field(
        0, label="Stop early", help="Ends after so many scores without a better one; 0 never does.",
        group="Output", ge=0, le=50,
    )  # fmt: skip
    metrics_to: Literal["none", "tensorboard", "trackio"] = field(
        "none", label="Also log to", help="Writes the figures for that program, into the run's folder.",
        group="Output",
    )  # fmt: skip
    private: bool = field(
        False, label="Say little in the file", help="Leaves counts, settings and the sample out of the LoRA.",
        group="Output",
    )  # fmt: skip

    def must_fit_together(self) -> None:
        if self.lr_warmup_steps > self.steps:
            raise InvalidInput(
                f"The warm-up takes {self.lr_warmup_steps:,} steps and the training only {self.steps:,}.",
                f"Set the warm-up to {self.steps:,} or fewer, or train for longer.",
                field="lr_warmup_steps",
            )
        if self.method == "lokr" and self.quantize != "none":
            raise InvalidInput(
                "A LoKr cannot learn on a quantised base.",
                "Choose lora or dora, or do not quantise.",
                field="method",
            )
