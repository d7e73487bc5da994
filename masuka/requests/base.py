"""What every request has in common: strict values, one sentence per refusal, and a
description (range, default, help, unit) that form, command line and messages read.

A family narrows a range with a `Limit`; the limit that is described is the one enforced.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, Self, TypeVar, Union

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from masuka.errors import InvalidInput

RequestT = TypeVar("RequestT", bound="Request")
Number = int | float
_LENGTHS = {
    "too_long": "at most",
    "string_too_long": "at most",
    "too_short": "at least",
    "string_too_short": "at least",
}
"""Pydantic's names of refusals for the length of a list or a text."""


@dataclass(frozen=True)
class Limit:
    """A family's own range and default for one field; None keeps the request's."""

    minimum: Number | None = None
    maximum: Number | None = None
    step: Number | None = None
    default: Any = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Param:
    """What a form, a command line and a message need to know about one field."""

    name: str
    label: str
    help: str
    kind: Literal["int", "float", "bool", "text", "choice", "list"]
    default: Any
    required: bool
    minimum: Number | None
    maximum: Number | None
    step: Number | None
    choices: tuple[str, ...]
    unit: str
    group: str

    @property
    def range_sentence(self) -> str:
        """The enforced limits in words, for example '1 to 100 steps'; '' without any."""
        unit = f" {self.unit}" if self.unit else ""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is not None and self.maximum is not None:
            if self.minimum == self.maximum:
                return f"always {show_number(self.minimum)}{unit}"
            text = f"{show_number(self.minimum)} to {show_number(self.maximum)}{unit}"
        elif self.minimum is not None:
            text = f"at least {show_number(self.minimum)}{unit}"
        elif self.maximum is not None:
            text = f"at most {show_number(self.maximum)}{unit}"
        else:
            return ""
        return f"{text}, in steps of {show_number(self.step)}" if self.step else text


