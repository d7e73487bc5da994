"""How a command is made: its options, its `--json`, its studio, its one error edge.

A command is a plain function that gets a studio and values and gives back an `Answer`.
Options of a request come from the request itself, so they say what is enforced.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from masuka import logs
from masuka.config import Settings, apply_quiet_environment
from masuka.errors import MasukaError
from masuka.hosting.runtime import detect
from masuka.hosting.space import settled
from masuka.requests.base import Param, Request, params, show_number
from masuka.store.jobs import Job
from masuka.studio import Studio

FAILED = 1
INNER_JOB_FIELDS = frozenset({"params", "pid", "pid_started", "fence", "events_offset", "events_seen", "change"})
"""What a job's row keeps for the supervisor; nobody outside should rely on it."""
INTERRUPTED = 130
TYPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "text": str, "choice": str, "list": list[str]}
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a command found: `data` for --json, `text` for a person."""

    data: Any
    text: str
    code: int = 0


def command(
    group: typer.Typer,
    name: str,
    *,
    request: type[Request] | None = None,
    omit: tuple[str, ...] = (),
    argument: str = "",
    by_base: frozenset[str] = frozenset(),
) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Adds the function to the group under that name.

    A parameter `studio` or `settings` is filled in; `as_json` tells the function whether
    --json was given; with a `request`, its fields become options and arrive as the
    mapping `values` (only what was given). `argument` names the one field that needs no
    option's name; `by_base` are those whose range and default each base states itself.
    """

    def decorate(function: Callable[..., Answer]) -> Callable[..., Answer]:
        own = inspect.signature(function, eval_str=True).parameters
        shown = [p for n, p in own.items() if n not in ("studio", "settings", "values", "as_json")]
        fields = _request_options(request, omit, argument, by_base) if request else []
        names = [p.name for p in fields]

        def run(**given: Any) -> None:
            as_json = bool(given.pop("as_json"))
            values = {n: given.pop(n) for n in names}
            extra: dict[str, Any] = {"as_json": as_json} if "as_json" in own else {}
            if request:
                extra["values"] = {n: v for n, v in values.items() if v not in (None, [])}
            with _errors_in_words(as_json):
                _print(_call(function, own, {**given, **extra}), as_json)

        json_option = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in [*fields, *shown]]
        run.__dict__["__signature__"] = inspect.Signature([*parameters, json_option])
        run.__annotations__ = {p.name: p.annotation for p in [*parameters, json_option]}
        run.__doc__ = function.__doc__
        group.command(name)(run)
        return function

    return decorate


@contextmanager
def opened(settings: Settings) -> Iterator[Studio]:
    """An open studio whose notices were told on stderr."""
    with Studio.open(settings) as studio:
        for notice in studio.notices:
            print(notice, file=sys.stderr)
        yield studio


def plain(value: Any) -> Any:
    """The value as JSON-ready data: rows become objects, paths become text."""
    if isinstance(value, Job):
        return {k: plain(v) for k, v in asdict(value).items() if k not in INNER_JOB_FIELDS}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def option_help(param: Param, *, by_base: bool = False) -> str:
    """The help of one option: what it is, its range, its default."""
    parts = [param.help.rstrip(".") + "."]
    if by_base:
        return f"{parts[0]} Range and default are the base's."
    if param.range_sentence:
        parts.append(f"{param.range_sentence[0].upper()}{param.range_sentence[1:]}.")
    if param.default not in (None, "", (), False):
        default = show_number(param.default) if isinstance(param.default, (int, float)) else str(param.default)
        parts.append(f"Default {'yes' if param.default is True else default}.")
    return " ".join(parts)


def _request_options(
    request: type[Request], omit: tuple[str, ...], argument: str, by_base: frozenset[str]
) -> list[inspect.Parameter]:
    options = []
    for name, param in params(request).items():
        if name in omit:
            continue
        kind = TYPES[param.kind]
        text = option_help(param, by_base=name in by_base)
        info: Any
        if name == argument:
            info = typer.Argument(help=text)
        elif param.required:
            info = typer.Option(..., *_flags(name, param), help=text)
        else:
            kind = kind | None
            info = typer.Option(None, *_flags(name, param), help=text, show_default=False)
        options.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=info, annotation=kind)
        )
    return options


def _flags(name: str, param: Param) -> list[str]:
    dashed = name.replace("_", "-")
    if param.kind == "bool":
        return [f"--{dashed}/--no-{dashed}"]
    # --dataset 3 reads better than --dataset-id 3; both work.
    return [f"--{dashed}", f"--{dashed.removesuffix('-id')}"] if dashed.endswith("-id") else [f"--{dashed}"]


def _call(function: Callable[..., Answer], own: Mapping[str, Any], given: dict[str, Any]) -> Answer:
    settings = settled(Settings.from_environment(), detect())
    apply_quiet_environment(settings.workspace)
    logs.configure(settings, screen=False)
    if "settings" in own:
        given["settings"] = settings
    if "studio" not in own:
        return function(**given)
    with opened(settings) as studio:
        return function(studio=studio, **given)


def _print(answer: Answer, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plain(answer.data), indent=2, ensure_ascii=False, default=str))
    elif answer.text:
        print(answer.text)
    if answer.code:
        raise typer.Exit(answer.code)


@contextmanager
def _errors_in_words(as_json: bool) -> Iterator[None]:
    """Turns an error into one sentence (or one JSON object) and an exit code."""
    try:
        yield
    except MasukaError as error:
        _tell(error.as_dict(), str(error), as_json)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        print("\nStopped.", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from error
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError as error:
        # Whoever reads our output has seen enough (| head); nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from error
    except Exception as error:
        reference = secrets.token_hex(4)
        log.exception("a command failed, reference %s", reference)
        text = f"Something went wrong that should not. Reference {reference}; the log has the details."
        _tell({"type": "Bug", "message": text, "hint": "", "reference": reference}, text, as_json)
        raise typer.Exit(FAILED) from error


def _tell(error: Mapping[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": dict(error)}, indent=2, ensure_ascii=False))
    else:
        print(logs.redact(text), file=sys.stderr)
