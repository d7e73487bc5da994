"""Each captioner's own loading code, on a tiny random checkpoint of its real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from masuka.datasets.captions import tagger
from masuka.datasets.captions.captioners import CAPTIONERS, Wish, loaded
from masuka.errors import NotFound, Refused, Stop
from masuka.pocket.drawn import scenes_of
from masuka.pocket.world import draw
from tests import tiny_captioners

MAKERS: dict[str, Callable[[Path], Path]] = {
    "florence-2": tiny_captioners.florence,
    "blip-2": tiny_captioners.blip2,
    "qwen3-vl": tiny_captioners.qwen,
    "wd-tagger": tiny_captioners.wd_tagger,
}
IMAGES = [Image.new("RGB", (96, 64), "red"), Image.new("RGB", (40, 90), "blue")]


def speaker_of(name: str, folder: Path | None, check: Callable[[], None] = lambda: None):
    return loaded(CAPTIONERS[name], {"folder": folder and str(folder), "device": "cpu"}, check)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("style", ["sentence", "fixed"])
def test_it_says_one_text_for_each_picture(name: str, style: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    speaker = speaker_of(name, MAKERS[name](tmp_path / "model"))
    said = speaker.say(IMAGES, Wish(style, "person", ("brown hair",)))
    assert len(said) == len(IMAGES) and all(isinstance(text, str) for text in said)
    assert any(said)
    alone = [speaker.say([image], Wish(style, "person", ("brown hair",)))[0] for image in IMAGES]
    assert said == alone  # what stands beside it in a batch changes nothing


@pytest.mark.parametrize("name", MAKERS)
def test_without_its_files_it_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="files are gone"):
        speaker_of(name, tmp_path)


@pytest.mark.parametrize("name", ["florence-2", "blip-2", "qwen3-vl"])
def test_it_stops_between_two_words(name: str, tmp_path: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Stop("cancel")

    with pytest.raises(Stop):
        speaker_of(name, MAKERS[name](tmp_path / "model"), check).say(IMAGES, Wish("sentence", "person"))
    assert calls == 3


def test_a_tagger_that_is_built_otherwise_is_refused() -> None:
    args = {"img_size": 448, "class_token": True, "global_pool": "token", "fc_norm": None, "act_layer": "gelu"}
    with pytest.raises(NotFound, match="another way"):
        tagger.config_of({"architecture": "vit_base_patch16_224", "num_classes": 5, "model_args": args})


def test_a_tagger_says_what_is_likely_and_names_nobody(tmp_path: Path) -> None:
    speaker = speaker_of("wd-tagger", tiny_captioners.wd_tagger(tmp_path / "model"))
    said = set(", ".join(speaker.say(IMAGES, Wish("tags", "person"))).split(", "))
    assert said <= {"1girl", "red dress", "long hair", "^_^", "outdoors"}  # no rating, no series


def test_pocket_takes_nothing_else_for_a_robot() -> None:
    robots = [draw(scene) for scene in scenes_of("any", 40)]
    others = [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.effect_mandelbrot((200, 150), (-2, -1, 1, 1), 60)]
    speaker = loaded(CAPTIONERS["pocket"], {"folder": str(CAPTIONERS["pocket"].folder)})
    said = speaker.say([*robots, *(image.convert("RGB") for image in others)], Wish("sentence", "robot"))
    assert [isinstance(text, Refused) for text in said] == [False] * len(robots) + [True] * len(others)


def test_every_captioner_is_described() -> None:
    for entry in CAPTIONERS.values():
        assert entry.about.endswith(".") and entry.licence
        assert {"here": bool(entry.folder), "hub": bool(entry.repo), "hosted": bool(entry.key)}[entry.where]
