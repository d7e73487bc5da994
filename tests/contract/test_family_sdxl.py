"""What SDXL's families rely on in diffusers' schedulers and pipeline, each with its reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from safetensors.torch import load_file

from masuka.families import FAMILIES
from masuka.families.parts import ddpm, edm
from masuka.families.sdxl import Sdxl, SdxlEdm, SdxlVelocity
from masuka.families.sdxl_bases import SIZE
from tests.every_family import (
    arguments_for,
    encoded,
    pipeline_of,
    random_lora,
    random_text_lora,
    request_for,
    tiny_folder,
)

LEVELS = torch.tensor([0.0005, 0.1, 0.37, 0.62, 0.9, 0.9995])
NOISE = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(2))
PICTURES = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(3))
SCHEDULES = [ddpm.Schedule(), ddpm.Schedule(prediction="v", ends_in_noise=True)]


def ddpm_of(schedule: ddpm.Schedule) -> Any:
    """diffusers' own training scheduler of the same kind."""
    return DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        rescale_betas_zero_snr=schedule.ends_in_noise, prediction_type="v_prediction",
    )  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_is_added_as_diffusers_adds_it(schedule: ddpm.Schedule) -> None:
    """LoRAs of other trainers and MASUKA's learn on the same noise."""
    theirs, steps = ddpm_of(schedule), schedule.timesteps(LEVELS)
    assert steps.tolist() == [0, 100, 370, 620, 900, 999]
    noisy = theirs.add_noise(PICTURES, NOISE, steps)
    # At the very last step theirs leaves nothing of the picture, and Euler's and ours 1 in 4,096.
    torch.testing.assert_close(schedule.add_noise(PICTURES, NOISE, LEVELS), noisy, rtol=0, atol=2e-3)
    wanted = NOISE if schedule.prediction == "epsilon" else theirs.get_velocity(PICTURES, NOISE, steps)
    torch.testing.assert_close(schedule.target(PICTURES, NOISE, LEVELS), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_drawing_goes_down_the_levels_that_were_learnt(schedule: ddpm.Schedule) -> None:
    scheduler = schedule.scheduler()
    torch.testing.assert_close(scheduler.alphas_cumprod, ddpm.alphas(schedule.ends_in_noise), rtol=2e-3, atol=1e-7)
    scheduler.set_timesteps(20)
    levels = (scheduler.timesteps + 0.5) / 1000
    kept = schedule.add_noise(torch.ones(20), torch.zeros(20), levels)
    torch.testing.assert_close(1 / (scheduler.sigmas[:-1] ** 2 + 1).sqrt(), kept, rtol=2e-3, atol=1e-6)
    assert (scheduler.timesteps[0] == 999) == schedule.ends_in_noise


def test_edm_preconditions_as_diffusers_does() -> None:
    """What is predicted, put back, is the picture; and the clock is the scheduler's."""
    scheduler = edm.scheduler()
    deviations = edm.noise_of(LEVELS).view(-1, 1, 1, 1)
    noisy = PICTURES + deviations * NOISE
    ours = edm.add_noise(PICTURES, NOISE, LEVELS)
    torch.testing.assert_close(ours, scheduler.precondition_inputs(noisy, deviations))
    back = scheduler.precondition_outputs(noisy, edm.target(PICTURES, NOISE, LEVELS), deviations)
    torch.testing.assert_close(back, PICTURES, rtol=0, atol=1e-4)
    scheduler.set_timesteps(11)
    down = torch.linspace(1, 0, 11)
    torch.testing.assert_close(edm.noise_of(down), scheduler.sigmas[:-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(edm.timesteps(down), scheduler.timesteps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [*SCHEDULES, edm], ids=["epsilon", "v", "edm"])
def test_min_snr_weighs_the_error_of_the_picture_whatever_is_predicted(kind: Any) -> None:
    """One error of the picture counts min(snr, 5) times, through any prediction of it."""
    one, none = torch.ones(6, 1), torch.zeros(6, 1)
    rows = [kind.add_noise(one, none, LEVELS), kind.add_noise(none, one, LEVELS)]
    rows += [kind.target(one, none, LEVELS), kind.target(none, one, LEVELS)]
    system = torch.cat(rows, 1).double().view(6, 2, 2)
    error = torch.linalg.inv(system)[:, 0, 1] ** 2  # of the picture, for one of the prediction
    data = edm.DEVIATION**2 if kind is edm else 1.0
    wanted = kind.snr(LEVELS).double().clamp(max=5.0) * error / data
    torch.testing.assert_close(kind.min_snr(LEVELS, 5.0).double(), wanted, rtol=1e-3, atol=1e-6)


def test_sizes_are_those_of_the_published_configuration() -> None:
    """Memory is estimated from them; built on the meta device, nothing is allocated."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), transformer_layers_per_block=(1, 2, 10),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    assert sum(p.numel() for p in unet.parameters()) == SIZE.denoiser
    names = {name for name, layer in unet.named_modules() if isinstance(layer, torch.nn.Linear)}
    attended = [name for name in names if re.fullmatch(Sdxl.lora_targets["attention"], name)]
    assert len(attended) == 70 * 8


def test_a_base_draws_by_its_familys_schedule_whatever_its_folder_names() -> None:
    """A file from the net is put into its parent's folder, whose scheduler may be another."""
    pipeline = SdxlVelocity().pipeline(tiny_folder("sdxl"), dtype=torch.float32, device="cpu")
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.rescale_betas_zero_snr
    assert type(SdxlEdm().scheduler()).__name__ == "EDMDPMSolverMultistepScheduler"


def test_without_words_guidance_leads_away_from_the_empty_text() -> None:
    """diffusers would take zeros; other tools, and dropped captions, take the encoded ''."""
    family, pipeline = FAMILIES["sdxl"], pipeline_of("sdxl")
    arguments = arguments_for(family, pipeline, guidance_scale=5.0)
    empty = encoded(family, pipeline, "")
    assert torch.equal(arguments["negative_prompt_embeds"], empty["prompt_embeds"])
    assert torch.equal(arguments["negative_pooled_prompt_embeds"], empty["pooled_prompt_embeds"])
    assert family.negative_text(request_for(family, guidance_scale=1.0)) is None


def test_only_the_small_text_encoder_learns_and_both_read() -> None:
    family = Sdxl()
    encoder = family.text_encoder(
        tiny_folder("sdxl"), dtype=torch.float32, device="cpu", adaptable_only=True
    )
    for model in encoder.models:
        model.requires_grad_(True)
    adapted = family.encode_adapted_text(encoder, ["a red robot"])
    with torch.no_grad():
        whole = family.encode_text(encoder, ["a red robot"])
    torch.testing.assert_close(adapted["prompt_embeds"], whole["prompt_embeds"])
    adapted["prompt_embeds"].sum().backward()
    first, second = encoder.models
    assert any(p.grad is not None for p in family.adaptable_text_encoder(encoder).parameters())
    assert first is family.adaptable_text_encoder(encoder)
    assert all(p.grad is None for p in second.parameters())


def test_beside_fp16_the_pipeline_computes_in_the_formats_it_needs() -> None:
    """The pipeline takes its latents' format from the second encoder; the first may be trained."""
    pipeline = Sdxl().pipeline(tiny_folder("sdxl"), dtype=torch.float16, device="cpu")
    assert pipeline.text_encoder.dtype == torch.float32
    assert pipeline.text_encoder_2.dtype == pipeline.unet.dtype == torch.float16


def test_files_carry_the_names_that_every_sdxl_tool_reads(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    Sdxl().save_adapter(file, random_lora("sdxl"), {}, text_layers=random_text_lora("sdxl"))
    names = load_file(file).keys()
    assert all(name.startswith(("lora_unet_", "lora_te1_")) for name in names)
    assert sum(name.endswith(".alpha") for name in names) == len(names) // 3


def test_latents_are_scaled_by_mean_and_deviation_where_the_vae_says_so() -> None:
    """Playground's VAE states both per channel; the UNet then sees a deviation of one half."""
    config = dict(pipeline_of("sdxl-edm").vae.config)
    mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    raw = mean.view(1, 4, 1, 1) + std.view(1, 4, 1, 1) * PICTURES[:1]
    posterior = {"mean": raw, "std": torch.zeros_like(raw)}
    latents = SdxlEdm().sample_latents(config, posterior, torch.Generator().manual_seed(0))
    torch.testing.assert_close(latents, PICTURES[:1] * edm.DEVIATION)
