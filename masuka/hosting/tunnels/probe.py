"""Would a stranger be let in? Asked before a link is opened, and before it is shown.

A stranger here is a request without any cookie. Anything but the gate's own refusal
counts as open.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

from masuka.errors import MasukaError, NotAllowed, RemoteUnavailable

BEHIND = ("/config", "/gradio_api/info", "/media/item/1")
"""The page's own data, Gradio's and ours: none of them may answer a stranger."""
ENTRANCE = "/"
LOCAL_TIMEOUT_S = 10.0
PUBLIC_TIMEOUT_S = 10.0
PUBLIC_DEADLINE_S = 45.0
_WAIT_S = 1.0
_OPEN = "The app would let strangers in, so there is no link."
_HEADERS = {"ngrok-skip-browser-warning": "1", "user-agent": "masuka"}
_NOT_YET = frozenset({404, 421, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 530})
"""What a provider answers until its link leads to us; 421 is another app's gate."""


def local_must_refuse(address: str) -> None:
    """Raises NotAllowed when the app on this machine lets a stranger in.

    Raises RemoteUnavailable when it does not answer, or not as it does when it is ready.
    """
    with httpx.Client(trust_env=False, timeout=LOCAL_TIMEOUT_S, headers=_HEADERS) as client:
        try:
            wrong = _let_in(client, address.rstrip("/"))
        except _NotThereYet as error:
            raise RemoteUnavailable(
                f"The app on this machine answers {error.status}, so no link was opened.", "Try again in a moment."
            ) from error
        except httpx.HTTPError as error:
            raise RemoteUnavailable(
                "The app does not answer on this machine, so no link was opened.", "Start the app again."
            ) from error
    if wrong:
        raise NotAllowed(_OPEN, f"{wrong} Please report this.")


def public_must_refuse(
    url: str,
    sleep: Callable[[float], Any] = time.sleep,
    *,
    deadline_s: float = PUBLIC_DEADLINE_S,
    transport: httpx.BaseTransport | None = None,
) -> None:
    """Raises NotAllowed when a stranger gets in at the public address.

    Raises RemoteUnavailable when it does not lead here by then. A new link needs a few seconds until it leads to the app.
    """
    until = time.monotonic() + deadline_s
    with httpx.Client(timeout=PUBLIC_TIMEOUT_S, headers=_HEADERS, transport=transport) as client:
        while True:
            wait: MasukaError
            try:
                wrong = _let_in(client, url)
            except _NotThereYet as error:
                wait = RemoteUnavailable(
                    f"The link does not lead to this app; it answers {error.status}.", "Try again, or another way."
                )
            except httpx.HTTPError as error:
                wait = RemoteUnavailable("The link leads nowhere yet.", f"Try again, or another way ({type(error).__name__}).")
            else:
                if wrong:
                    raise NotAllowed(_OPEN, f"{wrong} The link was closed at once.")
                return
            if time.monotonic() >= until:
                raise wait
            sleep(_WAIT_S)


class _NotThereYet(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _let_in(client: httpx.Client, base: str) -> str:
    """'' when the gate refused everywhere, else where a stranger got in."""
    for path in BEHIND:
        answer = _asked(client, base + path)
        if answer.status_code != httpx.codes.UNAUTHORIZED or not _is_ours(answer):
            return f"{path} answered {answer.status_code}."
    answer = _asked(client, base + ENTRANCE)
    if not (answer.is_redirect and httpx.URL(answer.headers.get("location", "")).path == "/login"):
        return f"{ENTRANCE} answered {answer.status_code}."
    return ""


def _asked(client: httpx.Client, address: str) -> httpx.Response:
    answer = client.get(address)
    if answer.status_code in _NOT_YET:
        raise _NotThereYet(answer.status_code)
    return answer


def _is_ours(answer: httpx.Response) -> bool:
    """Whether the refusal has the gate's shape, so that it was this kind of app."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("type") == "NotAllowed"
