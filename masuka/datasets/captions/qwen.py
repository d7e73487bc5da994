"""Qwen3-VL: a vision language model that follows an instruction.

Its stock processor cannot be made without torchvision (transformers 5.23 builds the part for
videos first); picture part and words are the stock ones, put together here for single pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from masuka.datasets.captions.asking import instruction
from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import Generator, device_and_dtype, model_of

PATCH_TOKENS = 768
"""At most so many tokens a picture: 0.8 megapixels, enough to describe it."""
_PLACE = "<|image_pad|>"


def load(folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]) -> Generator:
    """The loaded captioner; raises NotFound without its files."""
    device, dtype = device_and_dtype(device)
    model = model_of(Qwen3VLForConditionalGeneration, folder, device, dtype)
    assert folder is not None
    eyes = Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    cell = eyes.patch_size * eyes.merge_size
    place = words.convert_tokens_to_ids(_PLACE)

    def prepare(images: Sequence[Image.Image], wish: Wish) -> dict[str, Any]:
        sizes = {"shortest_edge": 4 * cell**2, "longest_edge": PATCH_TOKENS * cell**2}  # square pixels
        seen = eyes(list(images), return_tensors="pt", size=sizes)
        counts = [int(grid.prod()) // eyes.merge_size**2 for grid in seen["image_grid_thw"]]
        asked = words(
            [_chat(count, instruction(wish)) for count in counts], padding=True, return_tensors="pt"
        )
        return {
            **dict(seen),
            "input_ids": asked.input_ids,
            "attention_mask": asked.attention_mask,
            "mm_token_type_ids": (asked.input_ids == place).to(torch.int32),
        }

    def read(answer: Any, asked: int) -> list[str]:
        texts: list[str] = words.batch_decode(answer[:, asked:], skip_special_tokens=True)
        return texts

    return Generator(model, device, check, batch=4, prepare=prepare, read=read)


def _chat(places: int, text: str) -> str:
    """One turn as the model's own template writes it, the picture's places filled in."""
    return f"<|im_start|>user\n<|vision_start|>{_PLACE * places}<|vision_end|>{text}<|im_end|>\n<|im_start|>assistant\n"
