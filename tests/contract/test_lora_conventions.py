"""A LoRA under every name that a family's readers know adds the same to every weight.

Proven by what diffusers' own loader makes of each file, and by reading it back. The names
that ComfyUI reads are checked against its published rules, written out here for some layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from safetensors.torch import load_file
from torch import Tensor

from masuka.errors import InvalidInput
from masuka.families import FAMILIES
from masuka.families.lora import adapters, keys_tables
from masuka.families.lora.keys import CONVENTIONS, Names, stems
from masuka.families.lora.keys_files import canonical, layers_of, written
from masuka.families.lora.readers import read_by_none, readings
from tests.every_family import denoiser_in, pipeline_of, random_lora

OFFERED = [
    (name, convention)
    for name, family in FAMILIES.items()
    if any(entry.trainable for entry in family.entries) and not name.startswith("sdxl-")  # sdxl's own names
    for convention in keys_tables.names_of(name).offered
]
Deltas = dict[str, Tensor]


def of(names: Names, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{names.part}.{key}": tensor for key, tensor in layers.items()}


def deltas(tensors: Mapping[str, Tensor]) -> Deltas:
    return {
        layer: leaves["lora_B.weight"].flatten(1) @ leaves["lora_A.weight"].flatten(1)
        for layer, leaves in layers_of(tensors).items()
    }


def same(found: Deltas, wanted: Deltas) -> None:
    assert found.keys() == wanted.keys()
    for layer, change in wanted.items():
        torch.testing.assert_close(found[layer], change, rtol=0, atol=1e-4)


def of_a_model(names: Names, modules: Mapping[str, tuple[int, int]], *, shared: bool = False) -> dict[str, Tensor]:
    """Random canonical layers, of these inputs and outputs; `shared`: with one and the same lower half."""
    generator = torch.Generator().manual_seed(5)
    made: dict[str, Tensor] = {}
    for module, (inputs, outputs) in modules.items():
        down = torch.ones(3, inputs) if shared else torch.randn(3, inputs, generator=generator)
        made[f"{names.part}.{module}.lora_A.weight"] = down
        made[f"{names.part}.{module}.lora_B.weight"] = torch.randn(outputs, 3, generator=generator)
    return made


def modules(names: Names) -> Iterator[tuple[str, tuple[int, int]]]:
    """Every layer that the family's table has, in block 1, 12 wide; the fourth of four is 48 wide."""
    for rule in names.rules:
        for number, ours in enumerate(rule.ours):
            yield ours.replace("{}", "1"), (12, 48 if number == 3 else 12)


