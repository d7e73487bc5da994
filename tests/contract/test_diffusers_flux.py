"""What the FLUX family and the drawing rely on in diffusers and transformers.

Each test says why. When one fails after a bump, the code that it names needs a look.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from diffusers.hooks import FirstBlockCacheConfig
from safetensors.torch import save_file

from masuka.errors import InvalidInput, Stop
from masuka.families.parts.patches import pack, unpack
from masuka.generation.drawing import Drawer, Identity
from tests.tiny_flux import (
    FLUX,
    latents,
    random_lora,
    random_text_lora,
    request,
    tiny_folder,
    tiny_pipeline,
)


class StopInStep:
    """Raises Stop at the n-th question, as a person's cancel does in the middle of a step."""

    def __init__(self, at: int) -> None:
        self.at, self.asked = at, 0

    def __call__(self) -> None:
        self.asked += 1
        if self.asked == self.at:
            raise Stop("cancel")


def drawer() -> Drawer:
    return Drawer(FLUX, Identity.of(tiny_folder(), "cpu", torch.float32))


@pytest.mark.parametrize("cached", [False, True])
def test_a_picture_after_a_cancel_is_bit_exact(cached: bool) -> None:
    """`Drawer.stoppable` raises from a forward pre-hook and then calls maybe_free_model_hooks;
    without that call a step cache would bleed into the next picture."""
    warm = drawer()
    if cached:
        warm.pipeline.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    wanted = warm.draw(request(), "a red robot", 1).tobytes()
    with pytest.raises(Stop), warm.stoppable(StopInStep(at=9)):
        warm.draw(request(), "a blue robot at night", 2)
    assert warm.draw(request(), "a red robot", 1).tobytes() == wanted
    blocks = [*warm.pipeline.transformer.transformer_blocks, *warm.pipeline.text_encoder_2.encoder.block]
    assert all(len(block._forward_pre_hooks) == 0 for block in blocks)


def test_the_hook_stops_inside_a_step() -> None:
    """A step of a large model takes seconds; the question comes before each block of it."""
    warm = drawer()
    warm.draw(request(), "a red robot", 1)
    steps: list[int] = []
    ask = StopInStep(at=6)
    with pytest.raises(Stop), warm.stoppable(ask):
        warm.draw(request(), "a red robot", 1, lambda done, _preview: steps.append(done))
    assert ask.asked == 6
    assert steps == [1]  # four blocks a step: the sixth question is in the second


def test_many_generators_draw_what_each_draws_alone() -> None:
    """Seeds count on from the first one, so batch or not must not matter."""
    pipeline = tiny_pipeline()
    together = latents(pipeline, 1, 2, 3)
    alone = torch.cat([latents(pipeline, seed) for seed in (1, 2, 3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    assert not torch.allclose(together[0], together[1])


def test_cached_text_is_what_the_pipeline_encodes() -> None:
    """`encode_text` replaces the pipeline's own encoding, so that it can be cached."""
    pipeline = tiny_pipeline()
    encoder = FLUX.text_encoder_of(pipeline)
    captions = ["a red robot", "mira7x robot on a long, long, long beach at night with a crown"]
    with torch.no_grad():
        ours = FLUX.encode_text(encoder, captions)
    embeds, pooled, _ = pipeline.encode_prompt(captions, max_sequence_length=encoder.max_tokens)
    torch.testing.assert_close(ours["prompt_embeds"], embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours["pooled_prompt_embeds"], pooled, rtol=0, atol=1e-6)


def test_latents_are_packed_as_the_pipeline_packs_them() -> None:
    """Training packs by `pack`; drawing by the pipeline."""
    plain = torch.randn(2, 4, 8, 6)
    assert torch.equal(pack(plain), FluxPipeline._pack_latents(plain, 2, 4, 8, 6))
    assert torch.equal(unpack(pack(plain), 8, 6), plain)


def test_a_step_of_the_pipeline_is_predict_and_euler() -> None:
    """Training calls the transformer as the pipeline does: time, ids, sign of the prediction."""
    pipeline = tiny_pipeline()
    encoder = FLUX.text_encoder_of(pipeline)
    with torch.no_grad():
        text = FLUX.encode_text(encoder, ["a red robot"])
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        predicted = FLUX.predict(pipeline.transformer, noise, torch.ones(1), text)
    drawn = latents(pipeline, 1, num_inference_steps=1, base="flux1-dev")  # guidance is an input, as in tiny
    torch.testing.assert_close(unpack(drawn, 8, 8), noise - predicted, rtol=0, atol=1e-5)


def test_the_target_leads_from_noise_to_the_picture() -> None:
    """noisy - sigma * target = latents, which is what the scheduler's steps add up to."""
    plain, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    noisy = 0.3 * noise + 0.7 * plain
    torch.testing.assert_close(noisy - 0.3 * FLUX.target(plain, noise, torch.tensor([0.3])), plain)


def test_diffusers_loads_a_strangers_lora_without_a_word(tmp_path: Path) -> None:
    """Why `adapters.load` reads the header first: no exception, no effect."""
    file = tmp_path / "sdxl.safetensors"
    save_file(
        {
            "unet.down_blocks.0.attentions.0.to_q.lora_A.weight": torch.randn(4, 32),
            "unet.down_blocks.0.attentions.0.to_q.lora_B.weight": torch.randn(32, 4),
        },
        file,
    )
    pipeline = tiny_pipeline()
    before = latents(pipeline, 1)
    pipeline.load_lora_weights(str(file), adapter_name="x")
    assert torch.equal(latents(pipeline, 1), before)
    with pytest.raises(InvalidInput, match="None of the 1 layers"):
        FLUX.load_adapter(tiny_pipeline(), file, "x")


def test_taking_a_lora_out_restores_the_base_exactly(tmp_path: Path) -> None:
    """`Drawer.use` swaps LoRAs in a warm pipeline; fusing would drift, deleting does not."""
    file = tmp_path / "a.safetensors"
    FLUX.save_adapter(file, random_lora(), {}, text_layers=random_text_lora())
    pipeline = tiny_pipeline()
    before = latents(pipeline, 1)
    FLUX.load_adapter(pipeline, file, "a")
    assert not torch.allclose(latents(pipeline, 1), before)
    pipeline.set_adapters(["a"], [0.0])
    assert torch.equal(latents(pipeline, 1), before)
    pipeline.delete_adapters("a")
    assert torch.equal(latents(pipeline, 1), before)
    FLUX.load_adapter(pipeline, file, "b")
    pipeline.unload_lora_weights()
    assert torch.equal(latents(pipeline, 1), before)
    assert not any("lora" in name for name, _ in pipeline.transformer.named_modules())


def test_a_checkpoint_is_what_diffusers_loads_by_itself() -> None:
    """The folder is a standard one: no code of MASUKA is needed to draw with it."""
    pipeline = FluxPipeline.from_pretrained(tiny_folder(), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        "a red robot", width=64, height=64, num_inference_steps=1, max_sequence_length=24, output_type="np"
    ).images
    assert drawn.shape == (1, 64, 64, 3)
