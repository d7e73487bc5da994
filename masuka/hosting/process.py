"""The app as a process of its own: start it, find it again, stop it; exactly one.

Standard library only, for a notebook's kernel. A record beside the code says which process
is ours; its start time is part of it, because numbers of processes are used again.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from masuka.config import child_environment
from masuka.errors import Conflict, MasukaError, RemoteUnavailable

RECORD = "app.json"
STOP_PATIENCE_S = 120.0
"""Closing saves first, and a slow Drive takes its time."""
START_PATIENCE_S = 300.0
HOST = "127.0.0.1"
_children: dict[int, subprocess.Popen[bytes]] = {}
"""Apps that this very process started; an ended one is a zombie until it is asked about."""


@dataclass(frozen=True)
class AppProcess:
    """A process that shows the page; `mark` tells code and settings apart."""

    pid: int
    started: str
    port: int
    mark: str


def running(state: Path) -> AppProcess | None:
    """The app that was started from here and still lives."""
    try:
        app = AppProcess(**json.loads((state / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return app if app.started and started_at(app.pid) == app.started else None


def start(
    command: Sequence[str], *, folder: Path, state: Path, port: int, mark: str, environment: Mapping[str, str]
) -> AppProcess:
    """A new app in a session of its own: interrupting the cell does not end it."""
    output = os.open(state / "app.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(output, "wb") as out:
        process = subprocess.Popen(
            list(command), cwd=folder, env=child_environment(environment), stdin=subprocess.DEVNULL,
            stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    _children[process.pid] = process
    app = AppProcess(process.pid, started_at(process.pid), port, mark)
    record = state / f"{RECORD}.part"
    record.write_text(json.dumps(asdict(app)), encoding="utf-8")
    record.replace(state / RECORD)
    return app


def wait_until_healthy(app: AppProcess, state: Path, tell: Callable[[str], None]) -> None:
    """Returns when the app answers, telling what it prints meanwhile.

    Raises MasukaError with its last words when it ends, RemoteUnavailable when it is silent.
    """
    told, deadline_s = 0, time.monotonic() + START_PATIENCE_S
    while not healthy(app.port):
        lines = _said(state)
        for line in lines[told:]:
            tell(f"  {line}")
        told = len(lines)
        if started_at(app.pid) != app.started:
            last = " ".join(_said(state)[-3:])
            raise MasukaError(f"The app did not start: {last[-600:]}", f"All it said is in {state / 'app.log'}.")
        if time.monotonic() > deadline_s:
            raise RemoteUnavailable(
                f"The app does not answer after {START_PATIENCE_S / 60:.0f} minutes.",
                f"What it said is in {state / 'app.log'}. Run the cell again.",
            )
        time.sleep(0.3)


def stop(state: Path) -> bool:
    """Whether an app was running; it is gone now, and its port is free.

    Raises Conflict when it does not go.
    """
    app = running(state)
    if app is None:
        return False
    for how, patience_s in ((signal.SIGTERM, STOP_PATIENCE_S), (signal.SIGKILL, 10.0)):
        with suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.kill(app.pid, how)
        deadline_s = time.monotonic() + patience_s
        while time.monotonic() < deadline_s:
            if started_at(app.pid) != app.started:
                (state / RECORD).unlink(missing_ok=True)
                return True
            time.sleep(0.1)
    raise Conflict(f"The app (process {app.pid}) does not end.", "Restart the runtime.")


def healthy(port: int) -> bool:
    """Whether MASUKA answers on that port."""
    connection = http.client.HTTPConnection(HOST, port, timeout=3)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return answer.status == 200 and b'"ok"' in answer.read(200)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def free_port(wanted: int) -> int:
    """The wanted port, or another one when somebody else listens on it."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Conflict("No port is free on this machine.", "Restart the runtime.")


def started_at(pid: int) -> str:
    """When a process began, as its system counts; '' when it is gone or has ended."""
    if pid in _children and _children[pid].poll() is not None:
        del _children[pid]
        return ""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in "ZX" else fields[19]
    asked = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, began = asked.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else began.strip()


def _said(state: Path) -> list[str]:
    """What the app printed, without its links: those let people in."""
    try:
        text = (state / "app.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip() and "token=" not in line and " is open at " not in line]
