"""What reading and writing weights relies on in safetensors and transformers, each with its reason."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from transformers import CLIPTokenizer, T5EncoderModel, T5TokenizerFast

from tests.tiny_flux import tiny_folder

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4, dtype=torch.bfloat16)}


@pytest.mark.parametrize("left", [0, 4, 30, -1])
def test_a_damaged_file_is_told_by_one_error(tmp_path: Path, left: int) -> None:
    """A cache that is damaged counts as missing, a checkpoint as damaged: `except SafetensorError`."""
    file = tmp_path / "x.safetensors"
    save_file(TENSORS, file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(SafetensorError):
        load_file(file)


def test_a_missing_file_is_another_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_file(tmp_path / "x.safetensors")


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    """LoRA sites know a file by a hash of its bytes, whatever the order in which it was filled."""
    one, other = save(TENSORS, {"k": "v"}), save(dict(reversed(TENSORS.items())), {"k": "v"})
    assert hashlib.sha256(one).digest() == hashlib.sha256(other).digest()
    start = 8 + int.from_bytes(one[:8], "little")
    assert len(one) - start == sum(t.numel() * t.element_size() for t in TENSORS.values())


def test_metadata_are_texts_and_come_back(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file(TENSORS, file, {"modelspec.title": "Mira 1"})
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"modelspec.title": "Mira 1"}
        assert set(opened.keys()) == set(TENSORS)


def test_an_encoder_is_loaded_in_the_format_that_is_asked_for() -> None:
    """`dtype=` decides, not what the file holds: T5 is read in bf16 beside a denoiser in fp16."""
    folder = tiny_folder() / "text_encoder_2"
    load = {"local_files_only": True, "use_safetensors": True}
    for dtype in (torch.float32, torch.bfloat16):
        model = T5EncoderModel.from_pretrained(folder, dtype=dtype, **load)
        assert {p.dtype for p in model.parameters()} == {dtype}


def test_nothing_is_fetched_for_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        T5EncoderModel.from_pretrained(tmp_path / "no", local_files_only=True, use_safetensors=True)


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    """A pickle can run code; `use_safetensors=True` takes none, even where nothing else lies."""
    model = T5EncoderModel.from_pretrained(tiny_folder() / "text_encoder_2", local_files_only=True)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError):
        T5EncoderModel.from_pretrained(tmp_path, local_files_only=True, use_safetensors=True)


def test_tokenizers_keep_their_longest_text() -> None:
    """How many text tokens a base takes is read there."""
    clip = CLIPTokenizer.from_pretrained(tiny_folder() / "tokenizer", local_files_only=True)
    t5 = T5TokenizerFast.from_pretrained(tiny_folder() / "tokenizer_2", local_files_only=True)
    assert (clip.model_max_length, t5.model_max_length) == (32, 24)
    ids = t5(["a", "a much longer text than that"], padding="max_length", max_length=24, truncation=True)
    assert {len(row) for row in ids.input_ids} == {24}
