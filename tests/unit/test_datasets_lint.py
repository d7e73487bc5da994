"""What is wrong with captions, and what is not."""

from __future__ import annotations

import pytest

from masuka.datasets import lint
from masuka.pocket import world


def said(caption: str, **values: int) -> list[str]:
    return lint.lint({1: caption}, trigger_word="mira7", **values).get(1, [])


@pytest.mark.parametrize(
    ("caption", "part"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a woman at the sea", "missing"),
        ("mira72 at the sea", "missing"),
        ("mira7 woman, mira7 smiles", "more than once"),
        ("mira7 woman " + "walks along the wide beach " * 20, "longer than about 75"),
        ("mira7 woman at noon under the night sky", "the time of day"),
        ("mira7 woman with closed eyes and wide eyes", "the eyes"),
        ("mira7 woman, black hair, long blonde hair", "two colours: black and blonde"),
    ],
)
def test_what_is_wrong_is_said(caption: str, part: str) -> None:
    (sentence,) = said(caption)
    assert part in sentence and sentence.endswith(".")


@pytest.mark.parametrize(
    "caption",
    [
        "a picture of mira7 person",
        "mira7, a woman with blue-grey eyes and long dark brown hair, on a red carpet at night",
        "mira7 woman in a black dress, blonde hair, green eyes, black and white cat",
        "mira7 woman, blond hair, blonde hair",
        "Mira7's friend waves at mira7",
        "mira7 woman looks outside, the night before",
    ],
)
def test_what_is_well_is_left_alone(caption: str) -> None:
    assert said(caption) == []


def test_captions_of_pocket_are_well() -> None:
    captions = {n: text.format(trigger="mira7") for n, (_, text) in enumerate(world.character_set(7, 20))}
    assert lint.lint(captions, trigger_word="mira7") == {}


def test_a_colour_that_others_contradict_is_told() -> None:
    captions = {n: f"mira7 woman with brown hair, picture {n}" for n in range(6)} | {9: "mira7 woman with red hair"}
    found = lint.lint(captions, trigger_word="mira7")
    assert found == {9: ["It says red hair where 6 others say brown."]}


def test_where_others_do_not_agree_nothing_is_told() -> None:
    captions = {n: f"mira7 woman with {c} hair" for n, c in enumerate(["red", "red", "black", "brown", "brown"])}
    assert lint.lint(captions, trigger_word="mira7") == {}


def test_the_same_caption_everywhere_is_told_from_four_on() -> None:
    for count in (3, 4):
        found = lint.lint(dict.fromkeys(range(count), "a picture of mira7 robot"), trigger_word="mira7")
        assert len(found) == (count if count == 4 else 0)
    assert lint.summary(found) == ["4 captions: All captions say the same; say what differs from picture to picture."]


def test_the_limit_is_the_bases() -> None:
    caption = "mira7 robot " + "stands in the green meadow " * 10
    assert said(caption, longest_tokens=lint.longest_for("flux1-dev")) == []
    assert len(said(caption, longest_tokens=lint.longest_for("pocket"))) == 1
    assert lint.longest_for("something else") == lint.CLIP_TOKENS


def test_tokens_are_about_one_for_each_word_and_mark() -> None:
    # Words and marks; the last has a name that falls into two pieces.
    for text, count in (
        ("a photo of a woman at the sea.", 9),
        ("portrait, soft light from the left, shallow depth of field, film grain", 15),
        ("mira7 woman wearing a dark green raincoat, standing on a bridge, overcast sky, from below", 19),
    ):
        assert abs(lint.tokens(text) - count) <= 3
