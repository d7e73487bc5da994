"""Pictures behind links: fetched within limits, from public addresses only, then taken in.

Redirects are followed by hand, each looked at like the first link. No cookie, no key and
no proxy of this machine is used.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from masuka.datasets import intake
from masuka.datasets.decoding import LARGEST_BYTES, too_many_bytes
from masuka.datasets.exchange import forget_asked
from masuka.errors import DownloadFailed, ExternalError, InvalidInput
from masuka.jobs.reporter import Reporter
from masuka.outside import Target, addresses_of, target_of
from masuka.requests.text import clean_filename

MOST_REDIRECTS = 5
SECONDS_TO_CONNECT = 10.0
SECONDS_A_PIECE = 15.0
SECONDS_A_LINK = 60.0
_PIECE_BYTES = 2**16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_AGENT = "masuka (fetches pictures that a person listed)"


@dataclass(frozen=True)
class Web:
    """The way out; other parts than these are only for places where there is no web.

    `connect` opens a connection to an address that was judged.
    """

    judge: Callable[[Target], list[str]] = addresses_of
    connect: Callable[[str, int, float], socket.socket] = lambda address, port, timeout: (
        socket.create_connection((address, port), timeout=timeout)
    )


def run(params: dict[str, Any], reporter: Reporter, web: Web | None = None) -> dict[str, Any]:
    """The job: fetches every link, then takes the pictures in as `intake.run` does.

    What did not come is refused by its link. What was fetched before a loss stays in
    `incoming` and is not fetched again.
    """
    links, incoming = str(params["links"]).split("\n"), Path(params["incoming"])
    reporter.stage("Fetching pictures")
    missing: list[tuple[str, InvalidInput | ExternalError]] = []
    files: list[Path] = []
    for number, link in enumerate(links, start=1):
        reporter.check()
        folder = incoming / f"{number:05}"
        try:
            files.append(_here(folder) or fetch(link, folder, web or Web(), reporter.check))
        except (InvalidInput, ExternalError) as error:
            missing.append((link, error))
        reporter.progress(number, len(links))
    result: dict[str, Any] = {"added": 0, "duplicates": 0, "ignored": 0, "refused": []}
    if files:
        taken = {**params, "sources": [str(file) for file in files], "forget_sources": False, "asked": ""}
        result = intake.run(taken, reporter)
    for link, why in missing:
        shown = link[: intake.SHOWN_NAME_CHARS]
        result["refused"].append({"name": shown, "message": why.message, "hint": why.hint})
        reporter.note(f"{shown}: {why}")
    forget_asked(params)
    return result


def fetch(link: str, folder: Path, web: Web, check: Callable[[], None] = lambda: None) -> Path:
    """The file that a link leads to, in the folder, named as in its address.

    Raises InvalidInput for a link that is not followed and a file that is too large,
    DownloadFailed for one that does not come.
    """
    until_s = time.monotonic() + SECONDS_A_LINK
    place = target_of(link, plain=True)
    for _ in range(MOST_REDIRECTS + 1):
        with _asked(place, web, until_s) as response:
            if response.status in _REDIRECTS:
                place = target_of(_next_link(place, response), plain=True)
                continue
            if response.status != 200:
                raise DownloadFailed(
                    f"{place.host} answered {response.status} instead of a picture.",
                    "Open the link in a browser.",
                )
            return _kept(response, folder / _name_of(place), until_s, check)
    raise DownloadFailed(f"{place.host} sends on from link to link.", "Copy the last link from the browser.")


@contextmanager
def _asked(place: Target, web: Web, until_s: float) -> Iterator[http.client.HTTPResponse]:
    connection: http.client.HTTPConnection | None = None
    end: threading.Timer | None = None
    addresses = web.judge(place)
    try:
        left_s = max(0.1, min(SECONDS_TO_CONNECT, until_s - time.monotonic()))
        sock = _connected(web, addresses, place.port, left_s)
        connection = http.client.HTTPConnection(place.host, place.port)
        connection.sock = sock = _secured(sock, place) if place.scheme == "https" else sock
        sock.settimeout(SECONDS_A_PIECE)
        # A server that sends a byte now and then would never run into the time limit of one read.
        end = threading.Timer(max(0.1, until_s - time.monotonic()), partial(_hang_up, sock))
        end.daemon = True
        end.start()
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection.putrequest("GET", place.path, skip_host=True, skip_accept_encoding=True)
        for name, value in (
            ("Host", place.host_header),
            ("User-Agent", _AGENT),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ):
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as response:
            yield response
    except (OSError, http.client.HTTPException) as error:
        raise DownloadFailed(f"{place.host} did not send the picture.", "Try again later.") from error
    finally:
        if end is not None:
            end.cancel()
        if connection is not None:
            connection.close()


def _hang_up(sock: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _connected(web: Web, addresses: list[str], port: int, left_s: float) -> socket.socket:
    last: OSError | None = None
    for address in addresses[:4]:
        try:
            return web.connect(address, port, left_s)
        except OSError as error:
            last = error
    raise last or OSError("no address")


def _secured(plain: socket.socket, place: Target) -> socket.socket:
    try:
        return ssl.create_default_context().wrap_socket(
            plain, server_hostname=place.host, do_handshake_on_connect=False
        )
    except BaseException:
        plain.close()
        raise


def _next_link(place: Target, response: http.client.HTTPResponse) -> str:
    target = response.getheader("Location") or ""
    try:
        following = urljoin(place.text, target)
    except ValueError:
        following = ""
    if not target or not following:
        raise DownloadFailed(f"{place.host} sends on to nowhere.", "Open the link in a browser.")
    if place.scheme == "https" and urlsplit(following).scheme.lower() == "http":
        raise InvalidInput(
            f"{place.host} sends on from a secured to an open address.", "Use the last link from the browser."
        )
    return following


def _kept(response: http.client.HTTPResponse, file: Path, until_s: float, check: Callable[[], None]) -> Path:
    told = response.getheader("Content-Length") or ""
    if re.fullmatch(r"[0-9]{1,18}", told) and int(told) > LARGEST_BYTES:
        raise too_many_bytes(int(told))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name[:200]}.part")
    size = 0
    try:
        with part.open("wb") as out:
            while piece := response.read1(_PIECE_BYTES):
                check()
                size += len(piece)
                if size > LARGEST_BYTES:
                    raise too_many_bytes(size)
                if time.monotonic() > until_s:
                    raise DownloadFailed(
                        f"The picture did not arrive within {SECONDS_A_LINK:.0f} seconds.", "Try again later."
                    )
                out.write(piece)
        if told and size < int(told):
            raise DownloadFailed("The picture arrived cut off.", "Try again.")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return file


def _here(folder: Path) -> Path | None:
    """What an earlier attempt fetched whole."""
    found = [file for file in folder.iterdir() if not file.name.startswith(".")] if folder.is_dir() else []
    return found[0] if found else None


def _name_of(place: Target) -> str:
    name = PurePosixPath(unquote(urlsplit(place.text).path, errors="replace")).name
    try:
        return clean_filename(name)[-150:].lstrip(".") or "picture"
    except InvalidInput:
        return "picture"
