"""What LoRA files and layers rely on in peft and in diffusers' loaders, each with its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from masuka.families.lora.adapters import METADATA_KEY
from tests.tiny_flux import (
    FLUX,
    latents,
    random_lora,
    random_text_lora,
    randomised,
    tiny_folder,
    tiny_pipeline,
)


def delta(layers: dict[str, torch.Tensor], module: str, scale: float = 1.0) -> torch.Tensor:
    """What the LoRA adds to that module's weight."""
    a, b = layers[f"{module}.lora_A.weight"], layers[f"{module}.lora_B.weight"]
    return b @ a * scale


def loaded_delta(part: torch.nn.Module, module: str, name: str) -> torch.Tensor:
    """What a loaded adapter adds to that module's weight, with its scale."""
    return part.get_submodule(module).get_delta_weight(name)  # type: ignore[operator, no-any-return]


def test_the_regular_expression_leaves_the_output_layer_alone() -> None:
    """`lora_targets` is matched against whole names; endings would also catch `proj_out`."""
    names = {key.split(".lora_")[0] for key in random_lora()}
    assert "single_transformer_blocks.0.proj_out" in names
    assert "proj_out" not in names
    assert len(names) == 2 * 12 + 2 * 5
    attention = {key.split(".lora_")[0] for key in random_lora(layers="attention")}
    assert attention < names
    assert len(attention) == 2 * 8 + 2 * 3


@pytest.mark.parametrize("alpha", [None, 2, 16])
def test_a_saved_lora_changes_every_weight_as_it_did(tmp_path: Path, alpha: float | None) -> None:
    """Alpha is folded in; every reader then agrees, whatever metadata it knows."""
    layers, text_layers = random_lora(rank=8), random_text_lora(rank=8)
    file = tmp_path / "x.safetensors"
    FLUX.save_adapter(file, layers, {"modelspec.title": "x"}, alpha=alpha, text_layers=text_layers)
    pipeline = tiny_pipeline()
    report = FLUX.load_adapter(pipeline, file, "x")
    assert report.applied == report.total == (len(layers) + len(text_layers)) // 2
    scale = (alpha or 8) / 8
    for part, state in ((pipeline.transformer, layers), (pipeline.text_encoder, text_layers)):
        for module in {key.split(".lora_")[0] for key in state}:
            torch.testing.assert_close(loaded_delta(part, module, "x"), delta(state, module, scale))


def test_diffusers_alone_reads_the_same_weights(tmp_path: Path) -> None:
    """A stranger loads the file with `load_lora_weights` and gets what MASUKA gets."""
    file = tmp_path / "x.safetensors"
    FLUX.save_adapter(file, random_lora(rank=8), {}, alpha=16, text_layers=random_text_lora())
    ours, theirs = tiny_pipeline(), tiny_pipeline()
    FLUX.load_adapter(ours, file, "x")
    theirs.load_lora_weights(str(file), adapter_name="x")
    assert torch.equal(latents(ours, 1), latents(theirs, 1))


def test_the_header_states_alpha_and_carries_the_metadata(tmp_path: Path) -> None:
    """diffusers takes alpha from `lora_adapter_metadata`, ComfyUI and others take alpha = rank."""
    file = tmp_path / "x.safetensors"
    FLUX.save_adapter(file, random_lora(rank=8), {"modelspec.trigger_phrase": "mira7x"}, alpha=2)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        assert all(key.startswith("transformer.") for key in opened.keys())  # noqa: SIM118
    config = json.loads(metadata[METADATA_KEY])
    assert config["transformer.r"] == config["transformer.lora_alpha"] == 8
    assert LoraConfig(**{k.removeprefix("transformer."): v for k, v in config.items()}).r == 8
    assert metadata["modelspec.trigger_phrase"] == "mira7x"
    assert metadata["format"] == "pt"


def test_a_strangers_alpha_is_honoured(tmp_path: Path) -> None:
    """Files of diffusers' own scripts state alpha in the header, ai-toolkit's in tensors."""
    layers = random_lora(rank=8)
    tensors = {f"transformer.{key}": tensor for key, tensor in layers.items()}
    stated = json.dumps({"transformer.r": 8, "transformer.lora_alpha": 2})
    save_file(tensors, tmp_path / "header.safetensors", metadata={METADATA_KEY: stated})
    modules = {key.split(".lora_")[0] for key in layers}
    alphas = {f"transformer.{module}.alpha": torch.tensor(2.0) for module in modules}
    save_file(tensors | alphas, tmp_path / "tensors.safetensors")
    for name in ("header", "tensors"):
        pipeline = tiny_pipeline()
        report = FLUX.load_adapter(pipeline, tmp_path / f"{name}.safetensors", "x")
        assert report.applied == report.total == len(modules)
        for module in modules:
            got = loaded_delta(pipeline.transformer, module, "x")
            torch.testing.assert_close(got, delta(layers, module, 0.25))


