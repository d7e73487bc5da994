"""LoRA files as data: headers of strangers, partial fits, whole files or none."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from masuka.errors import InvalidInput
from masuka.families.lora import adapters
from tests.tiny_flux import FLUX, latents, random_lora, tiny_pipeline


def with_header(file: Path, header: object, data: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file


def test_a_header_is_read_without_the_tensors(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, file, metadata={"k": "v"})
    assert adapters.read_header(file) == ({"a": (2, 3), "b": (4,)}, {"k": "v"})


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", struct.pack("<Q", 2**60), struct.pack("<Q", 4) + b"null", struct.pack("<Q", 2) + b"[]"],
)
def test_what_is_no_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="not a whole safetensors"):
        adapters.read_header(file)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(64)}, file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InvalidInput, match="not a whole safetensors"):
        adapters.read_header(file)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_header_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, header: object) -> None:
    file = with_header(tmp_path_factory.mktemp("lora") / "x.safetensors", header)
    try:
        shapes, metadata = adapters.read_header(file)
    except InvalidInput:
        return
    assert isinstance(shapes, dict)
    assert isinstance(metadata, dict)


def test_layers_that_do_not_fit_are_counted_and_left_out(tmp_path: Path) -> None:
    layers = random_lora(layers="attention")
    odd = "transformer_blocks.0.attn.to_q"
    layers[f"{odd}.lora_A.weight"] = torch.randn(4, 48)  # of a wider model
    layers["transformer_blocks.77.attn.to_q.lora_A.weight"] = torch.randn(4, 32)
    layers["transformer_blocks.77.attn.to_q.lora_B.weight"] = torch.randn(32, 4)
    file = tmp_path / "x.safetensors"
    FLUX.save_adapter(file, layers, {})
    pipeline = tiny_pipeline()
    report = FLUX.load_adapter(pipeline, file, "x")
    total = len(layers) // 2
    assert (report.applied, report.total) == (total - 2, total)
    assert not hasattr(pipeline.transformer.get_submodule(odd), "lora_A")


def test_a_lora_of_a_wider_flux_is_refused_before_anything_changes(tmp_path: Path) -> None:
    file = tmp_path / "wide.safetensors"
    stem = "transformer.transformer_blocks.0.attn.to_q"
    save_file({f"{stem}.lora_A.weight": torch.randn(4, 3072), f"{stem}.lora_B.weight": torch.randn(3072, 4)}, file)
    pipeline = tiny_pipeline()
    before = latents(pipeline, 1)
    with pytest.raises(InvalidInput, match=r"None of the 1 layers in wide\.safetensors"):
        FLUX.load_adapter(pipeline, file, "x")
    assert torch.equal(latents(pipeline, 1), before)
    assert not getattr(pipeline.transformer, "peft_config", {})


@pytest.mark.parametrize(
    "stated",
    ["[]", "[" * 5000, '{"transformer.lora_alpha": "much"}', '{"transformer.alpha_pattern": 3}', "nonsense"],
)
def test_hostile_metadata_changes_nothing(tmp_path: Path, stated: str) -> None:
    layers = {f"transformer.{key}": tensor for key, tensor in random_lora(layers="attention").items()}
    file = tmp_path / "x.safetensors"
    save_file(layers, file, metadata={adapters.METADATA_KEY: stated})
    assert FLUX.load_adapter(tiny_pipeline(), file, "x").applied == len(layers) // 2


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.safetensors"
    with pytest.raises(TypeError, match="str"):
        FLUX.save_adapter(file, random_lora(), {"steps": 3})  # type: ignore[dict-item]
    assert list(file.parent.iterdir()) == []
    FLUX.save_adapter(file, random_lora(), {})
    assert [f.name for f in file.parent.iterdir()] == ["x.safetensors"]
    assert all(key.startswith("transformer.") for key in load_file(file))


def test_ranks_that_differ_are_stated(tmp_path: Path) -> None:
    layers = random_lora(rank=4, layers="attention")
    name = "transformer_blocks.0.attn.to_q"
    layers[f"{name}.lora_A.weight"] = torch.randn(2, 32)
    layers[f"{name}.lora_B.weight"] = torch.randn(32, 2)
    file = tmp_path / "x.safetensors"
    FLUX.save_adapter(file, layers, {})
    _, metadata = adapters.read_header(file)
    stated = json.loads(metadata[adapters.METADATA_KEY])
    assert stated["transformer.r"] == 4
    assert stated["transformer.rank_pattern"] == stated["transformer.alpha_pattern"] == {name: 2}
    pipeline = tiny_pipeline()
    pipeline.load_lora_weights(str(file), adapter_name="x")
    got = pipeline.transformer.get_submodule(name).get_delta_weight("x")
    torch.testing.assert_close(got, layers[f"{name}.lora_B.weight"] @ layers[f"{name}.lora_A.weight"])
