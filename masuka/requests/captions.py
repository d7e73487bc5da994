"""Requests about captions that a model writes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.text import clean_prompt

Style = Literal["sentence", "tags", "fixed"]
STYLES: dict[str, str] = {
    "sentence": "A sentence",
    "tags": "Tags",
    "fixed": "Tags in a fixed order: what the character is, features, clothing, pose, expression, "
    "background, lighting, camera",
}
"""What each style is called, for people."""
TRAIT_CHARS = 60


def _clean_traits(traits: tuple[str, ...]) -> tuple[str, ...]:
    """Single traits, without blanks and repetitions; one text may hold several after commas."""
    pieces = [piece for trait in traits for piece in trait.split(",")]
    cleaned = [
        " ".join(clean_prompt(piece, field="constant", longest=TRAIT_CHARS).split()) for piece in pieces
    ]
    return tuple(dict.fromkeys(trait for trait in cleaned if trait))


def _clean_word(text: str) -> str:
    """A model's name at a service: one line without blanks."""
    text = clean_prompt(text, field="model", longest=200)
    if any(letter.isspace() for letter in text):
        raise InvalidInput("The model's name holds a space.", "Copy it from the service.", field="model")
    return text


Traits = Annotated[tuple[str, ...], AfterValidator(_clean_traits)]
ModelName = Annotated[str, AfterValidator(_clean_word)]


class CaptionPictures(Request):
    """Captions for pictures of a set, written by a captioner."""

    captioner: str = field("pocket", help="Who writes: the name of a captioner.", max_length=60)
    picture_ids: tuple[int, ...] = field((), help="Which pictures; none means all that are not set aside.")
    style: Style = field("sentence", help="A sentence, tags, or tags in a fixed order.")
    constant: Traits = field(
        (),
        help="What never changes about the character, such as brown hair: the trigger word stands for it, "
        "so captions leave it out.",
        label="Always the same",
    )
    keep_partial: bool = field(
        True,
        help="Keep what people wrote: their words are worked into the new captions.",
        label="Keep my words",
    )
    only_empty: bool = field(
        False, help="Leave pictures alone that have a caption of their own.", label="Only empty"
    )
    consistent: bool = field(
        True, help="Use one word for one thing in the whole set.", label="Consistent wording"
    )
    model: ModelName = field(
        "", help="The model at a hosted service; empty is the usual one.", group="Advanced"
    )
