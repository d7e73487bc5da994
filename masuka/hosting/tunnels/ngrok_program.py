"""The ngrok program on this machine: where it is, fetched if it is not, new enough.

pyngrok would fetch it with one try of six seconds to a file name that anybody could
have taken before; here it is tried again and appears whole or not at all.
"""

from __future__ import annotations

import io
import logging
import re
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
from pyngrok import conf, installer
from pyngrok.exception import PyngrokError

from masuka.errors import DownloadFailed, RemoteUnavailable

TRIES = 3
WAIT_S = 1.0
TIMEOUT_S = 30.0
MOST_BYTES = 200_000_000
OLDEST_MAJOR = 3

log = logging.getLogger(__name__)


def program_at(given: Path | None, *, fetch: Callable[[str], bytes] | None = None) -> Path:
    """The program: the one that was named, else pyngrok's own, fetched if missing.

    Raises DownloadFailed when it did not arrive, RemoteUnavailable for a wrong name.
    """
    if given is not None:
        if not given.is_file():
            raise RemoteUnavailable(
                f"There is no ngrok program at {given}.", "Correct PYNGROK_NGROK_PATH or remove it."
            )
        return given
    program = Path(conf.DEFAULT_NGROK_PATH)
    if not program.is_file():
        _install(program, fetch or _fetched)
    return program


def must_be_usable(program: Path) -> None:
    """Raises RemoteUnavailable for a program that does not run or is too old."""
    version = version_of(program)
    if not version:
        raise RemoteUnavailable(
            "The ngrok program on this machine does not run.", f"Delete {program}; the next try fetches a new one."
        )
    if version[0] < OLDEST_MAJOR:
        shown = ".".join(map(str, version))
        raise RemoteUnavailable(
            f"The ngrok program on this machine is too old: {shown}.",
            f"Delete {program}; the next try fetches a new one.",
        )


def version_of(program: Path) -> tuple[int, ...]:
    """The version that the program tells; () when it tells none."""
    try:
        answer = subprocess.run([str(program), "version"], capture_output=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("the ngrok program does not run: %s", error)
        return ()
    found = re.search(rb"version v?(\d+)\.(\d+)\.(\d+)", answer.stdout)
    return tuple(int(n) for n in found.groups()) if found else ()


def _install(program: Path, fetch: Callable[[str], bytes]) -> None:
    try:
        source = str(installer.get_ngrok_cdn_url("3"))
    except PyngrokError as error:
        raise RemoteUnavailable("There is no ngrok program for this kind of machine.", "Use another way.") from error
    program.parent.mkdir(parents=True, exist_ok=True)
    part = program.with_name(f".{program.name}.{time.time_ns()}.part")
    try:
        part.write_bytes(_unpacked(_tried(source, fetch), program.name))
        part.chmod(0o700)
        must_be_usable(part)
        part.replace(program)
    finally:
        part.unlink(missing_ok=True)


def _tried(source: str, fetch: Callable[[str], bytes]) -> bytes:
    for attempt in range(TRIES):
        if attempt:
            time.sleep(WAIT_S * attempt)
        try:
            return fetch(source)
        except httpx.HTTPError as error:
            log.warning("the ngrok program did not arrive, try %d: %s", attempt + 1, type(error).__name__)
    raise DownloadFailed("The ngrok program could not be downloaded.", "Look at the connection and try again.")


def _fetched(source: str) -> bytes:
    body = bytearray()
    with httpx.stream("GET", source, timeout=TIMEOUT_S, follow_redirects=True) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise httpx.DecodingError("too long")
    return bytes(body)


def _unpacked(archive: bytes, name: str) -> bytes:
    """The program in the archive, and nothing else of it."""
    try:
        if archive[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                return packed.read(name)
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            member = tar.extractfile(name)
            if member is None:
                raise KeyError(name)
            return member.read()
    except (KeyError, OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise DownloadFailed("The ngrok program arrived damaged.", "Try again.") from error
