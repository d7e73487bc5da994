"""Requests about people: names, invites. Passwords are judged in `masuka.access.password`."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator

from masuka.errors import InvalidInput
from masuka.requests.base import Request, field
from masuka.requests.text import clean_name, without_control

_USERNAME = re.compile(r"[^\W_][\w.\- ]{0,38}[\w.\-]", re.UNICODE)
MOST_SHARED = 200


def clean_username(text: str, *, field: str = "username") -> str:
    """A person's name to sign in with: 2–40 letters, digits, blanks, '.', '-', '_'."""
    name = unicodedata.normalize("NFKC", clean_name(text, field=field))
    if not _USERNAME.fullmatch(name):
        raise InvalidInput(
            "This cannot be a name to sign in with.",
            "Use 2 to 40 letters, digits, blanks, '.', '-' or '_', a letter or digit first.",
            field=field,
        )
    if name.isdigit():
        raise InvalidInput(
            "A name to sign in with cannot be a number.", "Add a letter.", field=field
        )  # fmt: skip
    return name


def typed_name(text: str) -> str:
    """A name as somebody typed it to sign in, written as `clean_username` writes it."""
    return unicodedata.normalize("NFKC", " ".join(without_control(text, keep="\t\n\r").split()))[:100]


def _clean_note(text: str) -> str:
    return clean_name(text, field="note") if text.strip() else ""


class InvitePerson(Request):
    """An invite: one person may come in with it, once."""

    role: Literal["viewer", "editor"] = field(
        "viewer", help="A viewer looks; an editor also makes, changes and deletes."
    )
    share: Literal["everything", "characters", "nothing"] = field(
        "everything", help="What they see of yours: everything, some characters, or nothing."
    )
    character_ids: Annotated[tuple[int, ...], AfterValidator(lambda ids: tuple(dict.fromkeys(ids)))] = field(
        (), help="The characters that are shared, with all that belongs to them.", max_length=MOST_SHARED
    )
    days: int = field(7, help="How long the link is good for.", ge=1, le=30, unit="days")
    note: Annotated[str, AfterValidator(_clean_note)] = field("", help="For you: whom it is for.", max_length=100)


class NewPerson(Request):
    """The name under which a person signs in."""

    username: Annotated[str, AfterValidator(clean_username)] = field(help="The name to sign in with.")
