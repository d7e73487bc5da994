"""What FLUX 3 relies on in diffusers' modular pipelines, which it is drawn by.

Each test says why. When one fails after a bump, `families/flux3_pipeline.py` needs a look.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, Flux3ModularPipeline, Flux3Transformer2DModel
from diffusers.modular_pipelines.flux3.modular_blocks_flux3 import Flux3AutoBlocks

from masuka.families import FAMILIES, flux3
from masuka.families.parts import tiny
from masuka.models.catalogue import classes_of
from tests.every_family import arguments_for, drawn, pipeline_of, tiny_folder

FLUX3 = FAMILIES["flux3"]


@pytest.fixture
def alone() -> Any:
    """Diffusers' own pipeline, which loads the checkpoint by itself; it gets embeddings."""
    blocks = Flux3AutoBlocks()
    for step in ("prompt_upsampler", "text_encoder"):
        blocks.sub_blocks.pop(step)
    pipeline = Flux3ModularPipeline(blocks, pretrained_model_name_or_path=str(tiny_folder("flux3")))
    pipeline.load_components(dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_picture_is_the_one_that_diffusers_draws_alone(alone: Any, guidance: float) -> None:
    """A checkpoint as its makers publish it, read by no code of MASUKA, with the same outcome."""
    ours = pipeline_of("flux3")
    arguments = arguments_for(FLUX3, ours, guidance_scale=guidance)
    wanted = ours(**arguments, output_type="pt").images
    scale = arguments.pop("guidance_scale")
    guided = "negative_prompt_embeds" in arguments
    alone.update_components(guider=ClassifierFreeGuidance(guidance_scale=scale, enabled=guided))
    arguments["generator"] = [torch.Generator().manual_seed(1)]
    theirs = alone(**arguments, output_type="pt", output="images")
    assert guided is (guidance > 1)
    torch.testing.assert_close(wanted, theirs, rtol=0, atol=1e-5)


def test_the_schedule_is_that_of_the_blocks(alone: Any) -> None:
    """Learning moves noise levels by the shift that drawing has, which only the blocks state."""
    assert pipeline_of("flux3").scheduler.config.shift == alone.scheduler.config.shift == flux3._SHIFT


def test_each_step_is_told_and_nobody_is_told_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    """Blocks are shared between all loops that diffusers makes; ours is told in its own.

    Nor does it draw a progress bar into the job's log.
    """
    pipeline = pipeline_of("flux3")
    told: list[tuple[int, torch.Tensor]] = []

    def after_step(_pipeline: Any, step: int, _time: Any, values: dict[str, Any]) -> dict[str, Any]:
        told.append((step, values["latents"].clone()))
        return values

    quiet = drawn(FLUX3, pipeline)
    arguments = arguments_for(FLUX3, pipeline)
    heard = pipeline(**arguments, output_type="latent", callback_on_step_end=after_step).images
    assert [step for step, _ in told] == [0, 1]
    assert torch.equal(heard, quiet)
    assert torch.equal(heard.flatten(2).transpose(1, 2), told[-1][1])
    drawn(FLUX3, pipeline_of("flux3"))
    assert len(told) == 2
    assert "it/s" not in capfd.readouterr().err


def test_parts_are_known_from_the_modular_index() -> None:
    """It says where a part lies in a third place, and of which class it is."""
    assert classes_of(tiny_folder("flux3")) == {
        "text_encoder": "Qwen3VLForConditionalGeneration",
        "tokenizer": "Qwen2Tokenizer",
        "transformer": "Flux3Transformer2DModel",
        "vae": "AutoencoderKLFlux2",
    }


def test_the_distilled_one_is_told_where_each_step_leads() -> None:
    """Its blocks are others: no second pass, and the next noise level goes in beside the present."""
    pipeline = pipeline_of("flux3")
    config = {key: value for key, value in pipeline.transformer.config.items() if not key.startswith("_")}
    with tiny.seeded(1):
        quick = Flux3Transformer2DModel(**{**config, "flow_map": True}).eval()
    pipeline.register_modules(transformer=quick)
    seen: list[tuple[float, float]] = []
    quick.register_forward_pre_hook(
        lambda _m, _a, given: seen.append((given["timestep"].item(), given["target_timestep"].item())),
        with_kwargs=True,
    )
    arguments = arguments_for(FLUX3, pipeline, base="flux3-klein", num_inference_steps=3)
    told: list[int] = []
    pipeline(**arguments, output_type="latent", callback_on_step_end=lambda _p, step, _t, values: told.append(step))
    assert told == [0, 1, 2]
    assert [target for _, target in seen] == [now for now, _ in seen[1:]] + [0.0]
