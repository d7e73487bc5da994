"""A tiny random FLUX pipeline for tests: made once a process, real classes, no download."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from masuka.families import draw_limits_of
from masuka.families.flux import Flux
from masuka.models.loading import quiet_libraries
from masuka.requests.images import DrawImages

FLUX = Flux()


@lru_cache(maxsize=1)
def tiny_folder() -> Path:
    """The checkpoint's folder; nobody may write into it."""
    quiet_libraries()
    folder = Path(tempfile.mkdtemp(prefix="masuka-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return FLUX.tiny(folder)


@lru_cache(maxsize=1)
def _loaded() -> Any:
    return FLUX.pipeline(tiny_folder(), dtype=torch.float32, device="cpu")


def tiny_pipeline() -> Any:
    """A pipeline of its own, fp32 on the CPU; copied, which is quicker than loading."""
    return copy.deepcopy(_loaded())


def request(**values: Any) -> DrawImages:
    """A quick drawing: 64 px, three steps, no second pass."""
    quick = {"prompt": "a red robot", "num_inference_steps": 3, "guidance_scale": 1.0, "seed": 1}
    limits = {n: v for n, v in draw_limits_of("pocket").items() if n not in ("width", "height")}
    return DrawImages.parse({**quick, "width": 64, "height": 64, **values}, limits=limits)


def latents(pipeline: Any, *seeds: int, **values: Any) -> Tensor:
    """The latents that the pipeline draws for these seeds, packed."""
    encoder = FLUX.text_encoder_of(pipeline)
    with torch.no_grad():
        text = FLUX.encode_text(encoder, ["a red robot"])
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    arguments = FLUX.call_arguments(request(**values), generators, text=text)
    drawn: Tensor = pipeline(**arguments, output_type="latent").images
    return drawn


def random_lora(rank: int = 4, alpha: float = 4, layers: str = "attention_and_mlp") -> dict[str, Tensor]:
    """The peft state dict of a LoRA on the tiny transformer, both sides random."""
    pipeline = tiny_pipeline()
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=FLUX.lora_targets[layers])
    pipeline.transformer.add_adapter(config, adapter_name="default")
    return randomised(get_peft_model_state_dict(pipeline.transformer, adapter_name="default"))


def random_text_lora(rank: int = 4) -> dict[str, Tensor]:
    """The peft state dict of a LoRA on the tiny CLIP encoder, both sides random."""
    encoder = tiny_pipeline().text_encoder
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=FLUX.text_encoder_targets)
    encoder.add_adapter(config, adapter_name="default")
    return randomised(get_peft_model_state_dict(encoder, adapter_name="default"))


def randomised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same names and shapes with repeatable random numbers."""
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in state.items()}
