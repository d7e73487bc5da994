"""How well a picture shows what a sentence says: SigLIP, where it was downloaded.

Runs on the CPU, beside a GPU that is full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

TEXT_TOKENS = 64
"""What the model was taught with; shorter texts are padded to it, longer ones cut."""


class Siglip:
    """The cosine of a picture and its sentence in SigLIP's common space."""

    def __init__(self, folder: Path) -> None:
        # Not at the top: every training reads this module, and few have the model.
        from transformers import PreTrainedTokenizerFast, SiglipModel

        model = SiglipModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = model.to("cpu", dtype=torch.float32).eval()
        self._tokens = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), pad_token="</s>", eos_token="</s>"  # noqa: S106
        )
        self._side = int(model.config.vision_config.image_size)

    @torch.inference_mode()
    def follows(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """One cosine for each picture and its prompt; pictures become squares."""
        tokens = self._tokens(
            [_plain(prompt) for prompt in prompts], padding="max_length", max_length=TEXT_TOKENS,
            truncation=True, return_tensors="pt",
        )  # fmt: skip
        side = (self._side, self._side)
        squares = [np.asarray(p.convert("RGB").resize(side, Image.Resampling.BICUBIC), np.float32) for p in pictures]
        pixels = torch.from_numpy(np.stack(squares) / 127.5 - 1).permute(0, 3, 1, 2)
        shown = self._model.get_image_features(pixel_values=pixels).pooler_output
        said = self._model.get_text_features(input_ids=tokens.input_ids).pooler_output
        return [float(value) for value in torch.cosine_similarity(shown, said)]


def _plain(text: str) -> str:
    """As the model was taught: small letters, no punctuation."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())
