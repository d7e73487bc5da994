"""Forms made from the requests' own descriptions: what is shown is what is enforced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from masuka.requests import Param
from masuka.requests.base import show_number
from masuka.ui.markup import attributes, esc
from masuka.ui.words import choice

Choices = Sequence[tuple[str, str]]
_INTEGER_STEP = 1


def form(name: str, body: str, *, remember: str = "", submit: str = "") -> str:
    """A form whose values an action with `form=name` takes along.

    `remember` is the key under which the browser keeps what was changed from the
    defaults; `submit` names the button that Enter presses.
    """
    given = {"id": name, "class": "form", "data-remember": remember or None, "data-submit": submit or None}
    return f'<form{attributes(given)} novalidate autocomplete="off">{body}</form>'


def field(
    form_name: str,
    param: Param,
    *,
    label: str = "",
    help: str | None = None,
    choices: Choices | None = None,
    value: Any = None,
    rows: int = 1,
    placeholder: str = "",
    wide: bool = False,
) -> str:
    """Label, control, a line of help with range and default, room for an error.

    `choices` turns the field into a list to choose from, as (value, label).
    """
    element_id = f"{form_name}-{param.name}"
    shown = as_text(param.default if value is None else value)
    about = {
        "id": element_id,
        "name": param.name,
        "data-default": shown if choices is not None else as_text(param.default),
        "data-label": label or param.label,
        "aria-describedby": f"{element_id}-help {element_id}-error",
    }
    if param.kind == "bool":
        control = _switch(about, label or param.label, on=shown == "true")
        head = ""
    else:
        control = _control(param, about, shown, choices, rows, placeholder)
        head = (
            f'<div class="row between"><label for="{element_id}">{esc(label or param.label)}</label>'
            f"{_default(param, choices)}</div>"
        )
    help_text = " ".join(
        part for part in (param.help if help is None else help, _range(param, choices)) if part
    )
    return (
        f'<div class="field{" wide" if wide or rows > 1 else ""}">{head}{control}'
        f'<p class="help" id="{element_id}-help">{esc(help_text)}</p>'
        f'<p class="error" id="{element_id}-error" role="alert" hidden></p></div>'
    )


def advanced(form_name: str, groups: Sequence[tuple[str, str]]) -> str:
    """The settings behind one click, in groups, with a count of what was changed."""
    body = "".join(f"<fieldset><legend>{esc(title)}</legend>{fields}</fieldset>" for title, fields in groups)
    return (
        f'<details class="advanced" id="{form_name}-advanced"><summary>Advanced '
        f'<span class="changed" data-changed-of="{form_name}"></span></summary>{body}'
        f'<div class="actions"><button type="button" class="button quiet" data-reset="{form_name}">'
        f"Reset to defaults</button></div></details>"
    )


def grouped(
    params: Mapping[str, Param], leave_out: Sequence[str], first: str
) -> list[tuple[str, list[Param]]]:
    """The other settings by group in their order; the group 'Basic' is called `first`."""
    groups: dict[str, list[Param]] = {}
    for param in params.values():
        if param.name not in leave_out:
            groups.setdefault(first if param.group == "Basic" else param.group, []).append(param)
    return list(groups.items())


def as_text(value: Any) -> str:
    """A value as a control holds it: numbers plain, lists one entry a line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return show_number(value).replace(",", "")
    if isinstance(value, (list, tuple)):
        return "\n".join(str(v) for v in value)
    return str(value)


def _control(
    param: Param, about: Mapping[str, Any], shown: str, choices: Choices | None, rows: int, placeholder: str
) -> str:
    if choices is None and param.choices:
        choices = [(value, choice(value)) for value in param.choices]
    if choices is not None:
        options = "".join(
            f"<option{attributes({'value': value, 'selected': value == shown})}>{esc(text)}</option>"
            for value, text in choices
        )
        return f"<select{attributes(about)}>{options}</select>"
    if rows > 1 or param.kind == "list":
        given = {**about, "rows": max(rows, 2), "placeholder": placeholder or None}
        given["data-list"] = param.kind == "list"
        return f"<textarea{attributes(given)}>{esc(shown)}</textarea>"
    if param.kind in ("int", "float"):
        step = param.step or (_INTEGER_STEP if param.kind == "int" else "any")
        given = {
            **about, "type": "number", "value": shown, "min": param.minimum, "max": param.maximum, "step": step,
            "inputmode": "numeric" if param.kind == "int" else "decimal", "data-range": param.range_sentence,
            "placeholder": placeholder or ("automatic" if param.default is None else None),
        }  # fmt: skip
        return f"<input{attributes(given)}>"
    return (
        f"<input{attributes({**about, 'type': 'text', 'value': shown, 'placeholder': placeholder or None})}>"
    )


def _switch(about: Mapping[str, Any], label: str, *, on: bool) -> str:
    given = {**about, "type": "checkbox", "role": "switch", "checked": on}
    return f'<label class="switch"><input{attributes(given)}><span>{esc(label)}</span></label>'


def _default(param: Param, choices: Choices | None) -> str:
    if param.default is None or param.kind in ("text", "list") or choices is not None:
        return ""
    shown = choice(param.default) if isinstance(param.default, str) else show_number(param.default)
    return f'<span class="default" data-shown-default="{esc(shown)}">{esc(shown)} · default</span>'


def _range(param: Param, choices: Choices | None) -> str:
    if choices is not None or param.choices or not param.range_sentence:
        return ""
    text = param.range_sentence
    return text[0].upper() + text[1:] + "."
