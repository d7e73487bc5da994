"""The built-in caption model: a stock BlipForConditionalGeneration at pocket size.

Owns its size, its tokenizer and the folder it is written to; it is trained by
`train_captioner` and used as any BLIP is.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import BertTokenizerFast, BlipConfig, BlipForConditionalGeneration, BlipProcessor
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from masuka.pocket.sayings import SENTENCE, vocabulary
from masuka.pocket.world import SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

MAX_TOKENS = 40
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
_LETTERS = string.ascii_lowercase + string.digits


def tokenizer() -> Any:
    """A BertTokenizerFast of Pocketworld's words, with a fallback to single letters."""
    pieces = [*_SPECIAL, *vocabulary(), *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocab = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = BertTokenizerFast(vocab=vocab, model_max_length=MAX_TOKENS)
    made.add_special_tokens({"bos_token": "[DEC]"})
    return made


def processor() -> Any:
    """The BlipProcessor that goes with it; works with Pillow alone."""
    half = [0.5, 0.5, 0.5]
    size = {"height": SIZE_PX, "width": SIZE_PX}
    return BlipProcessor(BlipImageProcessorPil(size=size, image_mean=half, image_std=half), tokenizer())


def new_captioner() -> Any:
    """The untrained model, 2.1 M parameters."""
    words = tokenizer()
    config = BlipConfig(
        vision_config={
            "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4,
            "num_attention_heads": 4, "image_size": SIZE_PX, "patch_size": 16, "initializer_range": 0.02,
        },
        text_config={
            "vocab_size": len(words), "hidden_size": 128, "encoder_hidden_size": 192,
            "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": MAX_TOKENS + 8, "projection_dim": 128,
            "bos_token_id": words.bos_token_id, "sep_token_id": words.sep_token_id,
            "eos_token_id": words.sep_token_id, "pad_token_id": words.pad_token_id,
        },
        projection_dim=128,
        image_text_hidden_size=128,
    )  # fmt: skip
    return BlipForConditionalGeneration(config)


def write(model: Any, folder: Path) -> None:
    """The model in fp16 with its processor, as any other BLIP is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    processor().save_pretrained(folder)


def load(folder: Path) -> tuple[Any, Any]:
    """The model in fp32, ready to ask, and its processor."""
    model = BlipForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), processor_of(folder)


@torch.inference_mode()
def say_of(
    model: Any, processor: Any, images: Sequence[Image.Image], asked: str = SENTENCE, batch: int = 50
) -> list[str]:
    """The likeliest caption of each picture, without the word that asked for it."""
    said: list[str] = []
    for at in range(0, len(images), batch):
        part = list(images[at : at + batch])
        given = processor(images=part, text=[asked] * len(part), return_tensors="pt")
        answer = model.generate(**given, max_new_tokens=MAX_TOKENS, do_sample=False, num_beams=1)
        texts = processor.batch_decode(answer, skip_special_tokens=True)
        said += [text.removeprefix(asked).strip() for text in texts]
    return said


def processor_of(folder: Path) -> Any:
    """The processor of a written model, its picture part by Pillow."""
    images = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    return BlipProcessor(images, BertTokenizerFast.from_pretrained(folder, local_files_only=True))
