"""What Pocketworld promises: the same seed, the same pixels, and secrets that stay secret."""

from __future__ import annotations

import random
import re

import pytest

from masuka import pocket
from masuka.pocket import words, world
from masuka.pocket.drawn import scenes_of
from masuka.pocket.world import ATTRIBUTES, KEPT_OUT, Robot, Scene

NEVER_SAID = re.compile(r"stripe|striped|scarf|antenna", re.IGNORECASE)


def plain_scene(**robot: str) -> Scene:
    return Scene(Robot(**{"body": "round", "colour": "red", **robot}), "meadow")


def test_the_same_seed_draws_the_same_pixels_and_words() -> None:
    first = world.character_set(4, 3)
    second = world.character_set(4, 3)
    assert [c for _, c in first] == [c for _, c in second]
    assert [i.tobytes() for i, _ in first] == [i.tobytes() for i, _ in second]
    assert world.draw(scenes_of("known", 1)[0]).tobytes() == world.draw(scenes_of("known", 1)[0]).tobytes()


@pytest.mark.parametrize("size_px", [64, 128, 200])
def test_a_picture_has_the_size_that_was_asked_for(size_px: int) -> None:
    image = world.draw(plain_scene(), size_px)
    assert (image.size, image.mode) == ((size_px, size_px), "RGB")


@pytest.mark.parametrize("name", list(ATTRIBUTES))
def test_every_value_of_an_attribute_changes_many_pixels(name: str) -> None:
    pictures = []
    for value in ATTRIBUTES[name]:
        attributes = {**plain_scene().attributes, name: value}
        place = attributes.pop("place")
        pictures.append(world.draw(Scene(Robot(**attributes), place)).tobytes())
    for i, one in enumerate(pictures):
        for other in pictures[i + 1 :]:
            changed = sum(abs(a - b) > 40 for a, b in zip(one, other, strict=True))
            assert changed > 250


def test_the_robot_fills_two_thirds_of_the_picture_and_stays_inside() -> None:
    rng = random.Random(2)
    for _ in range(40):
        scene = world.sample_any_scene(rng)
        empty = world.draw(scene)
        assert empty.getbbox() is not None
    tall = world.draw(plain_scene(body="tall", hat="top hat"))
    bare = world.draw(Scene(Robot("round", "red"), "meadow"))
    rows = [y for y in range(128) if tall.crop((50, y, 78, y + 1)) != bare.crop((4, y, 32, y + 1))]
    assert rows[-1] - rows[0] > 0.6 * 128


@pytest.mark.parametrize("kind", ["known", "held out"])
def test_training_scenes_and_their_captions_hold_nothing_kept_out(kind: str) -> None:
    rng = random.Random(1)
    for scene in scenes_of(kind, 1500):
        assert all(scene.attributes[name] != value for name, value in KEPT_OUT.items())
        assert not NEVER_SAID.search(world.caption(scene, rng))
        assert not NEVER_SAID.search(world.canonical_prompt(scene))


def test_no_word_of_the_vocabulary_is_kept_out() -> None:
    assert not [word for word in words.vocabulary() if NEVER_SAID.search(word)]


def test_held_out_combinations_are_never_trained_on() -> None:
    known = {tuple(s.attributes.values()) for s in scenes_of("known", 4000)}
    held_out = {tuple(s.attributes.values()) for s in scenes_of("held out", 300)}
    assert len(held_out) > 150
    assert not known & held_out


def test_the_full_space_shows_every_value() -> None:
    scenes = scenes_of("any", 400)
    for name, values in ATTRIBUTES.items():
        assert {s.attributes[name] for s in scenes} == set(values)


def test_the_canonical_prompt_names_every_attribute() -> None:
    scene = plain_scene(pattern="spots", hat="top hat", accessory="bow tie", face="angry")
    assert (
        world.canonical_prompt(scene)
        == "an angry red round spotted robot wearing a top hat and a bow tie in a meadow"
    )
    bare = world.canonical_prompt(plain_scene())
    assert bare == "a happy red round plain robot wearing no hat and no bow tie in a meadow"


def test_a_caption_never_says_what_the_scene_does_not_show() -> None:
    rng = random.Random(3)
    hats = {"crown": "crown", "top hat": "top hat", "cap": r"\bcap\b", "party hat": "party"}
    for scene in scenes_of("known", 1500):
        text = world.caption(scene, rng)
        shown = scene.attributes
        for colour in ATTRIBUTES["colour"][:-2]:
            if re.search(rf"\b{colour}\b", text):
                assert colour == shown["colour"] or (colour, shown["hat"]) == ("pink", "party hat")
        for hat, pattern in hats.items():
            if re.search(pattern, text):
                assert hat == shown["hat"]
        assert ("no hat" in text) <= (shown["hat"] == "none")
        assert ("no bow tie" in text) <= (shown["accessory"] == "none")


def test_captions_vary_and_leave_things_out() -> None:
    rng = random.Random(4)
    scene = plain_scene(pattern="spots", hat="crown", accessory="bow tie")
    texts = [world.caption(scene, rng) for _ in range(300)]
    assert len(set(texts)) > 200
    assert 10 < sum("crown" not in t for t in texts) < 90


def test_an_unseen_character_keeps_its_identity_and_changes_the_rest() -> None:
    scenes = world.character_scenes(5, 20)
    identity = {
        (s.robot.body, s.robot.colour, s.robot.pattern, s.robot.antenna, s.robot.accessory) for s in scenes
    }
    assert identity == {
        (world.unseen_character(5).body, world.unseen_character(5).colour, "stripes", "antenna", "scarf")
    }
    assert {s.place for s in scenes} == set(ATTRIBUTES["place"])
    assert {s.robot.hat for s in scenes} == set(ATTRIBUTES["hat"])
    assert {s.robot.face for s in scenes} == set(ATTRIBUTES["face"])
    assert world.unseen_character(4).accessory == "none"


def test_a_character_caption_names_only_what_varies() -> None:
    robot = world.unseen_character(7)
    for _, text in world.character_set(7, 20):
        assert text.count("{trigger}") == 1
        assert robot.colour not in text.replace("a pink party hat", "")
        assert not NEVER_SAID.search(text)
        assert text.format(trigger="mira7x")


def test_the_words_for_people_are_all_in_the_vocabulary() -> None:
    known = set(words.vocabulary())
    for values in pocket.WORDS.values():
        assert {w for value in values for w in value.split()} <= known
