"""The programs behind tunnels: found by their command line, ended with their children.

An app that was killed cannot end its tunnel, and the provider then counts it as a second
one. So each agent carries a mark in its command line that is this workspace's own, and
whoever opens a tunnel ends what still carries the mark.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from masuka.errors import RemoteUnavailable

TERM_S = 3.0
AFTER_KILL_S = 5.0

log = logging.getLogger(__name__)
Made = TypeVar("Made")


def find(marks: tuple[str, ...]) -> list[psutil.Process]:
    """Running programs of this user with all of these arguments; never this process."""
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            if process.pid != os.getpid() and set(marks) <= set(arguments) and _is_running(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile, or it is somebody else's
    return found


def end(marks: tuple[str, ...], *, before_s: float | None = None) -> int:
    """How many programs with these marks were ended, their children with them.

    With `before_s` (seconds since 1970) only those that began before.
    """
    roots, family = [], []
    for process in find(marks):
        try:
            if before_s is None or process.create_time() < before_s:
                roots.append(process)
                family += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue  # it ended meanwhile
    for process in family:
        _signal(process, process.terminate)
    _, stubborn = psutil.wait_procs(family, timeout=TERM_S)
    for process in stubborn:
        _signal(process, process.kill)
    psutil.wait_procs(stubborn, timeout=TERM_S)
    if roots:
        log.info("ended %d tunnel programs", len(roots))
    return len(roots)


def within(deadline_s: float, make: Callable[[], Made], give_up: Callable[[], object], *, title: str) -> Made:
    """What `make` returns; raises RemoteUnavailable when it takes longer.

    Libraries read an agent's output line by line and wait for ever for a silent one;
    `give_up` ends the agent, and with it the wait.
    """
    made: list[Made] = []
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make())
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            wrong.append(error)

    thread = threading.Thread(target=run, name=f"open {title}", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        give_up()
        thread.join(AFTER_KILL_S)
        raise RemoteUnavailable(
            f"{title} did not answer within {deadline_s:.0f} seconds.", "Look at the connection and try again."
        )
    if wrong:
        raise wrong[0]
    return made[0]


def write_secret(file: Path, text: str) -> None:
    """Writes a file that its owner alone may read, whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        out.write(text)
    part.replace(file)


def _is_running(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)


def _signal(process: psutil.Process, send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        log.debug("process %d had ended already", process.pid)
