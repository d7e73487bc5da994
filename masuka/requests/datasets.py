"""Requests about characters, data sets and their captions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.text import clean_name, clean_path, clean_prompt, clean_trigger, without_control

TRIGGER_SLOT = "{trigger}"
CLASS_SLOT = "{class}"
CAPTION_CHARS = 2000


def clean_template(text: str) -> str:
    """A caption template that holds {trigger}; raises InvalidInput when it does not."""
    text = clean_prompt(text, field="caption_template", longest=500)
    if TRIGGER_SLOT not in text:
        raise InvalidInput(
            "The caption template has no {trigger}.",
            "Add {trigger} where the trigger word belongs.",
            field="caption_template",
        )
    return text


def clean_caption(text: str) -> str:
    """A caption of at most 2,000 characters on one line."""
    return " ".join(clean_prompt(text, field="caption", longest=CAPTION_CHARS).split())


def _clean_class(text: str) -> str:
    return clean_name(text, field="class_word")


def _clean_consent(text: str) -> str:
    return clean_prompt(text, field="consent", longest=500)


def _clean_paths(paths: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(clean_path(path, field="paths") for path in paths)


def _clean_edit(text: str) -> str:
    """The text, blanks at its ends kept: in a prefix or a search they are meant."""
    return without_control(text, keep="\n\t")


Name = Annotated[str, AfterValidator(clean_name)]
ClassWord = Annotated[str, AfterValidator(_clean_class)]
EditText = Annotated[str, AfterValidator(_clean_edit)]
Trigger = Annotated[str, AfterValidator(clean_trigger)]
Template = Annotated[str, AfterValidator(clean_template)]
Caption = Annotated[str, AfterValidator(clean_caption)]


class CreateCharacter(Request):
    """A character: the person or creature that the pictures show."""

    name: Name = field(help="What you call the character, for example Mira.")
    trigger_word: Trigger = field(help="A rare word that will call the character in a prompt.")
    class_word: ClassWord = field("person", help="What the character is: person, woman, robot, cat.")
    consent: Annotated[str, AfterValidator(_clean_consent)] = field(
        "", help="Who agreed to this likeness, for real people; at most 500 characters."
    )


class CreateDataset(Request):
    """A data set: the pictures and captions that one training learns from."""

    name: Name = field(help="What you call this set of pictures.")
    trigger_word: Trigger = field(help="A rare word that will call the character in a prompt.")
    class_word: ClassWord = field("person", help="What the character is: person, woman, robot, cat.")
    caption_template: Template = field(
        "a picture of {trigger} {class}",
        help="The first caption of each picture; {trigger} and {class} are filled in.",
    )
    character_id: int | None = field(None, help="The character these pictures show.", ge=1)


class UpdateDataset(Request):
    """Changes to a data set; captions that have the old trigger word get the new."""

    name: Name | None = field(None, help="A new name.")
    trigger_word: Trigger | None = field(None, help="A new trigger word.")
    class_word: ClassWord | None = field(None, help="A new class word.")
    caption_template: Template | None = field(None, help="A new template for new pictures.")


class AddPictures(Request):
    """Pictures to take in, from files, folders and archives on this machine."""

    dataset_id: int = field(help="The data set that gets them.", ge=1)
    paths: Annotated[tuple[str, ...], AfterValidator(_clean_paths)] = field(
        help="Files, folders or zip archives.", min_length=1
    )
    forget_sources: bool = field(False, help="Delete the sources afterwards (uploaded copies).")


class EditCaptions(Request):
    """One change to many captions."""

    picture_ids: tuple[int, ...] = field(help="The pictures to change.", min_length=1)
    action: Literal["set", "replace", "prefix", "suffix", "template"] = field(
        help="Set the text, replace one text by another, add before or after, or fill the template."
    )
    text: EditText = field("", help="The new text.", max_length=CAPTION_CHARS)
    find: EditText = field("", help="The text to replace.", max_length=CAPTION_CHARS)
