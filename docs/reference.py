"""Writes docs/reference.md: every command, every setting, every variable, from the code itself.

    python docs/reference.py

A test compares the file with what this module would write.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import typer.main  # noqa: E402 - the project's folder has to be on the path first

from masuka.cli import app  # noqa: E402
from masuka.families import FAMILIES  # noqa: E402
from masuka.requests.adapters import (  # noqa: E402
    BakeAdapter,
    BringAdapter,
    ConvertAdapter,
    ExtractAdapter,
    MergeAdapters,
    PushAdapter,
    ResizeAdapter,
)
from masuka.requests.base import Param, Request, params, show_number  # noqa: E402
from masuka.requests.captions import CaptionPictures  # noqa: E402
from masuka.requests.datasets import (  # noqa: E402
    AddPictures,
    CreateCharacter,
    CreateDataset,
    EditCaptions,
    UpdateDataset,
)
from masuka.requests.doctor import KeepBest, LookAfter  # noqa: E402
from masuka.requests.edits import Augment, PictureEdits  # noqa: E402
from masuka.requests.exchange import ExportDataset, PushDataset  # noqa: E402
from masuka.requests.images import DrawImages  # noqa: E402
from masuka.requests.intake import AddFromHub, AddLinks  # noqa: E402
from masuka.requests.people import InvitePerson, NewPerson  # noqa: E402
from masuka.requests.sweeps import SweepTraining  # noqa: E402
from masuka.requests.training import TrainImage  # noqa: E402

FILE = ROOT / "docs" / "reference.md"
REQUESTS: tuple[type[Request], ...] = (
    CreateCharacter, CreateDataset, UpdateDataset, AddPictures, EditCaptions, CaptionPictures, PictureEdits, Augment, LookAfter,
    KeepBest, AddLinks, AddFromHub, ExportDataset, PushDataset, TrainImage, SweepTraining, DrawImages,
    ConvertAdapter, ResizeAdapter, MergeAdapters, ExtractAdapter, BakeAdapter, BringAdapter, PushAdapter, NewPerson, InvitePerson,
)  # fmt: skip
VARIABLES = {
    "MASUKA_HOME": "The workspace: the folder of everything MASUKA keeps. Default: the system's place for data.",
    "MASUKA_VAULT": "The vault: a folder elsewhere in which everything is kept. Without it nothing is.",
    "MASUKA_HOST": "The address the app listens on. Default 127.0.0.1, this machine alone.",
    "MASUKA_PORT": "The port of the app. Default 7860; 0 picks a free one.",
    "MASUKA_ALLOWED_HOSTS": "Host names, with commas between, under which the page may be opened.",
    "MASUKA_DEVICE": "Where jobs run: auto, cpu, cuda or mps. Default auto.",
    "MASUKA_LOG_LEVEL": "How much is logged: DEBUG, INFO, WARNING. Default INFO.",
    "MASUKA_OPEN_BROWSER": "1 opens the page in a browser at the start.",
    "MASUKA_REPOSITORY": "Where colab_setup.py gets the code from, instead of where it is published.",
    "MASUKA_PLATFORM": "The host outright: colab, kaggle or docker. A notebook tells it to the app that it starts.",
    "MASUKA_PYTHON": "The interpreter that colab_setup.py sets up, instead of a private environment.",
    "DATABASE_URL": "A database file elsewhere, as sqlite:/// and a path (from MASUKA 2).",
    "MEDIA_DIR": "A folder elsewhere for pictures (from MASUKA 2).",
    "HF_TOKEN": "The key of the Hugging Face hub, for bases that want an account.",
    "CIVITAI_API_KEY": "Kept for CivitAI.",
    "GOOGLE_API_KEY": "Kept for Google.",
    "FAL_KEY": "Kept for FAL.",
    "COMET_API_KEY": "Kept for Comet.",
    "TOGETHER_API_KEY": "Kept for Together.",
    "OPENAI_API_KEY": "Kept for OpenAI.",
    "RUNWAYML_API_SECRET": "Kept for Runway.",
    "REPLICATE_API_TOKEN": "Kept for Replicate.",
    "CIVITAI_BASE_URL": "Another address of CivitAI's than civitai.com; its key is sent there alone.",
    "OPENAI_BASE_URL": "The address of a service that speaks OpenAI's language. Default: OpenAI's own.",
    "MASUKA_LOCAL_ADDRESSES": "Hosts of your own, such as localhost:11434, that an address typed in Settings may lead to.",
    "NGROK_AUTHTOKEN": "ngrok's authtoken: with it a link for collaborators is opened at the start.",
    "CLOUDFLARED_TOKEN": "The token of a named Cloudflare tunnel that leads to the app's port.",
    "CLOUDFLARED_HOST": "The public host name of that tunnel.",
    "MASUKA_SHARE": "How a link for collaborators is opened: auto, off, ngrok, gradio, cloudflared. Default auto.",
    "NGROK_DOMAIN": "Your stable ngrok domain; default: the one that ngrok gave your account.",
    "PYNGROK_NGROK_PATH": "The ngrok program, where it is installed already.",
    "SECRET_KEY": "The key of a MASUKA 2 installation; opens its stored keys when they are imported.",
    "ENABLE_AUTH": "Accepted from MASUKA 2, without effect: the page is never open to strangers.",
    "ALLOW_REGISTRATION": "1 lets strangers make themselves an account. Default: by invite only.",
    "MASUKA_OWNER_PASSWORD": "The owner's password, set at the start; for a Space's secrets.",
    "MASUKA_TRUSTED_PROXIES": "Addresses or networks of proxies whose X-Forwarded-For is believed, with commas.",
}


def text() -> str:
    """The whole file."""
    return "\n".join([*_head(), *_commands(), *_settings(), *_bases(), *_variables()]) + "\n"


def _head() -> Iterator[str]:
    yield "# Reference"
    yield ""
    yield "Written by `python docs/reference.py` from the code; a test keeps it true."
    yield ""


def _commands() -> Iterator[str]:
    yield "## Commands"
    yield ""
    yield "`python -m masuka COMMAND`; each takes `--json` and `--help`."
    yield ""
    yield "| command | what it does |"
    yield "|---|---|"
    for name, about in walk(typer.main.get_command(app)):
        yield f"| `masuka {name}` | {about} |"
    yield ""


def walk(command: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """(name with its arguments, first line of help) of every command."""
    for name, found in command.commands.items():
        full = f"{before} {name}".strip()
        if hasattr(found, "commands"):
            yield from walk(found, full)
        else:
            arguments = [p.name.upper() for p in found.params if p.param_type_name == "argument"]
            yield " ".join([full, *arguments]), (found.help or "").split("\n")[0]


def _settings() -> Iterator[str]:
    yield "## Settings"
    yield ""
    yield "The same in the app, on the command line and in Python. A base narrows some of them, see below."
    for request in REQUESTS:
        yield ""
        yield f"### {request.__name__}"
        yield ""
        yield (request.__doc__ or "").strip().split("\n")[0]
        yield ""
        yield "| setting | what it is | range | default |"
        yield "|---|---|---|---|"
        for name, param in params(request).items():
            yield f"| `{name}` | {_cell(param.help)} | {_cell(param.range_sentence)} | {default(param)} |"
    yield ""


def _bases() -> Iterator[str]:
    yield "## What each base narrows"
    for family in FAMILIES.values():
        for entry in family.entries:
            yield ""
            yield f"### {entry.title} (`{entry.id}`)"
            yield ""
            yield "| for | setting | range | default |"
            yield "|---|---|---|---|"
            for task, request, limits in (
                ("training", TrainImage, entry.train_limits),
                ("drawing", DrawImages, entry.draw_limits),
            ):
                described = params(request, limits)
                for name in limits:
                    param = described[name]
                    yield f"| {task} | `{name}` | {_cell(param.range_sentence)} | {default(param)} |"
    yield ""


def _variables() -> Iterator[str]:
    yield "## Environment variables"
    yield ""
    yield "Read at the start, also from a file `.env` in the working directory."
    yield ""
    yield "| variable | what it is |"
    yield "|---|---|"
    for name, about in VARIABLES.items():
        yield f"| `{name}` | {about} |"


def default(param: Param) -> str:
    """A default as a person reads it."""
    value = param.default
    if param.required:
        return "needed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return show_number(value)
    return "" if value in (None, (), "") else _cell(str(value))


def _cell(value: str) -> str:
    return value.replace("|", "\\|")


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
