"""Texts of different lengths in one batch, and training adapters in other tools' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from masuka.families import FAMILIES
from masuka.families.lora.adapters import METADATA_KEY, read_header
from tests.every_family import denoiser_in, pipeline_of, random_lora, tiny_folder

MASKED = [name for name in ("zimage", "qwen_image", "krea2", "flux3") if name in FAMILIES]


@pytest.mark.parametrize("name", MASKED)
def test_padding_of_a_text_changes_no_prediction(name: str) -> None:
    """A batch holds short captions beside long ones, padded with zeros as the cache does."""
    family, pipeline = FAMILIES[name], pipeline_of(name)
    encoder, model = family.text_encoder_of(pipeline), denoiser_in(FAMILIES[name], pipeline)
    channels = 16 if name == "flux3" else 4
    noisy = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(1))
    levels = torch.tensor([0.3, 0.8])
    texts = ["a red robot on a long, long beach at night with a crown, in the rain, under a lamp", "robot"]
    with torch.no_grad():
        batch = family.encode_text(encoder, texts)
        further = {
            key: torch.cat([rows, rows.new_zeros(2, 40, *rows.shape[2:])], dim=1)
            for key, rows in batch.items()
        }
        together = family.predict(model, noisy, levels, further)
        alone = [
            family.predict(model, noisy[n : n + 1], levels[n : n + 1], family.encode_text(encoder, [texts[n]]))
            for n in range(2)
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_a_file_says_which_ranks_its_fused_layers_have(tmp_path: Path) -> None:
    """FLUX.2's q, k and v are one layer in the file, with three times the rank; diffusers
    before 0.42 draws such a file at a third of its strength unless it is told."""
    file = tmp_path / "x.safetensors"
    FAMILIES["flux2"].save_adapter(file, random_lora("flux2"), {})
    shapes, metadata = read_header(file)
    assert shapes["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"][0] == 12
    stated = json.loads(metadata[METADATA_KEY])
    ranks = {**dict.fromkeys(stated["transformer.target_modules"], stated["transformer.r"])}
    ranks |= stated["transformer.rank_pattern"]
    assert ranks["transformer_blocks.0.attn.to_q"] == 12
    assert ranks["transformer_blocks.0.attn.to_out.0"] == 4
    assert stated["transformer.alpha_pattern"] == stated["transformer.rank_pattern"]


@pytest.mark.parametrize("number", ["v1", "v2"])
def test_the_newest_training_adapter_is_merged_whatever_its_names(tmp_path: Path, number: str) -> None:
    """Z-Image Turbo's lies in ComfyUI's names, its versions side by side in one repository."""
    family, layers = FAMILIES["zimage"], random_lora("zimage")
    other = "layers.0.attention.to_q"
    for version in ("v1", "v2"):
        scale = 1.0 if version == number else 0.0
        tensors = {f"diffusion_model.{key}": tensor * scale for key, tensor in layers.items()}
        save_file(tensors, tmp_path / f"adapter_{version}.safetensors", metadata={METADATA_KEY: "{}"})
    folder = tiny_folder("zimage")
    options = {"dtype": torch.float32, "device": "cpu"}
    plain = family.denoiser(folder, **options).get_submodule(other).weight  # type: ignore[arg-type]
    model = family.denoiser(folder, **options, training_adapter=tmp_path)  # type: ignore[arg-type]
    merged = model.get_submodule(f"{other}.base_layer").weight
    change = layers[f"{other}.lora_B.weight"] @ layers[f"{other}.lora_A.weight"]
    expected = plain + change if number == "v2" else plain
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-5)
    text = {"prompt_embeds": torch.randn(1, 8, 16), "prompt_embeds_mask": torch.ones(1, 8)}
    noisy, level = torch.randn(1, 4, 8, 8), torch.tensor([0.5])
    base = family.denoiser(folder, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        learning = family.predict(model, noisy, level, text)
        with family.drawing(model):
            drawing = family.predict(model, noisy, level, text)
        wanted = family.predict(base, noisy, level, text)
    torch.testing.assert_close(drawing, wanted, rtol=0, atol=1e-4)
    assert torch.allclose(learning, wanted, atol=1e-4) is (number == "v1")
