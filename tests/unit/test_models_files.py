"""Which files of a repository are a base, and which are left where they are."""

from __future__ import annotations

import pytest

from masuka.models.fetch import RemoteFile
from masuka.models.files import autoencoder_files, has_weights, is_pickled, pipeline_files

PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
PLAIN = "unet/diffusion_pytorch_model.safetensors"



def repository(names: dict[str, int]) -> list[RemoteFile]:
    return [RemoteFile(name, size, "s" * 64, "g") for name, size in names.items()]


SDXL = {
    "model_index.json": 1, "README.md": 1, "LICENSE.md": 1, "sd_xl_base.safetensors": 700, "01.png": 5, "handler.py": 3,
    "unet/config.json": 1, PLAIN: 1000, "unet/diffusion_pytorch_model.fp16.safetensors": 500,
    "unet/model.onnx": 9, "unet/openvino_model.bin": 9, "unet/flax_model.msgpack": 9,
    "vae/config.json": 1, "vae/diffusion_pytorch_model.safetensors": 80, "vae/diffusion_pytorch_model.fp16.safetensors": 40,
    "vae_decoder/model.onnx": 9, "vae_1_0/config.json": 1,
    "text_encoder/config.json": 1, "text_encoder/model.fp16.safetensors": 20, "text_encoder/pytorch_model.bin": 40,
    "tokenizer/merges.txt": 1, "tokenizer/vocab.json": 1, "tokenizer/chat_template.jinja": 1, "tokenizer/custom.py": 1,
    "scheduler/scheduler_config.json": 1,
}  # fmt: skip


def test_a_base_is_its_index_and_its_parts_in_one_precision() -> None:
    found = pipeline_files(repository(SDXL), PARTS)
    places = {file.place: file.path for file in found}
    assert places == {
        "model_index.json": "model_index.json", "README.md": "README.md", "LICENSE.md": "LICENSE.md",
        "unet/config.json": "unet/config.json", PLAIN: "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json": "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/config.json": "text_encoder/config.json",
        "text_encoder/model.safetensors": "text_encoder/model.fp16.safetensors",
        "tokenizer/merges.txt": "tokenizer/merges.txt", "tokenizer/vocab.json": "tokenizer/vocab.json",
        "tokenizer/chat_template.jinja": "tokenizer/chat_template.jinja",
        "scheduler/scheduler_config.json": "scheduler/scheduler_config.json",
    }  # fmt: skip
    assert all(has_weights(found, part) for part in ("unet", "vae", "text_encoder"))
    assert not has_weights(pipeline_files(repository(SDXL), PARTS, without=["vae"]), "vae")


def test_shards_of_half_precision_are_found_by_their_index() -> None:
    start = "text_encoder/model"
    files = {
        f"{start}-00001-of-00002.safetensors": 500, f"{start}-00002-of-00002.safetensors": 500,
        f"{start}.safetensors.index.json": 1, f"{start}.fp16-00001-of-00002.safetensors": 250,
        f"{start}.fp16-00002-of-00002.safetensors": 250, f"{start}.safetensors.index.fp16.json": 1,
    }  # fmt: skip
    places = {file.place: file.path for file in pipeline_files(repository(files), ["text_encoder"])}
    assert places == {
        f"{start}.safetensors.index.json": f"{start}.safetensors.index.fp16.json",
        f"{start}.fp16-00001-of-00002.safetensors": f"{start}.fp16-00001-of-00002.safetensors",
        f"{start}.fp16-00002-of-00002.safetensors": f"{start}.fp16-00002-of-00002.safetensors",
    }  # fmt: skip
    del files[f"{start}.safetensors.index.fp16.json"]
    # Shards without an index are half a variant.
    assert {f.path for f in pipeline_files(repository(files), ["text_encoder"])} == {n for n in files if "fp16" not in n}


def test_a_variant_that_saves_nothing_is_left() -> None:
    files = {PLAIN: 500, "unet/diffusion_pytorch_model.fp16.safetensors": 500}
    assert [f.path for f in pipeline_files(repository(files), ["unet"])] == [PLAIN]


def test_a_vae_of_its_own_repository_is_put_where_a_base_has_its_own() -> None:
    files = {"config.json": 1, "diffusion_pytorch_model.safetensors": 9, "sdxl_vae.safetensors": 9, "x.bin": 9, "README.md": 1}
    assert {f.place for f in autoencoder_files(repository(files))} == {"vae/config.json", "vae/diffusion_pytorch_model.safetensors"}


@pytest.mark.parametrize(("name", "is_one"), [("a/b.bin", True), ("x.CKPT", True), ("x.pt", True), ("x.safetensors", False), ("x.json", False)])
def test_pickles_are_known_by_their_names(name: str, is_one: bool) -> None:
    assert is_pickled(name) is is_one
