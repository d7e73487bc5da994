"""Small pieces of HTML; every value that comes in is escaped here, once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Literal
from urllib.parse import urlencode

VERSION_DIGITS = 16
THIS_RUN = secrets.token_hex(4)
"""Tells one run of the app from the next."""
Look = Literal["primary", "primary wide", "plain", "quiet", "danger"]


def esc(value: object) -> str:
    """The value as text, safe inside elements and quoted attributes."""
    return escape(str(value), quote=True)


def attributes(values: Mapping[str, Any]) -> str:
    """' a="1" b' for HTML; None and False are left out, True stands alone."""
    parts = []
    for name, value in values.items():
        if value is True:
            parts.append(f" {name}")
        elif value is not None and value is not False:
            parts.append(f' {name}="{esc(value)}"')
    return "".join(parts)


def button(
    label: str,
    do: str,
    *,
    look: Look = "plain",
    form: str = "",
    selection: str = "",
    confirm: str = "",
    detail: str = "",
    yes: str = "",
    name: str = "",
    disabled: bool = False,
    **payload: Any,
) -> str:
    """A button that performs an action with this payload.

    `form` adds that form's values, `selection` the chosen ids of that grid. With
    `confirm` the page asks first, naming in `detail` what goes.
    """
    given = {
        "type": "button",
        "class": f"button {look}",
        "data-do": do,
        "data-with": json.dumps(payload) if payload else None,
        "data-form": form or None,
        "data-selection": selection or None,
        "data-confirm": confirm or None,
        "data-detail": detail or None,
        "data-yes": (yes or label) if confirm else None,
        "id": name or None,
        "disabled": disabled,
    }
    return f"<button{attributes(given)}>{esc(label)}</button>"


def go(label: str, *, look: Look | Literal["link"] = "link", name: str = "", **view: Any) -> str:
    """A link to another view of the page; `None` values clear what was chosen."""
    classes = "" if look == "link" else f"button {look}"
    given = {"class": classes or None, "href": address(**view), "data-go": True, "id": name or None}
    return f"<a{attributes(given)}>{esc(label)}</a>"


def address(**view: Any) -> str:
    """The relative address of a view, for example '?tab=images&adapter=3'."""
    return "?" + urlencode({k: "" if v is None else v for k, v in view.items()})


def download(label: str, path: str, *, look: Look | Literal["link"] = "plain") -> str:
    """A link that saves a file; `path` is one of the app's own routes."""
    classes = "" if look == "link" else f"button {look}"
    return f"<a{attributes({'class': classes or None, 'href': path, 'download': True})}>{esc(label)}</a>"


def chip(text: str, mood: str = "") -> str:
    """A word about a state, with a shape of its own: status is never colour alone."""
    return f'<span class="chip {esc(mood)}">{esc(text)}</span>'


def picture(src: str, alt: str, *, classes: str = "") -> str:
    """A square thumbnail that loads when it comes into view."""
    given = {"class": classes or None, "src": src, "alt": alt, "loading": "lazy", "decoding": "async"}
    return f"<img{attributes(given)}>"


def media(kind: str, media_id: int, *, thumbnail: bool = False, sha256: str = "") -> str:
    """The address of a picture, item, sample or preview.

    A thumbnail may be kept where its address changes with it: a picture's by its
    `sha256`, a finished item's by the app's own mark, for an item never changes while
    the app runs, but after a restore the same number may be another one's.
    """
    version = THIS_RUN if kind == "item" else sha256[:VERSION_DIGITS]
    kept = f"&v={version}" if version else ""
    return f"media/{kind}/{media_id}" + (f"?thumb=1{kept}" if thumbnail else "")


def bar(step: int, total: int, label: str) -> str:
    """A true bar; without a total it says that the length is not known yet."""
    known = {"max": total, "value": min(step, total)} if total > 0 else {}
    return f"<progress{attributes({**known, 'aria-label': label})}></progress>"


def empty(drawing: str, sentence: str, action: str = "") -> str:
    """What stands where nothing is yet: a drawing, one sentence, one button."""
    return (
        f'<div class="empty"><img src="drawing/{esc(drawing)}" alt="" width="128" height="128">'
        f"<p>{esc(sentence)}</p>{action}</div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of names and values; values are HTML already."""
    rows = "".join(f"<div><dt>{esc(name)}</dt><dd>{value}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts">{rows}</dl>'


def card(body: str, *, classes: str = "", title: str = "", aside: str = "") -> str:
    """A surface with a hairline; `title` is a heading, `aside` stands at its right."""
    head = f'<div class="row between"><h2>{esc(title)}</h2>{aside}</div>' if title or aside else ""
    return f'<section class="card {esc(classes)}">{head}{body}</section>'


def disclosure(summary: str, body: str, *, name: str, opened: bool = False) -> str:
    """Something behind one click; the page remembers whether it was open."""
    return (
        f"<details{attributes({'id': name, 'open': opened})}>"
        f"<summary>{esc(summary)}</summary>{body}</details>"
    )
