"""Each captioner's own loading code, on a tiny random checkpoint of its real classes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from masuka.datasets.captions.captioners import CAPTIONERS, Wish
from masuka.errors import NotFound
from tests import tiny_captioners

MAKERS: dict[str, Callable[[Path], Path]] = {
    "florence-2": tiny_captioners.florence,
    "blip-2": tiny_captioners.blip2,
    "qwen3-vl": tiny_captioners.qwen,
    "wd-tagger": tiny_captioners.wd_tagger,
}
IMAGES = [Image.new("RGB", (96, 64), "red"), Image.new("RGB", (40, 90), "blue")]


def loaded(name: str, folder: Path | None):
    module, _, function = CAPTIONERS[name].loads.partition(":")
    return getattr(import_module(module), function)(folder, "cpu", {})


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("style", ["sentence", "fixed"])
def test_it_says_one_text_for_each_picture(name: str, style: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    speaker = loaded(name, MAKERS[name](tmp_path / "model"))
    said = speaker.say(IMAGES, Wish(style, "person", ("brown hair",)))
    assert len(said) == len(IMAGES) and all(isinstance(text, str) for text in said)
    assert any(said)
    alone = [speaker.say([image], Wish(style, "person", ("brown hair",)))[0] for image in IMAGES]
    assert said == alone  # what stands beside it in a batch changes nothing


@pytest.mark.parametrize("name", MAKERS)
def test_without_its_files_it_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="files are gone"):
        loaded(name, tmp_path)
