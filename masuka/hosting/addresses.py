"""What the running app says about its addresses, and what it is asked to do with them.

Two small files in the workspace's secrets folder, for its owner only: the notebook, the
command line and the page read the one and write the other, the app does the reverse.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal

import psutil

from masuka.config import Workspace
from masuka.errors import Conflict, InvalidInput
from masuka.hosting.tunnels import ORDER
from masuka.hosting.tunnels.agents import write_secret

State = Literal["closed", "opening", "open", "failed"]
ANSWER_S = 150.0
"""Longer than all ways of opening a link take together."""
_WISH = "share.json"
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Addresses:
    """Where the running app is reached; `address` is '' while none runs.

    `message` and `hint` say why a link is not open.
    `answered` is the id of the last wish that was carried out.
    """

    state: State = "closed"
    address: str = ""
    public_url: str = ""
    provider: str = ""
    message: str = ""
    hint: str = ""
    month: str = ""
    requests: int = 0
    bytes: int = 0
    answered: str = ""
    pid: int = 0
    pid_started: float = 0.0
    updated_at: str = ""


@dataclass(frozen=True)
class Wish:
    """What somebody wants of the running app: its link opened (by one way) or closed."""

    id: str
    want: Literal["open", "close"]
    provider: str = ""


def read(workspace: Workspace) -> Addresses:
    """What the app says; an empty one when no app of this workspace runs."""
    told = _json(workspace.address.read_text(encoding="utf-8")) if workspace.address.is_file() else {}
    known = {f.name for f in fields(Addresses)}
    if not told or not set(told) <= known:
        return Addresses()
    found = Addresses(**told)
    return found if _runs(found) else Addresses()


def write(workspace: Workspace, addresses: Addresses) -> None:
    """Tells the addresses, as those of this process."""
    me = psutil.Process()
    told = asdict(addresses) | {
        "pid": me.pid, "pid_started": me.create_time(), "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_secret(workspace.address, json.dumps(told))


def forget(workspace: Workspace) -> None:
    """No app of this workspace answers any more."""
    workspace.address.unlink(missing_ok=True)
    (workspace.secrets / _WISH).unlink(missing_ok=True)


def ask(workspace: Workspace, want: Literal["open", "close"], *, provider: str = "") -> Wish:
    """The wish that the running app will find; raises Conflict when no app runs."""
    if provider and provider not in ORDER:
        raise InvalidInput(
            f"{provider!r} is no way to open a link.", f"Use one of {', '.join(ORDER)}.", field="provider"
        )
    if not read(workspace).address:
        raise Conflict("The app is not running.", "Start it first: masuka serve")
    wish = Wish(secrets.token_hex(8), want, provider)
    write_secret(workspace.secrets / _WISH, json.dumps(asdict(wish)))
    return wish


def take_wish(workspace: Workspace) -> Wish | None:
    """The newest wish, once; None when there is none or it cannot be read."""
    file = workspace.secrets / _WISH
    if not file.is_file():
        return None
    taken = file.with_suffix(".taken")
    file.replace(taken)  # a newer one that comes now is found the next time
    told = _json(taken.read_text(encoding="utf-8"))
    taken.unlink()
    if told.get("want") not in ("open", "close") or told.get("provider", "") not in ("", *ORDER):
        return None
    return Wish(str(told.get("id", "")), told["want"], told.get("provider", ""))


def answer_to(workspace: Workspace, wish: Wish, *, timeout_s: float = ANSWER_S) -> Addresses:
    """What the app says once it has carried out the wish, or has had the time to."""
    until = time.monotonic() + timeout_s
    while True:
        found = read(workspace)
        if found.answered == wish.id or not found.address or time.monotonic() >= until:
            return found
        time.sleep(_LOOK_EVERY_S)


def _runs(found: Addresses) -> bool:
    if found.pid == os.getpid():
        return True
    try:
        started = float(psutil.Process(found.pid).create_time())
    except (psutil.NoSuchProcess, ValueError):
        return False
    return abs(started - found.pid_started) < 1


def _json(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
