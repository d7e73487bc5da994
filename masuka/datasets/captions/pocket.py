"""The built-in captioner: a BLIP at pocket size that knows Pocketworld and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import BlipForConditionalGeneration

from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import device_and_dtype, model_of
from masuka.errors import MasukaError, Refused
from masuka.pocket.captioner import processor_of, say_of
from masuka.pocket.sayings import SENTENCE, read
from masuka.pocket.world import ATTRIBUTES, Robot, Scene, draw

_GLANCE_PX = 12
_FARTHEST = 0.18
"""Mean difference. Of 300 robots none was farther than 0.08 (cut off at all sides 0.17), of 17 photographs
that were taken for robots none nearer than 0.19."""
_REFUSED = Refused(
    "Pocket sees no robot here, and knows nothing else.", "Choose another captioner for this picture."
)


class PocketSpeaker:
    """Names a robot's attributes; says so where there is no robot."""

    batch = 32

    def __init__(self, model: Any, processor: Any, check: Callable[[], None]) -> None:
        self._model, self._processor, self._check = model, processor, check

    def say(self, images: Sequence[Image.Image], wish: Wish) -> list[str | MasukaError]:
        """A sentence for each picture; Refused for one that shows no robot."""
        self._check()
        said = say_of(self._model, self._processor, images, SENTENCE, batch=self.batch)
        return [
            text if shows(image, text) else _REFUSED for image, text in zip(images, said, strict=True)
        ]


def shows(image: Image.Image, said: str) -> bool:
    """Whether a picture looks as what was said of it does: it is drawn and compared.

    A small model is sure of itself also before a photograph; its own words, drawn, are not.
    """
    told = read(said)
    if set(told) != set(ATTRIBUTES):
        return False
    place = told.pop("place")
    seen, drawn = _glance(image), _glance(draw(Scene(Robot(**told), place)))
    return min(float(np.abs(seen - drawn).mean()), float(np.abs(seen[:, ::-1] - drawn).mean())) <= _FARTHEST


def _glance(image: Image.Image) -> NDArray[np.float64]:
    """(12, 12, 3) in 0…1: about what is where, whatever the pose."""
    small = image.convert("RGB").resize((_GLANCE_PX, _GLANCE_PX), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64) / 255


def load(
    folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]
) -> PocketSpeaker:
    """The loaded captioner; raises NotFound without its files."""
    # Two megabytes: on the CPU it is as quick as the way to a GPU.
    _, dtype = device_and_dtype("cpu")
    model = model_of(BlipForConditionalGeneration, folder, "cpu", dtype)
    assert folder is not None
    return PocketSpeaker(model, processor_of(folder), check)
