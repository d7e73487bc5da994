"""BLIP-2 (arXiv 2301.12597) with OPT: short sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoTokenizer, Blip2ForConditionalGeneration
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import Generator, device_and_dtype, model_of


def load(folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]) -> Generator:
    """The loaded captioner; raises NotFound without its files."""
    device, dtype = device_and_dtype(device)
    model = model_of(Blip2ForConditionalGeneration, folder, device, dtype)
    assert folder is not None
    images_part = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)

    def prepare(images: Sequence[Image.Image], wish: Wish) -> dict[str, Any]:
        # Without a prompt the model begins by itself, as it was trained to caption.
        return dict(images_part(list(images), return_tensors="pt"))

    def read(answer: Any, asked: int) -> list[str]:
        texts: list[str] = words.batch_decode(answer, skip_special_tokens=True)
        return texts

    return Generator(
        model, device, check, batch=8, prepare=prepare, read=read, options={"max_new_tokens": 60}
    )
