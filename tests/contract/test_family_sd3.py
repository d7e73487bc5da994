"""What the Stable Diffusion 3.5 family relies on in diffusers and transformers."""

from __future__ import annotations

import pytest
import torch
from diffusers import SD3Transformer2DModel

from masuka.families.base import Entry
from masuka.families.parts import flow
from masuka.families.sd3 import LARGE, MEDIUM, TURBO, Sd3
from tests.every_family import arguments_for, encoded, pipeline_of, tiny_folder

FAMILY = Sd3()


@pytest.mark.parametrize(
    ("entry", "heads", "dual", "places"), [(MEDIUM, 24, tuple(range(13)), 384), (LARGE, 38, (), 192)]
)
def test_sizes_are_those_of_the_published_configurations(
    entry: Entry, heads: int, dual: tuple[int, ...], places: int
) -> None:
    """Memory is estimated from them; built on the meta device, nothing is allocated."""
    with torch.device("meta"):
        model = SD3Transformer2DModel(
            num_layers=heads, num_attention_heads=heads, attention_head_dim=64, in_channels=16, out_channels=16,
            joint_attention_dim=4096, caption_projection_dim=64 * heads, pooled_projection_dim=2048,
            pos_embed_max_size=places, dual_attention_layers=dual, qk_norm="rms_norm",
        )  # fmt: skip
    assert entry.size is not None
    assert sum(p.numel() for p in model.parameters()) == entry.size.denoiser
    assert (entry.size.width, entry.size.blocks) == (64 * heads, heads)


def test_noise_levels_are_moved_as_the_scheduler_moves_them() -> None:
    """Training's shift is the scheduler's own, so both see the same levels most."""
    scheduler = pipeline_of("sd3").scheduler
    scheduler.set_timesteps(10)
    plain = torch.linspace(1, scheduler.sigma_min, 10)
    unmoved = plain / (3 - 2 * plain)  # what, moved by 3, is plain
    torch.testing.assert_close(flow.shifted(unmoved, 3.0), plain, rtol=0, atol=1e-6)
    assert scheduler.config.shift == 3.0
    drawn = FAMILY.sample_sigmas(4000, (4000, 4, 8, 8), torch.Generator().manual_seed(1))
    assert float(drawn.median()) == pytest.approx(0.75, abs=0.02)


def test_the_clips_stand_in_front_of_t5_and_are_padded_to_its_width() -> None:
    pipeline = pipeline_of("sd3")
    text = encoded(FAMILY, pipeline, "a red robot")
    clips = pipeline.tokenizer.model_max_length
    assert text["prompt_embeds"].shape == (1, clips + 24, 64)
    assert text["pooled_prompt_embeds"].shape == (1, 64)
    both = text["prompt_embeds"][:, :clips]
    assert both.shape[-1] == pipeline.text_encoder_3.config.d_model
    wider = FAMILY.text_encoder_of(pipeline)
    assert wider.max_tokens == 24


def test_beside_fp16_only_t5_takes_another_format() -> None:
    pipeline = FAMILY.pipeline(tiny_folder("sd3"), dtype=torch.float16, device="cpu")
    assert pipeline.text_encoder.dtype == pipeline.text_encoder_2.dtype == torch.float16
    assert pipeline.text_encoder_3.dtype in (torch.bfloat16, torch.float32)


def test_medium_also_leads_away_from_itself_without_some_layers() -> None:
    """Only while it is led at all, and only Medium: the layers' numbers are its own."""
    pipeline = pipeline_of("sd3")
    led = arguments_for(FAMILY, pipeline, guidance_scale=4.5)
    assert led["skip_guidance_layers"] == [7, 8, 9]
    assert arguments_for(FAMILY, pipeline)["skip_guidance_layers"] is None
    large = arguments_for(FAMILY, pipeline, guidance_scale=4.5, base="sd35-large")
    assert large["skip_guidance_layers"] is None


def test_turbo_draws_without_a_second_pass_and_is_not_trained() -> None:
    pipeline = pipeline_of("sd3")
    quick = arguments_for(FAMILY, pipeline, base=TURBO.id, guidance_scale=0.0)
    assert quick["guidance_scale"] == 1.0 and "negative_prompt_embeds" not in quick
    assert not TURBO.trainable and MEDIUM.trainable