@pytest.mark.parametrize(("name", "convention"), OFFERED)
def test_a_file_of_each_convention_adds_the_same(name: str, convention: str, tmp_path: Path) -> None:
    family, names = FAMILIES[name], keys_tables.names_of(name)
    tensors = of(names, random_lora(name))
    file = tmp_path / "x.safetensors"
    adapters.write(file, tensors, {}, names=names, convention=convention)  # type: ignore[arg-type]
    read, unread, _ = adapters.read(file, names)
    assert not unread
    same(deltas(read), deltas(tensors))
    ours = pipeline_of(name)
    report = family.load_adapter(ours, file, "x")
    assert report.applied == report.total == len(layers_of(tensors))
    pipelines = [ours]
    reads = {reading.tool: reading for reading in readings(load_file(file), name)}
    assert reads["ComfyUI"].whole or (name in ("sdxl", "flux3") and convention == "diffusers")
    # Its converter of kohya's FLUX.1 knows one width only; see below.
    if reads["diffusers"].whole and (name, convention) != ("flux", "kohya"):
        theirs = pipeline_of(name)
        theirs.load_lora_weights(str(file), adapter_name="x")
        pipelines.append(theirs)
    for pipeline in pipelines:
        part = denoiser_in(family, pipeline)
        for layer, change in deltas(tensors).items():
            found = part.get_submodule(layer.removeprefix(f"{names.part}.")).get_delta_weight("x")  # type: ignore[operator]
            torch.testing.assert_close(found.flatten(1), change, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", list(keys_tables.BY_FAMILY))
@pytest.mark.parametrize("shared", [False, True])
def test_every_layer_of_a_family_comes_back_from_each_convention(name: str, shared: bool) -> None:
    """Fused layers are put together and cut apart exactly, whatever their parts share."""
    names = keys_tables.BY_FAMILY[name]
    tensors = of_a_model(names, dict(modules(names)) or {"layers.1.attention.to_q": (8, 8)}, shared=shared)
    for convention in names.offered:
        read, unread = canonical(written(tensors, names, convention), names, {})
        assert not unread
        same(deltas(read), deltas(tensors))


@pytest.mark.parametrize(
    ("name", "convention", "module", "written_as"),
    [
        ("sdxl", "kohya", "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_out.0",
         "lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_out_0"),
        ("sdxl", "kohya", "mid_block.attentions.0.proj_in", "lora_unet_middle_block_1_proj_in"),
        ("sdxl", "kohya", "up_blocks.0.attentions.2.transformer_blocks.9.ff.net.0.proj",
         "lora_unet_output_blocks_2_1_transformer_blocks_9_ff_net_0_proj"),
        ("sdxl", "kohya", "up_blocks.1.resnets.2.conv1", "lora_unet_output_blocks_5_0_in_layers_2"),
        ("sdxl", "kohya", "down_blocks.0.downsamplers.0.conv", "lora_unet_input_blocks_3_0_op"),
        ("flux", "kohya", "transformer_blocks.7.attn.to_k", "lora_unet_double_blocks_7_img_attn_qkv"),
        ("flux", "native", "single_transformer_blocks.37.proj_out", "diffusion_model.single_blocks.37.linear2"),
        ("flux2", "native", "transformer_blocks.3.attn.add_q_proj", "diffusion_model.double_blocks.3.txt_attn.qkv"),
        ("flux3", "native", "mode_blocks.image.4.ff.linear_in", "diffusion_model.content_mode_blocks.image.4.mlp_in"),
        ("flux3", "native", "single_transformer_blocks.9.attn.to_out.0", "diffusion_model.single_blocks.9.attn_out"),
        ("krea2", "native", "transformer_blocks.0.ff.down", "diffusion_model.blocks.0.mlp.down"),
        ("sd3", "native", "transformer_blocks.2.attn.add_k_proj", "diffusion_model.joint_blocks.2.context_block.attn.qkv"),
        ("zimage", "diffusers", "layers.5.attention.to_q", "transformer.layers.5.attention.to_q"),
    ],
)  # fmt: skip
def test_layers_are_named_as_the_publishers_models_name_them(
    name: str, convention: str, module: str, written_as: str
) -> None:
    names = keys_tables.BY_FAMILY[name]
    made = written(of_a_model(names, {module: (12, 12)}), names, convention)  # type: ignore[arg-type]
    assert list(stems(made)) == [written_as]


def test_diffusers_reads_kohyas_flux_at_its_true_width() -> None:
    """Its converter splits `linear1` at 3,072: the widths of FLUX.1 alone."""
    names, block = keys_tables.FLUX, "single_transformer_blocks.0"
    wide = {f"{block}.attn.to_{n}": (3072, 3072) for n in "qkv"} | {f"{block}.proj_mlp": (3072, 12288)}
    tensors = of_a_model(names, wide)
    converted = _convert_kohya_flux_lora_to_diffusers(dict(written(tensors, names, "kohya")))
    for layer, change in deltas(tensors).items():
        found = converted[f"{layer}.lora_B.weight"] @ converted[f"{layer}.lora_A.weight"]
        torch.testing.assert_close(found, change, rtol=0, atol=1e-3)


def test_what_is_not_trained_of_a_fused_layer_stays_as_it_is() -> None:
    names, block = keys_tables.FLUX, "single_transformer_blocks.0"
    tensors = of_a_model(names, {f"{block}.attn.to_k": (12, 12)})
    read, unread = canonical(written(tensors, names, "kohya"), names, {})
    assert not unread
    found = deltas(read)
    assert len(found) == 4
    torch.testing.assert_close(found[f"transformer.{block}.attn.to_k"], deltas(tensors)[f"transformer.{block}.attn.to_k"])
    others = [change for layer, change in found.items() if not layer.endswith("to_k")]
    assert all(float(change.abs().sum()) == 0 for change in others)


def test_text_encoders_have_the_names_that_each_tool_knows() -> None:
    layer = "text_model.encoder.layers.3.self_attn.q_proj"
    for part, kohya in (("text_encoder", "lora_te1_"), ("text_encoder_2", "lora_te2_")):
        tensors = {f"{part}.{layer}.lora_A.weight": torch.ones(2, 8), f"{part}.{layer}.lora_B.weight": torch.ones(8, 2)}
        made = written(tensors, keys_tables.SDXL, "kohya")
        assert list(stems(made)) == [kohya + layer.replace(".", "_")]
        read, unread = canonical(made, keys_tables.SDXL, {})
        assert not unread
        same(deltas(read), deltas(tensors))
    made = written({k.replace("_2.", "."): v for k, v in tensors.items()}, keys_tables.FLUX, "native")
    assert list(stems(made)) == [f"text_encoders.clip_l.transformer.{layer}"]


def test_other_tools_names_are_read() -> None:
    """Of trainers whose files people bring along; each with its own scale."""
    names, down, up = keys_tables.FLUX, torch.randn(4, 12), torch.randn(12, 4)
    wanted = up @ down * 0.5
    for stem, a, b in (
        ("lycoris_transformer_blocks_1_attn_to_q", "lora_down", "lora_up"),
        ("lora_transformer_transformer_blocks_1_attn_to_q", "lora_down", "lora_up"),
        ("base_model.model.transformer_blocks.1.attn.to_q", "lora_A", "lora_B"),
        ("transformer_blocks.1.attn.to_q", "lora_A", "lora_B"),
    ):
        tensors = {f"{stem}.{a}.weight": down, f"{stem}.{b}.weight": up, f"{stem}.alpha": torch.tensor(2.0)}
        read, unread = canonical(tensors, names, {})
        assert not unread
        assert list(layers_of(read)) == ["transformer.transformer_blocks.1.attn.to_q"]
        torch.testing.assert_close(deltas(read)["transformer.transformer_blocks.1.attn.to_q"], wanted)


def test_the_checker_says_who_reads_a_file_and_which_layers_nobody_does() -> None:
    names = keys_tables.FLUX
    tensors = of_a_model(names, {"transformer_blocks.0.attn.to_q": (12, 12), "single_transformer_blocks.0.proj_out": (12, 12)})
    kohya = {reading.tool: reading for reading in readings(written(tensors, names, "kohya"), "flux")}
    assert {tool for tool, reading in kohya.items() if reading.whole} == {"ComfyUI", "A1111 and Forge", "diffusers", "InvokeAI"}
    native = {reading.tool: reading.sentence for reading in readings(written(tensors, names, "native"), "flux")}
    assert native["ComfyUI"] == "ComfyUI reads it." and native["diffusers"] == "diffusers does not read it."
    # The damage of known trainers: a fused name with a wrong separator (musubi #905), a trailing _ (ComfyUI #4347).
    broken = {"diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight": 0, "transformer.x_.lora_A.weight": 0, "y": 0}
    found = readings([*broken, "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"], "flux")
    assert set(read_by_none(found)) == {
        "diffusion_model.double_blocks.0.img_attn_qkv", "transformer.x_", "y", "transformer.transformer_blocks.0.attn.to_q",
    }  # fmt: skip
    assert next(r for r in found if r.tool == "ComfyUI").sentence == "ComfyUI does not read it."


def test_a_layer_without_a_name_in_a_convention_is_said() -> None:
    tensors = of_a_model(keys_tables.SDXL, {"something.else": (4, 4)})
    with pytest.raises(InvalidInput, match="has no name in the kohya convention"):
        written(tensors, keys_tables.SDXL, "kohya")
    assert "kohya" in CONVENTIONS


def test_halves_that_do_not_belong_together_are_refused() -> None:
    stem = "transformer.transformer_blocks.0.attn.to_q"
    tensors = {f"{stem}.lora_A.weight": torch.ones(4, 12), f"{stem}.lora_B.weight": torch.ones(12, 3)}
    with pytest.raises(InvalidInput, match="do not belong together"):
        canonical(tensors, keys_tables.FLUX, {})
