"""What the Chroma family does about texts of different lengths, and why."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import ChromaTransformer2DModel
from torch import Tensor

from masuka.families.chroma import HD, Chroma
from tests.every_family import encoded, pipeline_of, tiny_folder

FAMILY = Chroma()
SHORT, LONG = "robot", "a red robot at night"
NOISY = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
LEVELS = torch.tensor([0.3, 0.8])


def test_the_size_is_that_of_the_published_configuration() -> None:
    """Memory is estimated from it; built on the meta device, nothing is allocated."""
    with torch.device("meta"):
        model = ChromaTransformer2DModel()
    assert HD.size is not None
    assert sum(p.numel() for p in model.parameters()) == HD.size.denoiser


def denoiser() -> Any:
    return FAMILY.denoiser(tiny_folder("chroma"), dtype=torch.float32, device="cpu")


def both_texts() -> dict[str, Tensor]:
    with torch.no_grad():
        return FAMILY.encode_text(FAMILY.text_encoder_of(pipeline_of("chroma")), [SHORT, LONG])


def test_a_text_is_seen_to_one_token_behind_its_end() -> None:
    """Chroma was taught with all padding hidden but one token."""
    text = both_texts()
    assert text["prompt_attention_mask"].sum(1).tolist() == [len(SHORT) + 3, len(LONG) + 3]
    hidden = text["prompt_attention_mask"] < 0.5
    assert text["prompt_embeds"][hidden].abs().max() == 0


def test_a_batch_of_two_lengths_is_what_each_is_alone() -> None:
    model, pipeline, text = denoiser(), pipeline_of("chroma"), both_texts()
    with torch.no_grad():
        together = FAMILY.predict(model, NOISY, LEVELS, text)
        for row, caption in enumerate((SHORT, LONG)):
            own = encoded(FAMILY, pipeline, caption)
            alone = FAMILY.predict(model, NOISY[row : row + 1], LEVELS[row : row + 1], own)
            torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-5)


def test_recomputed_activations_give_the_same_gradients() -> None:
    """diffusers forgets the mask in half of the blocks then; a text that is cut needs none."""
    gradients = []
    for recompute in (False, True):
        model = denoiser().train()
        if recompute:
            model.enable_gradient_checkpointing()
        weight = model.single_transformer_blocks[1].proj_mlp.weight.requires_grad_()
        FAMILY.predict(model, NOISY, LEVELS, both_texts()).square().mean().backward()
        gradients.append(weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_diffusers_own_mask_hides_nothing() -> None:
    """Why texts are cut: the pipeline's mask is added to the attention as 1 and 0.

    When this fails, the stock pipeline has learnt to hide padding, and both ways are one.
    """
    model, pipeline = denoiser(), pipeline_of("chroma")
    embeds, ids, mask, *_ = pipeline.encode_prompt(
        SHORT, max_sequence_length=24, do_classifier_free_guidance=False
    )
    seen = pipeline._prepare_attention_mask(1, 16, torch.float32, mask)
    assert seen.dtype == torch.float32

    def predicted(padded: Tensor) -> Tensor:
        from masuka.families.parts.patches import pack, position_ids

        found: Tensor = model(
            hidden_states=pack(NOISY[:1]), timestep=LEVELS[:1], encoder_hidden_states=padded,
            txt_ids=ids, img_ids=position_ids(24, 4, 4, torch.device("cpu"))[1], attention_mask=seen,
            return_dict=False,
        )[0]  # fmt: skip
        return found

    other = torch.where(mask[..., None] > 0.5, embeds, embeds + 1)
    with torch.no_grad():
        assert not torch.allclose(predicted(embeds), predicted(other), atol=1e-6)
