"""From what a captioner said to a caption: style, trigger word, constant traits, one wording."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.datasets.captions import wording
from masuka.datasets.captions.slots import slot_of
from masuka.datasets.captions.wording import Rules, compose, settled

ROBOT = "a picture of an angry red tall striped robot wearing a crown and a scarf and with an antenna at night"
WOMAN = "A woman with long brown hair wearing a red dress is standing in a park. She is smiling at the camera."
BOORU = "1girl, solo, long hair, brown hair, looking at viewer, smile, red dress, standing, outdoors, upper body"


def rules(style: str, *constant: str, class_word: str = "robot") -> Rules:
    return Rules(style, "bolt7x", class_word, constant)


@pytest.mark.parametrize(
    ("style", "said", "caption"),
    [
        ("sentence", ROBOT, "an angry red tall striped bolt7x robot wearing a crown and a scarf and with an antenna at night"),
        ("tags", ROBOT, "bolt7x, robot, angry, red, tall, striped, crown, scarf, antenna, at night"),
        ("fixed", ROBOT, "bolt7x robot, red, tall, striped, antenna, crown, scarf, angry, at night"),
    ],
)  # fmt: skip
def test_each_style(style: str, said: str, caption: str) -> None:
    assert compose(said, rules(style)) == caption


def test_the_fixed_order_is_charforges() -> None:
    said = "full body, soft light, park, smile, standing, red dress, freckles"
    caption = compose(said, rules("fixed", class_word="woman"))
    assert caption == "bolt7x woman, freckles, red dress, standing, smile, park, soft light, full body"


@pytest.mark.parametrize("style", ["sentence", "tags", "fixed"])
@pytest.mark.parametrize(
    ("said", "class_word", "constant"),
    [(ROBOT, "robot", ("striped", "scarf", "an antenna")), (WOMAN, "person", ("brown hair",)), (BOORU, "person", ("brown hair",))],
)  # fmt: skip
def test_what_never_changes_is_left_out(style: str, said: str, class_word: str, constant: tuple[str, ...]) -> None:
    caption = compose(said, rules(style, *constant, class_word=class_word))
    for trait in constant:
        assert wording.key_of(trait) not in caption
    assert not re.search(r"\b(with|and|wearing|a|an) (?:in|at|is|wearing|with)\b|\band$", caption), caption


@pytest.mark.parametrize("style", ["sentence", "tags", "fixed"])
@pytest.mark.parametrize("said", [ROBOT, WOMAN, BOORU, "bolt7x robot, bolt7x in a park", "bolt7x", "nothing at all"])
def test_the_trigger_word_stands_there_once(style: str, said: str) -> None:
    caption = compose(said, rules(style), partial="bolt7x robot, holding a ball")
    assert len(re.findall(r"\bbolt7x\b", caption)) == 1


@pytest.mark.parametrize("style", ["sentence", "tags", "fixed"])
@pytest.mark.parametrize(
    "partial", ["a smiling bolt7x robot wearing a crown in a meadow", "bolt7x, waving", "Bolt7x waving at bolt7x", "a picture of bolt7x robot"],
)  # fmt: skip
def test_also_where_a_person_wrote_it(style: str, partial: str) -> None:
    caption = compose(ROBOT, rules(style, "crown"), partial=partial)
    assert len(re.findall(r"bolt7x", caption, re.IGNORECASE)) == 1 and "crown" not in caption
    assert ("smiling" in caption) == ("smiling" in partial) and ("waving" in caption) == ("waving" in partial)


@given(st.text(st.sampled_from("a bolt7x, robot.with and"), max_size=60), st.sampled_from(["sentence", "tags", "fixed"]))
def test_whatever_was_written(partial: str, style: str) -> None:
    caption = compose("a robot in a park", rules(style), partial=partial)
    assert len(re.findall(r"(?<![\w-])bolt7x(?![\w-])", caption)) == 1


def test_whom_the_trigger_word_names_is_not_described_twice() -> None:
    assert compose("a man on a bench", rules("sentence", class_word="person")) == "a bolt7x person on a bench"
    assert compose("an old man on a bench", rules("fixed", class_word="man")) == "bolt7x man, old, on a bench"
    assert compose("a cat on a bench", rules("sentence", class_word="person")) == "bolt7x person, a cat on a bench"


def test_what_a_person_wrote_is_worked_in_and_wins() -> None:
    caption = compose("a happy robot in a park", rules("fixed"), partial="bolt7x robot, crying, holding a ball")
    assert caption == "bolt7x robot, holding a ball, crying, in a park"
    kept = compose("a happy robot in a park", rules("sentence"), partial="holding a ball")
    assert kept == "a happy bolt7x robot in a park, holding a ball"
    assert compose("a happy robot in a park", rules("sentence"), partial="happy") == "a happy bolt7x robot in a park"


def test_one_word_for_one_thing() -> None:
    even = settled({1: "x, smiling, grey, a park, close up", 2: "x, grinning, gray, park, close-up", 3: "x, smiling, gray, Park"})
    assert even == {1: "x, smiling, gray, park, close-up", 2: "x, smiling, gray, park, close-up", 3: "x, smiling, gray, park"}


def test_captions_that_are_there_already_have_a_say() -> None:
    assert settled({1: "x, couch"}, ["x, sofa", "x, sofa"]) == {1: "x, sofa"}
    assert settled({1: "x, couch"}, []) == {1: "x, couch"}
    assert settled({1: "a couching coach"}, ["sofa"]) == {1: "a couching coach"}


def test_two_words_that_become_one_stand_once() -> None:
    assert settled({1: "x, sofa, couch", 2: "x, sofa"}) == {1: "x, sofa", 2: "x, sofa"}


@given(st.dictionaries(st.integers(1, 9), st.text(st.sampled_from("ab, -cdA"), max_size=40), max_size=5))
def test_one_wording_is_reached_in_one_go(captions: dict[int, str]) -> None:
    once = settled(captions)
    assert settled(once) == once


def test_tags_are_counted_renamed_and_removed_whatever_their_case() -> None:
    texts = ["x, red dress, a hat", "x, Red Dress", "x, dress"]
    assert wording.statistics(texts) == [("x", 3), ("red dress", 2), ("a hat", 1), ("dress", 1)]
    assert wording.without(texts[1], "red dress") == "x"
    assert wording.renamed(texts[0], "hat", "cap") == "x, red dress, cap"
    assert wording.renamed("x, cap, hat", "hat", "cap") == "x, cap"


@pytest.mark.parametrize(
    ("phrase", "slot"),
    [
        ("brown hair", "features"), ("a red dress", "clothing"), ("in a red dress", "clothing"), ("bow tie", "clothing"),
        ("sitting", "pose"), ("arms crossed", "pose"), ("looking away", "pose"), ("looking at viewer", "camera"),
        ("smiling", "expression"), ("closed eyes", "expression"), ("in a park", "background"), ("at night", "background"),
        ("in soft light", "lighting"), ("golden hour", "lighting"), ("close-up", "camera"), ("from_above", "camera"),
    ],
)  # fmt: skip
def test_a_phrase_has_its_place(phrase: str, slot: str) -> None:
    assert slot_of(phrase) == slot


def test_a_trigger_word_that_means_something_stays_as_it_is() -> None:
    captions = {1: "Grey person, gray coat, a couch", 2: "Grey person, gray coat, sofa", 3: "Grey, gray hat, sofa"}
    even = settled(captions, trigger_word="Grey")
    assert even == {1: "Grey person, gray coat, a sofa", 2: "Grey person, gray coat, sofa", 3: "Grey, gray hat, sofa"}
    assert settled({1: "couch, a couch-like chair"}, ["x, sofa", "x, sofa"], trigger_word="couch") == {
        1: "couch, a couch-like chair"
    }
    assert settled({1: "sofa7x, couch"}, ["x, sofa"], trigger_word="sofa7x") == {1: "sofa7x, sofa"}
