"""Florence-2 (arXiv 2311.06242), by transformers' own classes: no remote code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoTokenizer, Florence2ForConditionalGeneration, Florence2Processor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import Generator, device_and_dtype, model_of

TASKS = {"sentence": "<DETAILED_CAPTION>", "tags": "<DETAILED_CAPTION>", "fixed": "<MORE_DETAILED_CAPTION>"}
"""Its own names for how much it is to say."""


def load(folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]) -> Generator:
    """The loaded captioner; raises NotFound without its files."""
    device, dtype = device_and_dtype(device)
    model = model_of(Florence2ForConditionalGeneration, folder, device, dtype)
    assert folder is not None
    processor = processor_of(folder)

    def prepare(images: Sequence[Image.Image], wish: Wish) -> dict[str, Any]:
        texts = [TASKS[wish.style]] * len(images)
        return dict(processor(images=list(images), text=texts, return_tensors="pt", padding=True))

    def read(answer: Any, asked: int) -> list[str]:
        texts: list[str] = processor.batch_decode(answer, skip_special_tokens=True)
        return texts

    return Generator(model, device, check, batch=8, prepare=prepare, read=read)


def processor_of(folder: Path) -> Any:
    """Its processor with Pillow's picture part: the other one needs torchvision."""
    images = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return Florence2Processor(images, words)
