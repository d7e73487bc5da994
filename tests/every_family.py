"""What the tests that every family must pass need: a tiny checkpoint, a LoRA, a drawing.

Each is made once a process, of the real classes, with no download.
"""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn

from masuka.families import FAMILIES
from masuka.families.base import Entry, Family
from masuka.families.parts import flux2_vae
from masuka.models.loading import quiet_libraries
from masuka.requests.images import DrawImages

CALLED_WITH: dict[str, dict[str, Any]] = {
    "flux": {"max_sequence_length": 24},
    "sd3": {"max_sequence_length": 24},
    "chroma": {"max_sequence_length": 24},
    "flux2": {"max_sequence_length": 96},
    "zimage": {"max_sequence_length": 96},
    "krea2": {"max_sequence_length": 256},
}
"""What a stock pipeline must be told, by family, to read a text as long as the tiny tokenizer does."""
STANDS_FOR = {"flux": "flux1-dev"}
"""The base whose settings suit the tiny checkpoint, where that is not the family's first."""
UNGUIDED = {"zimage": 0.0, "krea2": 0.0}
"""The guidance at which a pipeline makes no second pass, where that is not 1."""
AS_CACHED = {"flux2": flux2_vae.normalised, "flux3": flux2_vae.normalised}
"""What a cached posterior holds of the VAE's latents, where that is not they themselves."""
SIDE_PX = 64


def entry_of(family: Family) -> Entry:
    """The base that stands for the family's tiny checkpoint."""
    wanted = STANDS_FOR.get(family.name, family.entries[0].id)
    return next(entry for entry in family.entries if entry.id == wanted)


@cache
def tiny_folder(name: str) -> Path:
    """The family's tiny checkpoint; nobody may write into it."""
    quiet_libraries()
    folder = Path(tempfile.mkdtemp(prefix=f"masuka-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return FAMILIES[name].tiny(folder)


@cache
def _loaded(name: str) -> Any:
    return FAMILIES[name].pipeline(tiny_folder(name), dtype=torch.float32, device="cpu")


def pipeline_of(name: str) -> Any:
    """A pipeline of its own, fp32 on the CPU; copied, which is quicker than loading."""
    return copy.deepcopy(_loaded(name))


def denoiser_in(family: Family, pipeline: Any) -> nn.Module:
    part: nn.Module = getattr(pipeline, family.denoiser_part)
    return part


def request_for(family: Family, **values: Any) -> DrawImages:
    """A quick drawing with the family's base: 64 px, two steps, no second pass."""
    guidance = UNGUIDED.get(family.name, 1.0)
    quick = {"prompt": "a red robot", "num_inference_steps": 2, "guidance_scale": guidance, "seed": 1}
    base = {"base": entry_of(family).id, "width": SIDE_PX, "height": SIDE_PX}
    return DrawImages.parse({**quick, **base, **values})


def encoded(family: Family, pipeline: Any, text: str) -> dict[str, Tensor]:
    with torch.no_grad():
        return family.encode_text(family.text_encoder_of(pipeline), [text])


def arguments_for(family: Family, pipeline: Any, text: str = "a red robot", **values: Any) -> dict[str, Any]:
    """What the family calls its pipeline with, for seed 1."""
    request = request_for(family, **values)
    negative = family.negative_text(request)
    return family.call_arguments(
        request,
        [torch.Generator().manual_seed(1)],
        text=encoded(family, pipeline, text),
        negative=None if negative is None else encoded(family, pipeline, negative),
    )


def drawn(family: Family, pipeline: Any, text: str = "a red robot", **values: Any) -> Tensor:
    """The latents that the pipeline draws, in its own layout."""
    latents: Tensor = pipeline(**arguments_for(family, pipeline, text, **values), output_type="latent").images
    return latents


def as_trained(family: Family, pipeline: Any, latents: Tensor) -> Tensor:
    """The VAE's latents as the denoiser learns from them."""
    mean = AS_CACHED.get(family.name, lambda _vae, same: same)(pipeline.vae, latents)
    posterior = {"mean": mean, "std": torch.zeros_like(mean)}
    return family.sample_latents(dict(pipeline.vae.config), posterior, torch.Generator().manual_seed(0))


@contextmanager
def first_step(pipeline: Any) -> Iterator[dict[str, Tensor]]:
    """Filled, by the next drawing, with the latents `before` and `after` its first step."""
    seen: dict[str, Tensor] = {}
    step = pipeline.scheduler.step

    def watched(output: Tensor, timestep: Any, sample: Tensor, *others: Any, **options: Any) -> Any:
        result = step(output, timestep, sample, *others, **options)
        if not seen:
            after = result[0] if isinstance(result, tuple) else result.prev_sample
            seen.update(before=sample.clone(), after=after.clone(), timestep=torch.as_tensor(timestep))
        return result

    pipeline.scheduler.step = watched
    try:
        yield seen
    finally:
        del pipeline.scheduler.step


def lora_of(family: Family, part: nn.Module, targets: str, rank: int = 4) -> dict[str, Tensor]:
    """The peft state dict of a LoRA on a module, both sides random; the module is changed."""
    part.add_adapter(  # type: ignore[operator]
        LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), adapter_name="default"
    )
    return randomised(get_peft_model_state_dict(part, adapter_name="default"))


@cache
def random_lora(name: str, rank: int = 4) -> Mapping[str, Tensor]:
    """A LoRA on the tiny denoiser, all layers that may be trained."""
    family = FAMILIES[name]
    part = denoiser_in(family, pipeline_of(name))
    return lora_of(family, part, family.lora_targets["attention_and_mlp"], rank)


@cache
def random_text_lora(name: str, rank: int = 4) -> Mapping[str, Tensor]:
    """A LoRA on the tiny text encoder, where the family trains one; else nothing."""
    family = FAMILIES[name]
    if not family.capabilities.text_encoder_lora:
        return {}
    part = family.adaptable_text_encoder(family.text_encoder_of(pipeline_of(name)))
    return lora_of(family, part, family.text_encoder_targets, rank)


def randomised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same names and shapes with repeatable random numbers."""
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(t.shape, generator=generator) * 0.3 for name, t in state.items()}


def modules_of(state: Mapping[str, Tensor]) -> list[str]:
    return sorted({key.split(".lora_")[0] for key in state})