def test_kohya_names_are_translated(tmp_path: Path) -> None:
    """Most FLUX LoRAs on the net carry BFL's layer names with fused query, key and value."""
    generator = torch.Generator().manual_seed(1)
    down, up = torch.randn(4, 32, generator=generator), torch.randn(96, 4, generator=generator)
    file = tmp_path / "kohya.safetensors"
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    alpha = torch.tensor(2.0)
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}, file)
    pipeline = tiny_pipeline()
    report = FLUX.load_adapter(pipeline, file, "x")
    assert report.applied == report.total == 3
    for side, rows in (("to_q", slice(0, 32)), ("to_k", slice(32, 64)), ("to_v", slice(64, 96))):
        got = loaded_delta(pipeline.transformer, f"transformer_blocks.0.attn.{side}", "x")
        torch.testing.assert_close(got, up[rows] @ down * 0.5)


def test_a_training_adapter_is_merged_and_left_out_when_drawing(tmp_path: Path) -> None:
    """schnell learns with it merged; samples and pictures are drawn without it."""
    file = tmp_path / "training.safetensors"
    FLUX.save_adapter(file, random_lora(), {})
    plain = tiny_pipeline()
    wanted = latents(plain, 1)
    merged = FLUX.denoiser(tiny_folder(), dtype=torch.float32, device="cpu", training_adapter=tmp_path)
    assert not any(p.requires_grad for p in merged.parameters())
    pipeline = FLUX.pipeline(tiny_folder(), dtype=torch.float32, device="cpu", transformer=merged)
    learnt = latents(pipeline, 1)
    assert not torch.allclose(learnt, wanted, atol=1e-3)
    with FLUX.drawing(merged):
        torch.testing.assert_close(latents(pipeline, 1), wanted, rtol=0, atol=1e-4)
    assert torch.equal(latents(pipeline, 1), learnt)

    config = LoraConfig(r=4, lora_alpha=4, target_modules=FLUX.lora_targets["attention"])
    with pytest.warns(UserWarning, match="multiple adapters"):  # ours beside the one that undoes
        merged.add_adapter(config, adapter_name="default")
    merged.enable_adapters()
    torch.testing.assert_close(latents(pipeline, 1), learnt)
    trained = [name for name, p in merged.named_parameters() if p.requires_grad]
    assert trained
    assert all(".default." in name for name in trained)
    with FLUX.drawing(merged):
        torch.testing.assert_close(latents(pipeline, 1), wanted, rtol=0, atol=1e-4)
    assert [name for name, p in merged.named_parameters() if p.requires_grad] == trained


def test_peft_names_the_layers_of_an_injected_adapter_without_a_prefix() -> None:
    """`adapters.save` puts `transformer.` in front of what peft gives."""
    pipeline = tiny_pipeline()
    config = LoraConfig(r=2, target_modules=FLUX.lora_targets["attention"])
    pipeline.transformer.add_adapter(config, adapter_name="default")
    names = get_peft_model_state_dict(pipeline.transformer, adapter_name="default")
    assert "transformer_blocks.0.attn.to_q.lora_A.weight" in names
    assert len(randomised(names)) == len(names)


def test_text_layers_have_the_name_that_others_know(tmp_path: Path) -> None:
    """transformers 5 calls them `encoder…`, files and older versions `text_model.encoder…`."""
    file = tmp_path / "x.safetensors"
    text_layers = random_text_lora()
    FLUX.save_adapter(file, {}, {}, text_layers=text_layers)
    assert all(key.startswith("text_encoder.text_model.encoder.layers.") for key in load_file(file))
    report = FLUX.load_adapter(tiny_pipeline(), file, "x")
    assert report.applied == report.total == len(text_layers) // 2


def test_a_16_bit_file_keeps_its_format(tmp_path: Path) -> None:
    """Shared files are 16 bit; folding alpha must not widen them."""
    layers = {key: tensor.to(torch.bfloat16) for key, tensor in random_lora().items()}
    FLUX.save_adapter(tmp_path / "x.safetensors", layers, {}, alpha=1)
    assert {t.dtype for t in load_file(tmp_path / "x.safetensors").values()} == {torch.bfloat16}
