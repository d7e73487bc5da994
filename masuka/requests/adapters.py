"""Requests about LoRA files: other names, other ranks, several in one, into a base, to the Hub."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.intake import clean_repo
from masuka.requests.text import clean_name, clean_path


def _clean_model(text: str) -> str:
    try:
        return clean_repo(text)
    except InvalidInput as error:
        raise InvalidInput(
            "This is no name of a Hugging Face model.", "Write owner/name, for example mira/film-look.", field="repo"
        ) from error


Name = Annotated[str, AfterValidator(clean_name)]
LARGEST_RANK = 512
MOST_MERGED = 8


class ConvertAdapter(Request):
    """The same LoRA as a file for other tools."""

    adapter_id: int = field(help="The LoRA.", ge=1)
    convention: Literal["diffusers", "native", "kohya"] = field(
        help="Names of its layers: diffusers, those of the model's publisher (ComfyUI), or kohya's (A1111, Forge).",
    )
    plain: bool = field(
        False, help="Make a plain LoRA of a DoRA or LoKr, for readers that know no other; a DoRA loses a little."
    )
    dtype: Literal["bf16", "fp16", "fp32"] = field("bf16", label="Number format", help="fp16 for old readers.")


class ResizeAdapter(Request):
    """The nearest LoRA of another rank."""

    adapter_id: int = field(help="The LoRA.", ge=1)
    rank: int = field(8, help="Its new rank; what is lost is said.", ge=1, le=LARGEST_RANK)
    name: Name | None = field(None, help="What the new one is called; the old name and the rank if empty.")


class MergeAdapters(Request):
    """Several LoRAs of one family as one."""

    adapter_ids: tuple[int, ...] = field(help="The LoRAs.", min_length=2, max_length=MOST_MERGED)
    weights: tuple[float, ...] = field(
        (), help="How much each counts, in the same order; 1 each if empty.", max_length=MOST_MERGED
    )
    rank: int = field(
        0, help="Rank of the result; 0 keeps all exactly, which adds their ranks up.", ge=0, le=LARGEST_RANK
    )
    name: Name = field("Merged", help="What the result is called.")

    def must_fit_together(self) -> None:
        if self.weights and len(self.weights) != len(self.adapter_ids):
            raise InvalidInput(
                f"There are {len(self.adapter_ids)} LoRAs and {len(self.weights)} weights.",
                "Give each LoRA one weight, or none at all.",
                field="weights",
            )
        if len(set(self.adapter_ids)) < len(self.adapter_ids):
            raise InvalidInput("One LoRA is named twice.", "Name each once.", field="adapter_ids")
        if any(not -4 <= weight <= 4 for weight in self.weights):
            raise InvalidInput("A weight is out of range.", "Weights are -4 to 4.", field="weights")


class ExtractAdapter(Request):
    """A LoRA of what one base has learnt beyond another."""

    base: str = field(help="The base that it is for.", max_length=100)
    tuned: str = field(help="The base that knows more, of the same kind.", max_length=100)
    rank: int = field(32, help="Its rank; what is lost is said.", ge=1, le=LARGEST_RANK)
    name: Name = field("Extracted", help="What it is called.")


class BakeAdapter(Request):
    """A base of one's own that has the LoRA inside."""

    adapter_id: int = field(help="The LoRA.", ge=1)
    weight: float = field(1.0, help="How much it counts.", ge=-4.0, le=4.0)
    name: Name | None = field(None, help="What the base is called; the LoRA's name if empty.")


class BringAdapter(Request):
    """A LoRA file from elsewhere."""

    path: Annotated[str, AfterValidator(clean_path)] = field(help="The safetensors file.")
    base: str = field("", help="The base that it is for; recognised by its layers if empty.", max_length=100)
    name: Name | None = field(None, help="What it is called; its own title if empty.")
    trigger_word: str = field("", help="What calls it; its own word if empty.", max_length=100)
    character_id: int | None = field(None, help="The character that it shows.", ge=1)


class PushAdapter(Request):
    """A LoRA to be put on Hugging Face."""

    adapter_id: int = field(help="The LoRA.", ge=1)
    repo: Annotated[str, AfterValidator(_clean_model)] = field(help="Where it goes on Hugging Face, owner/name.")
    private: bool = field(True, help="Only you, and whom you let in there, can see it.")
    pictures: bool = field(True, help="Also send its sample picture.")
    settings: bool = field(True, help="Also tell how it was trained; captions are never sent.")
