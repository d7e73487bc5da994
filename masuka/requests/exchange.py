"""Requests about data sets that go elsewhere: as a zip, and to Hugging Face."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.intake import Repo
from masuka.requests.text import clean_prompt

Layout = Literal["zip", "kohya", "imagefolder"]
Licence = Literal[
    "other", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-nc-nd-4.0", "mit", "apache-2.0", "openrail",
]  # fmt: skip


def _clean_consent(text: str) -> str:
    cleaned = clean_prompt(text, field="consent", longest=500)
    if not cleaned:
        raise InvalidInput(
            "It is not said who agreed that these pictures are shared.",
            "Write who is shown and that they agreed, or that nobody is shown.",
            field="consent",
        )
    return cleaned


class ExportDataset(Request):
    """A data set as one zip."""

    dataset_id: int = field(help="The data set.", ge=1)
    layout: Layout = field(
        "zip",
        help="Pictures with captions beside them, kohya's folder, or an imagefolder with metadata.jsonl.",
    )


class PushDataset(Request):
    """A data set to be put on Hugging Face."""

    dataset_id: int = field(help="The data set.", ge=1)
    repo: Repo = field(help="Where it goes on Hugging Face, owner/name.")
    private: bool = field(True, help="Only you, and whom you let in there, can see it.")
    licence: Licence = field(help="Under which terms others may use the pictures.")
    consent: Annotated[str, AfterValidator(_clean_consent)] = field(
        help="Who is shown, and that they agreed to this; at most 500 characters."
    )
