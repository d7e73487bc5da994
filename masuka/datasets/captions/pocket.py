"""The built-in captioner: a BLIP at pocket size that knows Pocketworld and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import BlipForConditionalGeneration

from masuka.datasets.captions.captioners import Wish
from masuka.datasets.captions.loading import device_and_dtype, model_of
from masuka.errors import MasukaError, Refused
from masuka.pocket.captioner import processor_of
from masuka.pocket.sayings import NOTHING_KNOWN, SENTENCE
from masuka.pocket.train_captioner import say_of

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
        return [_REFUSED if text == NOTHING_KNOWN else text for text in said]


def load(
    folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]
) -> PocketSpeaker:
    """The loaded captioner; raises NotFound without its files."""
    # Two megabytes: on the CPU it is as quick as the way to a GPU.
    _, dtype = device_and_dtype("cpu")
    model = model_of(BlipForConditionalGeneration, folder, "cpu", dtype)
    assert folder is not None
    return PocketSpeaker(model, processor_of(folder), check)
