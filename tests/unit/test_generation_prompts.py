"""Prompts with a character in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.generation.prompts import fill, names_word, with_trigger


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("a picture of {trigger} {class} at night", "a picture of mira7x robot at night"),
        ("{trigger}, {trigger}", "mira7x, mira7x"),
        ("no slot {here}", "no slot {here}"),
    ],
)
def test_slots_are_filled(text: str, filled: str) -> None:
    assert fill(text, trigger_word="mira7x", class_word="robot") == filled


def test_a_slot_without_a_word_leaves_no_gap() -> None:
    assert fill("a {trigger} {class} at night", trigger_word="", class_word="robot") == "a robot at night"


def test_the_trigger_is_added_once() -> None:
    assert (
        with_trigger("on the beach", trigger_word="mira7x", class_word="robot")
        == "mira7x robot, on the beach"
    )
    named = "MIRA7X robot, on the beach"
    assert with_trigger(named, trigger_word="mira7x", class_word="robot") == named


def test_part_of_another_word_is_not_the_trigger() -> None:
    assert not names_word("a mira7xx robot", "mira7x")
    assert not names_word("a mira7x-like robot", "mira7x")
    assert names_word("a picture of mira7x.", "mira7x")


def test_without_a_character_the_prompt_stays() -> None:
    assert with_trigger("a red robot", trigger_word="", class_word="") == "a red robot"


@given(st.text(max_size=80))
def test_any_prompt_names_the_trigger_afterwards(prompt: str) -> None:
    assert names_word(with_trigger(prompt, trigger_word="mira7x", class_word="robot"), "mira7x")
