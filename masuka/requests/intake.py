"""Requests about pictures from elsewhere: links, and data sets of Hugging Face."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.text import without_control

MOST_LINKS = 2000
SENT = "sent-"
"""Begins the names of the folders in which an upload puts files, each with a number."""
_SENT = re.compile(rf"{SENT}\d+/")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_PAGE = re.compile(r"(https?://)?(www\.)?(huggingface\.co|hf\.co)/", re.IGNORECASE)
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]{0,199}")


def given_name(name: str) -> str:
    """The name that a person gave a file, without the folder that an upload put it in."""
    return _SENT.sub("", name, count=1) if _SENT.match(name) else name


def clean_repo(text: str) -> str:
    """The name of a Hugging Face data set, owner/name; its address is understood too."""
    name = _PAGE.sub("", without_control(text).strip()).removeprefix("datasets/").strip("/")
    name = "/".join(name.split("/")[:2])
    if not _REPO.fullmatch(name) or ".." in name or "--" in name:
        raise InvalidInput(
            "This is no name of a Hugging Face data set.", "Write owner/name, for example mira/portraits.",
            field="repo",
        )  # fmt: skip
    return name


def _clean_links(text: str) -> str:
    lines = [without_control(line).strip() for line in text.splitlines()]
    links = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not links:
        raise InvalidInput("There is no link.", "Write one address a line.", field="links")
    if len(links) > MOST_LINKS:
        raise InvalidInput(
            f"These are {len(links):,} links.", f"At most {MOST_LINKS:,} are taken at once.", field="links"
        )
    return "\n".join(links)


def _clean_revision(text: str | None) -> str | None:
    cleaned = without_control(text or "").strip()
    if cleaned and (not _REVISION.fullmatch(cleaned) or ".." in cleaned):
        raise InvalidInput(
            "This is no version of a data set.", "Write a branch, a tag or a commit.", field="revision"
        )
    return cleaned or None


Repo = Annotated[str, AfterValidator(clean_repo)]


class AddLinks(Request):
    """Pictures to fetch from addresses of the web."""

    dataset_id: int = field(help="The data set that gets them.", ge=1)
    links: Annotated[str, AfterValidator(_clean_links)] = field(
        help="One address of a picture a line; http and https, on the public web."
    )


class AddFromHub(Request):
    """Pictures to fetch from a data set of Hugging Face, with their captions."""

    dataset_id: int = field(help="The data set that gets them.", ge=1)
    repo: Repo = field(help="The name of the data set on Hugging Face, owner/name.")
    revision: Annotated[str | None, AfterValidator(_clean_revision)] = field(
        None, help="A branch, tag or commit; empty takes the newest."
    )