class Request(BaseModel):
    """A validated, immutable request; `parse` accepts a mapping or an object."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True, strict=False)

    @classmethod
    def parse(cls, values: Any, *, limits: Mapping[str, Limit] | None = None) -> Self:
        """The request that the values describe, within the family's limits.

        `values` is a mapping, an object with the fields as attributes, or such a request.
        Fields that are missing take the family's default, then the request's own.
        Raises InvalidInput, naming the first field that is wrong and its range; the
        sanitisers of `requests.text` raise their own through pydantic unchanged.
        """
        limits = limits or {}
        if isinstance(values, Request):
            values = values.model_dump(exclude_unset=True)
        elif not isinstance(values, Mapping):
            values = {n: getattr(values, n) for n in cls.model_fields if hasattr(values, n)}
        family = {n: v.default for n, v in limits.items() if v.default is not None}
        values = {**family, **{k: v for k, v in values.items() if v is not None}}
        try:
            request = cls.model_validate(values)
        except ValidationError as error:
            raise _first_refusal(cls, error, limits) from error
        for name, limit in limits.items():
            _enforce(cls, request, name, limit, limits)
        request.must_fit_together()
        return request

    def must_fit_together(self) -> None:
        """Raises InvalidInput for values that are right alone and wrong beside each other.

        Asked when each value is in its range: which one is out of it, is said first.
        """

    def as_dict(self) -> dict[str, Any]:
        """The request as JSON-ready values; `parse` gives the same request back."""
        return self.model_dump(mode="json")


def field(
    default: Any = ...,
    *,
    help: str,
    label: str = "",
    unit: str = "",
    group: str = "Basic",
    **constraints: Any,
) -> Any:
    """A request field with its help text, unit and the form group it belongs to."""
    about: JsonDict = {"label": label, "unit": unit, "group": group}
    if default is ...:
        return Field(description=help, json_schema_extra=about, **constraints)
    return Field(default, description=help, json_schema_extra=about, **constraints)


def params(request_type: type[Request], limits: Mapping[str, Limit] | None = None) -> dict[str, Param]:
    """Every field described, in the request's order, within the family's limits."""
    limits = limits or {}
    return {
        name: _param(name, info, limits.get(name, Limit()))
        for name, info in request_type.model_fields.items()
    }


def show_number(value: Number | None) -> str:
    """A number as a person reads it: 1,000 or 0.0001, never 1e-04."""
    if value is None:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if abs(value) >= 10**15:
        digits = math.ceil(math.log10(abs(value)))
        return f"a number of about {digits:,} digits"
    if value == int(value):
        return f"{int(value):,}"
    return f"{Decimal(repr(value)):f}"


def _param(name: str, info: FieldInfo, limit: Limit) -> Param:
    about = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    kind, choices = _kind(info.annotation)
    default = None if info.default is PydanticUndefined else info.default
    if info.default_factory is not None:
        default = info.get_default(call_default_factory=True, validated_data={})
    low = next((m.ge if isinstance(m, Ge) else m.gt for m in info.metadata if isinstance(m, (Ge, Gt))), None)
    high = next((m.le if isinstance(m, Le) else m.lt for m in info.metadata if isinstance(m, (Le, Lt))), None)
    step = next((m.multiple_of for m in info.metadata if isinstance(m, MultipleOf)), None)
    return Param(
        name=name,
        label=str(about.get("label") or name.replace("_", " ").capitalize()),
        help=info.description or "",
        kind=kind,
        default=default if limit.default is None else limit.default,
        required=info.is_required() and limit.default is None,
        minimum=_tighter(max, typing.cast(Number | None, low), limit.minimum),
        maximum=_tighter(min, typing.cast(Number | None, high), limit.maximum),
        step=typing.cast(Number | None, step) if limit.step is None else limit.step,
        choices=limit.choices or choices,
        unit=str(about.get("unit") or ""),
        group=str(about.get("group") or "Basic"),
    )


def _tighter(
    choose: Callable[[Number, Number], Number], own: Number | None, family: Number | None
) -> Number | None:
    """The bound that is enforced: a family narrows a range and cannot widen it."""
    if own is None or family is None:
        return family if own is None else own
    return choose(own, family)


def _kind(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    if typing.get_origin(annotation) is Literal:
        return "choice", tuple(str(c) for c in typing.get_args(annotation))
    if typing.get_origin(annotation) in (tuple, list):
        return "list", ()
    return {bool: "bool", int: "int", float: "float"}.get(annotation, "text"), ()


def _enforce(
    cls: type[Request], request: Request, name: str, limit: Limit, limits: Mapping[str, Limit]
) -> None:
    value = getattr(request, name, None)
    if value is None:
        return
    wrong = (
        (limit.minimum is not None and value < limit.minimum)
        or (limit.maximum is not None and value > limit.maximum)
        or (limit.choices is not None and str(value) not in limit.choices)
        or (limit.step is not None and value % limit.step != 0)
    )
    if wrong:
        raise _refusal(params(cls, limits)[name], value)


def _refusal(param: Param, value: Any) -> InvalidInput:
    shown = show_number(value) if isinstance(value, (int, float)) else _shortened(value)
    return InvalidInput(f"{param.label} is {shown}.", f"It must be {param.range_sentence}.", field=param.name)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _first_refusal(cls: type[Request], error: ValidationError, limits: Mapping[str, Limit]) -> InvalidInput:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    described = params(cls, limits)
    if first["type"] == "extra_forbidden" or name not in described:
        known = ", ".join(described)
        return InvalidInput(f"There is no setting {name!r}.", f"Known are: {known}.", field=name)
    param = described[name]
    if first["type"] in _LENGTHS:
        limit = first["ctx"].get("max_length", first["ctx"].get("min_length"))
        unit = "characters" if first["type"].startswith("string") else "entries"
        count = first["ctx"].get("actual_length") or len(first["input"])
        return InvalidInput(
            f"{param.label} has {count:,} {unit}.",
            f"It must have {_LENGTHS[first['type']]} {limit:,}.",
            field=name,
        )
    if first["type"] == "missing":
        return InvalidInput(f"{param.label} is missing.", param.help, field=name)
    if param.range_sentence and param.kind != "list":
        return _refusal(param, first["input"])
    if first["type"] in ("float_parsing", "int_parsing"):
        wrong = str(first["input"])[:40]
        return InvalidInput(f"{param.label}: {wrong!r} is no number.", param.help, field=name)
    return InvalidInput(f"{param.label}: {first['msg']}.", param.help, field=name)
