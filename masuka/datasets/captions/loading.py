"""What every captioner's loading has in common: device, number format, room, no remote code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from masuka.errors import NotFound
from masuka.models import loading

LONGEST_PX = 1024
"""Captioners look at a few hundred pixels; more only costs time."""
NEW_TOKENS = 160


class Generator:
    """A model that writes: `prepare` makes its inputs, `read` texts of its tokens.

    `check` is called at each token, and may raise Stop from inside.
    """

    def __init__(
        self,
        model: Any,
        device: str,
        check: Callable[[], None],
        *,
        batch: int,
        prepare: Callable[[Sequence[Image.Image], Any], dict[str, Any]],
        read: Callable[[Any, int], list[str]],
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.device, self.batch = model, device, batch
        self._prepare, self._read, self._options = prepare, read, options or {}
        self._check = check

    @torch.inference_mode()
    def say(self, images: Sequence[Image.Image], wish: Any) -> list[str]:
        """One text for each picture, the likeliest that the model has."""
        given = self._prepare(images, wish)
        inputs = {name: self._placed(value) for name, value in given.items()}
        asked = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "num_beams": 1, **self._options}
        options["stopping_criteria"] = [self._goes_on]
        answer = self.model.generate(**inputs, **options)
        return [" ".join(text.split()) for text in self._read(answer, asked)]

    def _goes_on(self, tokens: Any, scores: Any, **_: Any) -> Any:
        """Asked after each token whether a text is at its end: never, but somebody may cancel."""
        self._check()
        return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

    def _placed(self, value: Any) -> Any:
        floats = value.is_floating_point()
        return value.to(self.device, dtype=self.model.dtype) if floats else value.to(self.device)


def device_and_dtype(setting: str) -> tuple[str, torch.dtype]:
    """Where a captioner runs and in which numbers: bf16 or fp16 on a GPU, else fp32."""
    device = loading.choose_device(setting)
    if device == "cpu":
        return device, torch.float32
    if device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] < 8:
        return device, torch.float16
    return device, torch.bfloat16


def model_of(kind: Any, folder: Path | None, device: str, dtype: torch.dtype) -> Any:
    """The model of that transformers class, from safetensors alone, ready to ask.

    Raises NotFound when its files are gone.
    """
    loading.quiet_libraries()
    if folder is None or not (folder / "config.json").is_file():
        raise NotFound("The captioner's files are gone.", "Download it again.")
    model = kind.from_pretrained(folder, dtype=dtype, local_files_only=True, use_safetensors=True)
    return model.to(device).eval().requires_grad_(False)


def small(image: Image.Image) -> Image.Image:
    """The picture as RGB with at most 1,024 pixels on its longer side."""
    rgb = image.convert("RGB")
    if max(rgb.size) > LONGEST_PX:
        rgb.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return rgb
