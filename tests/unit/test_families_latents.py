"""How families lay out what the VAE gives: nothing is lost on the way there and back."""

from __future__ import annotations

import pytest
import torch
from diffusers import Flux2KleinPipeline

from masuka.families.flux2 import tiny_flux2_autoencoder
from masuka.families.parts import flux2_vae, qwen_vae, tiny, tiny_qwen, vae


def test_patches_are_channels_as_flux2s_pipeline_has_them() -> None:
    latents = torch.randn(2, 4, 6, 8)
    assert torch.equal(flux2_vae.unfold(flux2_vae.fold(latents)), latents)
    assert torch.equal(Flux2KleinPipeline._unpatchify_latents(flux2_vae.fold(latents)), latents)
    folded = flux2_vae.fold(latents)
    tokens = flux2_vae.sequence(folded)
    assert torch.equal(tokens, Flux2KleinPipeline._pack_latents(folded))
    assert torch.equal(flux2_vae.grid(tokens, 3, 4), folded)


def test_what_is_cached_of_flux2_is_normalised_and_leads_back() -> None:
    """The statistics are buffers, which no configuration holds: they are in the cache already."""
    with tiny.seeded(1):
        autoencoder = tiny_flux2_autoencoder()
        pixels = torch.rand(2, 3, 64, 48) * 2 - 1
    with torch.no_grad():
        found = flux2_vae.posterior(autoencoder, pixels)
        plain = autoencoder.encode(pixels).latent_dist
    assert found["mean"].shape == found["std"].shape == (2, 16, 4, 3)
    torch.testing.assert_close(flux2_vae.restored(autoencoder, found["mean"]), plain.mean)
    scale = (autoencoder.bn.running_var + autoencoder.config.batch_norm_eps).sqrt().view(1, -1, 1, 1)
    torch.testing.assert_close(flux2_vae.unfold(found["std"] * scale), plain.std)
    assert not torch.allclose(flux2_vae.unfold(found["mean"]), plain.mean, atol=0.05)


def test_a_videos_autoencoder_gives_pictures_by_channel() -> None:
    """Qwen-Image's VAE takes frames; cached is a picture, scaled by each channel's own figures."""
    with tiny.seeded(1):
        autoencoder = tiny_qwen.autoencoder()
        pixels = torch.rand(2, 3, 64, 48) * 2 - 1
    with torch.no_grad():
        found = vae.posterior(autoencoder, pixels)
        plain = autoencoder.encode(pixels[:, :, None]).latent_dist
    assert found["mean"].shape == found["std"].shape == (2, 4, 8, 6)
    assert torch.equal(found["mean"], plain.mean[:, :, 0])
    exact = {"mean": found["mean"], "std": torch.zeros_like(found["std"])}
    scaled = qwen_vae.drawn(autoencoder.config, exact, torch.Generator())
    mean, std = autoencoder.config.latents_mean[3], autoencoder.config.latents_std[3]
    torch.testing.assert_close(scaled[:, 3], (found["mean"][:, 3] - mean) / std)
    torch.testing.assert_close(qwen_vae.restored(autoencoder.config, scaled), found["mean"])


@pytest.mark.parametrize(("tokens", "shift"), [(256, 1.6487), (4096, 3.1582)])
def test_larger_pictures_are_learnt_noisier(tokens: int, shift: float) -> None:
    """The shift of FLUX's own schedule: 3.1582 is what trainers state for 1,024 pixels."""
    from masuka.families.parts.rectified import shift_of

    assert shift_of(tokens) == pytest.approx(shift, abs=1e-4)
