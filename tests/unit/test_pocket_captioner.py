"""The caption model that is shipped: stock classes, small, right about robots it never saw."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from PIL import Image
from transformers import BertTokenizerFast

from masuka.errors import Conflict
from masuka.pocket import CAPTIONER_FOLDER, build, captioner, sayings
from masuka.pocket.captioner import say_of
from masuka.pocket.drawn import scenes_of
from masuka.pocket.places import backdrop
from masuka.pocket.train_captioner import named_right
from masuka.pocket.world import ATTRIBUTES, KEPT_OUT, character_scenes, draw, is_held_out

MIB = 2**20
HELD_OUT = [scene for scene in scenes_of("any", 1200) if is_held_out(scene)][:60]


@pytest.fixture(scope="module")
def shipped():
    return captioner.load(CAPTIONER_FOLDER)


def test_it_is_a_stock_blip_of_four_mebibytes() -> None:
    assert json.loads((CAPTIONER_FOLDER / "config.json").read_text())["architectures"] == ["BlipForConditionalGeneration"]
    assert sum(file.stat().st_size for file in CAPTIONER_FOLDER.iterdir()) < 6 * MIB
    assert (CAPTIONER_FOLDER / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


@pytest.mark.parametrize("asked", [sayings.SENTENCE, sayings.TAGS])
def test_it_names_what_it_never_saw_together(shipped, asked: str) -> None:
    said = say_of(*shipped, [draw(scene) for scene in HELD_OUT], asked)
    assert min(named_right(said, HELD_OUT).values()) >= 0.95


def test_it_takes_nothing_that_pocket_does_not_know_for_something_else(shipped) -> None:
    scenes = [scene for seed in (1, 2) for scene in character_scenes(seed, 10)]
    right = named_right(say_of(*shipped, [draw(scene) for scene in scenes]), scenes)
    assert {name: right[name] for name in KEPT_OUT} == dict.fromkeys(KEPT_OUT, 1.0)


def test_where_there_is_no_robot_it_says_so(shipped) -> None:
    empty = [backdrop(place, 3, 128) for place in ATTRIBUTES["place"]] + [Image.new("RGB", (300, 200), "white")]
    assert set(say_of(*shipped, empty)) == {sayings.NOTHING_KNOWN}


def test_what_is_said_of_a_scene_is_read_back() -> None:
    rng = random.Random(3)
    for scene in scenes_of("any", 400):
        for text in (sayings.sentence(scene, rng), sayings.tags(scene, rng)):
            assert sayings.read(text) == scene.attributes


def test_its_tokenizer_knows_every_word_and_letter() -> None:
    words = BertTokenizerFast.from_pretrained(CAPTIONER_FOLDER)
    rng = random.Random(5)
    for scene in scenes_of("any", 50):
        text = sayings.sentence(scene, rng)
        assert words.tokenize(text) == text.split()
    assert words.unk_token not in words.tokenize("bolt7x")


def test_one_that_misses_its_bar_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, count in {"_DRAWN": 40, "_TESTED": 40}.items():
        monkeypatch.setattr(build, name, count)
    monkeypatch.setattr(build, "drawn", lambda folder, kind, count: (_pictures(count), None))
    with pytest.raises(Conflict, match="captioner misses its bar"):
        build.build_captioner(tmp_path / "out", tmp_path / "work", 1e-9)
    assert not (tmp_path / "out" / "captioner").exists()


def _pictures(count: int):
    import numpy as np

    return np.stack([np.asarray(draw(scene)) for scene in scenes_of("any", count)])
