"""The tools for LoRA files: each proven by what the result adds to every weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from masuka.errors import InvalidInput, NotFound
from masuka.families.lora import adapters
from masuka.families.lora.keys import DOWN, MAGNITUDE, UP
from masuka.families.lora.keys_files import layers_of
from masuka.families.lora.keys_tables import FLUX as NAMES
from masuka.jobs.reporter import EventFile
from masuka.models import adapter_files
from masuka.training import baking, factors, tools
from tests.tiny_flux import FLUX, random_lora, random_text_lora, tiny_folder, tiny_pipeline

BASE = {"id": "flux1-dev", "title": "FLUX.1 [dev]"}


def a_lora(root: Path, name: str = "a", seed: int = 0, rank: int = 4, **metadata: str) -> Path:
    """A LoRA of every layer of the tiny model, whose numbers depend on the seed."""
    generator = torch.Generator().manual_seed(seed)
    layers = {k: t + 0.1 * torch.randn(t.shape, generator=generator) for k, t in random_lora(rank=rank).items()}
    file = root / f"{name}.safetensors"
    text = random_text_lora(rank=rank) if seed == 0 else None
    FLUX.save_adapter(file, layers, {"modelspec.title": name, **metadata}, text_layers=text)
    return file


def used(tool: str, root: Path, **params: Any) -> dict[str, Any]:
    reporter = EventFile(root / "events.jsonl", root / "scratch", lambda: None)
    given = {
        "tool": tool, "family": "flux", "base": BASE, "name": "made", "output": str(root / "out" / "made"),
        "trigger_word": "mira7x", "class_word": "robot", "request": {"made_by": tool}, **params,
    }  # fmt: skip
    try:
        return tools.run(given, reporter)
    finally:
        reporter.close()


def deltas(file: Path | str) -> dict[str, Tensor]:
    tensors, unread, _ = adapters.read(Path(file), NAMES)
    assert not unread
    return {layer: factors.delta(leaves) for layer, leaves in layers_of(tensors).items()}


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor], atol: float = 1e-3) -> None:
    assert found.keys() == wanted.keys()
    for layer, change in wanted.items():
        torch.testing.assert_close(found[layer], change, rtol=0, atol=atol)


@pytest.mark.parametrize("convention", ["kohya", "native"])
def test_a_converted_file_adds_the_same_and_goes_back(convention: str, tmp_path: Path) -> None:
    file = a_lora(tmp_path)
    there = tmp_path / f"a {convention}.safetensors"
    result = used("convert", tmp_path, file=str(file), to=str(there), convention=convention, dtype="fp32")
    assert_same(deltas(there), deltas(file))
    assert result["readers"]["ComfyUI"] == "ComfyUI reads it."
    back = tmp_path / "back.safetensors"
    used("convert", tmp_path, file=str(there), to=str(back), convention="diffusers", dtype="fp32")
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(str(back), adapter_name="x")
    for layer, change in deltas(file).items():
        part, _, module = layer.partition(".")
        inside = module.removeprefix("text_model.") if part == "text_encoder" else module
        torch.testing.assert_close(getattr(pipeline, part).get_submodule(inside).get_delta_weight("x"), change, rtol=0, atol=1e-3)


def test_a_converted_file_keeps_its_metadata_and_says_its_own_hash(tmp_path: Path) -> None:
    file = a_lora(tmp_path, **{"modelspec.trigger_phrase": "mira7x robot"})
    to = tmp_path / "k.safetensors"
    used("convert", tmp_path, file=str(file), to=str(to), convention="kohya", dtype="bf16")
    _, metadata = adapters.read_header(to)
    assert metadata["modelspec.trigger_phrase"] == "mira7x robot"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "4"
    assert len(metadata["sshs_model_hash"]) == 64 and "lora_adapter_metadata" not in metadata
    assert {t.dtype for t in load_file(to).values()} == {torch.bfloat16}


def test_a_merged_file_adds_the_weighted_sum(tmp_path: Path) -> None:
    files = [a_lora(tmp_path, "a", 0), a_lora(tmp_path, "b", 1)]
    result = used(
        "merge", tmp_path, files=[str(f) for f in files], weights=[0.5, -2.0], names=["a", "b"],
        triggers=["mira7x", "nova9"], rank=0,
    )  # fmt: skip
    first, second = map(deltas, files)
    wanted = {layer: 0.5 * change + (-2.0 * second[layer] if layer in second else 0) for layer, change in first.items()}
    assert_same(deltas(result["file"]), wanted)
    assert result["kept"] == 1.0 and result["ranks"] == [4, 8]  # the text encoder's layers are in one of them
    about = json.loads(Path(result["file"]).with_name("masuka.json").read_text())
    assert about["readers"]["diffusers"] == "diffusers reads it."
    _, metadata = adapters.read_header(Path(result["file"]))
    assert metadata["modelspec.merged_from"] == "a, b"
    assert metadata["modelspec.trigger_phrase"] == "mira7x, nova9"
    event = [e for e in map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines()) if e["type"] == "artefact"]
    assert event[-1]["kind"] == "adapter" and event[-1]["about"]["sha256"] == result["sha256"]


def test_a_merge_of_other_widths_is_refused(tmp_path: Path) -> None:
    file, wide = a_lora(tmp_path, seed=1), tmp_path / "wide.safetensors"
    stem = "transformer.transformer_blocks.0.attn.to_q"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 48), f"{stem}.lora_B.weight": torch.ones(48, 2)}, wide)
    with pytest.raises(InvalidInput, match="different widths"):
        used("merge", tmp_path, files=[str(file), str(wide)], weights=[1, 1], names=["a", "b"], triggers=[], rank=0)
    assert not (tmp_path / "out" / "made").exists()


def test_a_resized_file_is_the_nearest_of_its_rank(tmp_path: Path) -> None:
    file = a_lora(tmp_path)
    result = used("resize", tmp_path, file=str(file), rank=2)
    found, wanted = deltas(result["file"]), deltas(file)
    lost = total = 0.0
    for layer, change in wanted.items():
        u, s, v = torch.linalg.svd(change)
        torch.testing.assert_close(found[layer], u[:, :2] @ torch.diag(s[:2]) @ v[:2], rtol=0, atol=1e-3)
        lost, total = lost + float(s[2:].square().sum()), total + float(s.square().sum())
    assert result["kept"] == pytest.approx(1 - lost / total, abs=1e-5)
    assert result["ranks"] == [2]
    whole = used("resize", tmp_path, file=str(file), rank=64, output=str(tmp_path / "out" / "whole"))
    assert whole["kept"] == pytest.approx(1.0) and whole["ranks"] == [4]
    assert_same(deltas(whole["file"]), wanted)


def tuned_copy(root: Path, changes: dict[str, Tensor]) -> Path:
    """The tiny base with changed layers, saved as a diffusers folder."""
    model = FluxTransformer2DModel.from_pretrained(tiny_folder() / "transformer")
    with torch.no_grad():
        for layer, change in changes.items():
            model.get_submodule(layer).weight.add_(change)
    model.save_pretrained(root / "tuned" / "transformer")
    return root / "tuned"


def test_an_extracted_file_is_the_difference_of_two_bases(tmp_path: Path) -> None:
    changes = {
        "transformer_blocks.0.attn.to_q": torch.outer(torch.arange(32.0), torch.ones(32)) / 100,
        "single_transformer_blocks.1.proj_out": torch.outer(torch.ones(32), torch.arange(160.0)) / 1000,
    }
    tuned = tuned_copy(tmp_path, changes)
    params = {
        "folder": str(tiny_folder()), "tuned_folder": str(tuned), "rank": 1, "tuned_title": "Tuned",
        "kohya_version": "flux1", "architecture": "flux-1-dev",
    }  # fmt: skip
    result = used("extract", tmp_path, **params)
    assert result["kept"] == pytest.approx(1.0, abs=1e-4) and result["ranks"] == [1]
    assert_same(deltas(result["file"]), {f"transformer.{layer}": change for layer, change in changes.items()}, atol=5e-3)
    with pytest.raises(InvalidInput, match="Both bases are the same"):
        used("extract", tmp_path, **{**params, "tuned_folder": str(tiny_folder())})


@pytest.mark.parametrize("weight", [1.0, -0.5])
def test_a_baked_base_draws_what_the_lora_draws(weight: float, tmp_path: Path) -> None:
    file, place = a_lora(tmp_path), tmp_path / "models" / "flux1-dev+mine"
    params = {
        "place": str(place), "source": str(tiny_folder()), "file": str(file), "family": "flux", "weight": weight,
        "said": "tiny with a",
    }  # fmt: skip
    reporter = EventFile(tmp_path / "e.jsonl", tmp_path / "s", lambda: None)
    result = baking.run(params, reporter)
    assert result["layers"] == len(deltas(file))
    baked = FLUX.pipeline(place, dtype=torch.float32, device="cpu")
    pipeline = tiny_pipeline()
    FLUX.load_adapter(pipeline, file, "x")
    pipeline.fuse_lora(components=["transformer", "text_encoder"], lora_scale=weight)
    pipeline.unload_lora_weights()
    for part in ("transformer", "text_encoder"):
        wanted = getattr(pipeline, part).state_dict()
        found = getattr(baked, part).state_dict()
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-4)
    assert baking.run(params, reporter)["layers"] == 0  # it was whole
    reporter.close()


def test_a_lora_of_another_base_is_not_baked(tmp_path: Path) -> None:
    stem, file = "transformer.transformer_blocks.77.attn.to_q", tmp_path / "x.safetensors"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 32), f"{stem}.lora_B.weight": torch.ones(32, 2)}, file)
    reporter = EventFile(tmp_path / "e.jsonl", tmp_path / "s", lambda: None)
    with pytest.raises(InvalidInput, match="1 of 1 layers of the LoRA have no place"):
        baking.bake(tiny_folder(), file, "flux", 1.0, tmp_path / "made", reporter)
    reporter.close()


def a_dora(root: Path) -> tuple[Path, dict[str, Tensor]]:
    """A DoRA of two layers, and what it adds to them."""
    transformer = tiny_pipeline().transformer
    tensors: dict[str, Tensor] = {}
    wanted = {}
    for module in ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_out"):
        weight = transformer.get_submodule(module).weight.detach()
        leaves = {
            DOWN: torch.randn(2, weight.shape[1]) * 0.1, UP: torch.randn(weight.shape[0], 2) * 0.1,
            MAGNITUDE: weight.norm(dim=1) * 1.1,
        }  # fmt: skip
        tensors |= {f"transformer.{module}.{leaf}": tensor for leaf, tensor in leaves.items()}
        wanted[f"transformer.{module}"] = factors.delta(leaves, weight)
    adapters.write(root / "dora.safetensors", tensors, {}, names=NAMES)
    return root / "dora.safetensors", wanted


def test_a_dora_becomes_a_plain_lora_that_says_what_it_lost(tmp_path: Path) -> None:
    file, wanted = a_dora(tmp_path)
    to = tmp_path / "plain.safetensors"
    result = used(
        "convert", tmp_path, file=str(file), to=str(to), convention="diffusers", plain=True, dtype="fp32",
        folder=str(tiny_folder()),
    )  # fmt: skip
    found = deltas(to)
    lost = sum(float((found[layer] - change).square().sum()) for layer, change in wanted.items())
    total = sum(float(change.square().sum()) for change in wanted.values())
    assert result["kept"] == pytest.approx(1 - lost / total, abs=1e-3)
    assert 0.3 < result["kept"] < 1
    assert not any("dora" in name for name in load_file(to))
    with pytest.raises(InvalidInput, match="DoRA cannot be added"):
        used("merge", tmp_path, files=[str(file), str(file)], weights=[1, 1], names=["a", "b"], triggers=[], rank=0)


def test_a_lokr_of_any_shape_is_the_same_as_a_plain_lora() -> None:
    generator = torch.Generator().manual_seed(2)
    for layer in (
        {"lokr_w1": torch.randn(4, 4, generator=generator), "lokr_w2": torch.randn(6, 5, generator=generator)},
        {"lokr_w1": torch.randn(2, 4, generator=generator), "lokr_w2_a": torch.randn(6, 2, generator=generator),
         "lokr_w2_b": torch.randn(2, 5, generator=generator)},
        {"lokr_w1": torch.zeros(4, 4), "lokr_w2": torch.randn(6, 5, generator=generator)},
    ):  # fmt: skip
        made, kept = factors.plain(layer)
        torch.testing.assert_close(made[UP] @ made[DOWN], factors.delta(layer), rtol=0, atol=1e-4)
        assert kept == pytest.approx(1.0)
        assert factors.norm(layer) == pytest.approx(float(factors.delta(layer).norm()), rel=1e-4, abs=1e-6)


@given(st.integers(1, 6), st.integers(2, 9), st.integers(2, 9), st.integers(1, 6))
def test_a_smaller_rank_never_keeps_more(rank: int, inputs: int, outputs: int, smaller: int) -> None:
    generator = torch.Generator().manual_seed(rank * 100 + inputs)
    layer = {DOWN: torch.randn(rank, inputs, generator=generator), UP: torch.randn(outputs, rank, generator=generator)}
    small, kept = factors.reduced(layer, smaller)
    error = float((small[UP] @ small[DOWN] - factors.delta(layer)).square().sum())
    size = float(factors.delta(layer).square().sum())
    assert kept == pytest.approx(1 - error / size, abs=1e-3)
    assert 0 <= kept <= 1 + 1e-6


def test_a_file_from_elsewhere_is_known_by_its_layers(tmp_path: Path) -> None:
    file = a_lora(tmp_path, **{"modelspec.trigger_phrase": "mira7x robot", "modelspec.architecture": "flux-1-dev/lora"})
    kohya = tmp_path / "k.safetensors"
    used("convert", tmp_path, file=str(file), to=str(kohya), convention="kohya", dtype="bf16")
    for one in (file, kohya):
        found = adapter_files.inspect(one, measure=True)
        assert (found.family, found.base, found.kind, found.trigger) == ("flux", "flux1-dev", "lora", "mira7x robot")
        assert not found.unread
        wanted = deltas(one)
        block = sum(float(c.square().sum()) for layer, c in wanted.items() if ".transformer_blocks.0." in layer) ** 0.5
        assert found.norms["transformer_blocks.0"] == pytest.approx(block, rel=2e-2)
        assert {"single_transformer_blocks.1", "text_encoder"} <= set(found.norms)
        fitting, layers = adapter_files.fits(one, "flux", tiny_folder())
        assert fitting == layers > 0
    assert found.ranks == (4, 12, 16)  # query, key, value and mlp of one layer stand side by side


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("transformer.layers.3.attention.to_q", "zimage"),
        ("transformer.transformer_blocks.3.img_mlp.net.2", "qwen_image"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q", "sdxl"),
        ("diffusion_model.joint_blocks.2.x_block.attn.qkv", "sd3"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "flux"),
    ],
)
def test_families_are_told_apart_by_names(name: str, family: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({f"{name}.lora_down.weight": torch.ones(2, 64), f"{name}.lora_up.weight": torch.ones(192, 2)}, file)
    assert adapter_files.inspect(file).family == family


@pytest.mark.parametrize("tensors", [{"model.weight": torch.ones(2, 2)}, {"a.lora_A.weight": torch.ones(2, 2)}])
def test_what_is_no_lora_is_refused(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(InvalidInput, match="no LoRA of a family"):
        adapter_files.inspect(tmp_path / "x.safetensors")


def test_what_is_not_understood_is_not_left_out(tmp_path: Path) -> None:
    file = a_lora(tmp_path, seed=1)
    save_file({**load_file(file), "transformer.transformer_blocks.0.attn.to_q.hada_w1_a": torch.ones(2)}, tmp_path / "x.safetensors")
    for bad, error in (("x.safetensors", InvalidInput), ("gone.safetensors", NotFound)):
        with pytest.raises(error):
            used("resize", tmp_path, file=str(tmp_path / bad), rank=2)
    (tmp_path / "y.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        used("convert", tmp_path, file=str(tmp_path / "y.safetensors"), to=str(tmp_path / "z"), convention="kohya", dtype="bf16")
