"""A hosted vision model that describes pictures, at any service that speaks OpenAI's language.

The key goes to the address that it was entered for and nowhere else: a redirection is not
followed, and a key that changed since the job was asked for is not used. An address that
somebody typed is asked through `outside`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from masuka import logs, outside
from masuka.config import Settings
from masuka.datasets.captions.asking import instruction
from masuka.datasets.captions.captioners import CAPTIONERS, Wish
from masuka.errors import AccessDenied, InvalidInput, MasukaError, Refused, RemoteUnavailable

if TYPE_CHECKING:
    from PIL import Image

TIMEOUT_S = 60.0
TRIES = 4
LONGEST_WAIT_S = 60.0
"""A service that wants to be left alone longer than this has no room for us today."""
MOST_TOKENS = 300
_LOOK_S = 0.2
_SENT_AS_JPEG = 90
_REFUSALS = ("content_policy", "content_filter", "moderation", "safety", "data_inspection")


@dataclass(frozen=True)
class Service:
    """Where a model is and with which key; `title` is for people.

    `local` are hosts that may be asked although they are not outside.
    """

    title: str
    address: str
    model: str
    key: str
    local: Sequence[str] = ()


def load(
    folder: Path | None, device: str, params: Mapping[str, Any], check: Callable[[], None]
) -> HostedSpeaker:
    """The service of `params["service"]` with the key that this worker was lent.

    Raises AccessDenied without the key, or where it is another one than when it was asked.
    """
    about = params["service"]
    key = Settings.from_environment().secrets.get(about["key_name"], "")
    if not key:
        raise AccessDenied(f"There is no key for {about['title']}.", "Enter it in Settings.")
    if fingerprint(key) != about["key_is"]:
        # It may belong to another address by now.
        raise AccessDenied(f"The key for {about['title']} has changed since.", "Start again.")
    logs.redact.learn([key])
    service = Service(about["title"], about["address"], about["model"], key, about["local"])
    return HostedSpeaker(service, check)


def fingerprint(key: str) -> str:
    """Says whether two keys are the same, and nothing else about them."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class HostedSpeaker:
    """Asks a service about pictures, a few at a time."""

    batch = 4

    def __init__(
        self, service: Service, check: Callable[[], None] = lambda: None, *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._service, self._check = service, check
        # Only addresses of our own table are asked through the environment's proxy.
        known = service.address in {entry.address for entry in CAPTIONERS.values()}
        self._client = (
            httpx.Client(timeout=timeout_s, follow_redirects=False)
            if known
            else outside.client(local=service.local, timeout_s=timeout_s)
        )

    def say(self, images: Sequence[Image.Image], wish: Wish) -> list[str | MasukaError]:
        """What the service says of each picture, or its refusal.

        Raises AccessDenied for a key that it does not take: that is so for every picture.
        """
        with ThreadPoolExecutor(max_workers=len(images)) as pool:
            return list(pool.map(lambda image: self._said(image, wish), images))

    def _said(self, image: Image.Image, wish: Wish) -> str | MasukaError:
        try:
            return self._asked(_body(self._service.model, instruction(wish), image))
        except (Refused, RemoteUnavailable) as error:
            return error

    def _asked(self, body: Mapping[str, Any]) -> str:
        for turn in range(TRIES):
            self._check()
            answer = self._posted(body)
            if isinstance(answer, RemoteUnavailable):
                problem: MasukaError = answer
            elif answer.is_success:
                return self._text(answer)
            else:
                problem = self._problem(answer)
                if not isinstance(problem, RemoteUnavailable):
                    raise problem
                wait_s = _wanted_wait_s(answer)
                if wait_s is not None and wait_s <= LONGEST_WAIT_S:
                    self._rest(wait_s)
                    continue
                if wait_s is not None:
                    raise problem
            if turn == TRIES - 1:
                raise problem
            self._rest(2.0**turn / 2)
        raise problem

    def _posted(self, body: Mapping[str, Any]) -> httpx.Response | RemoteUnavailable:
        """The answer, or why there is none; AccessDenied where the address may not be asked."""
        title = self._service.title
        try:
            return self._client.post(
                f"{self._service.address}/chat/completions",
                json=body,
                headers={"authorization": f"Bearer {self._service.key}", "user-agent": "masuka"},
            )
        except InvalidInput as error:
            # So it is for every picture, and nothing was sent.
            raise AccessDenied(error.message, error.hint) from error
        except RemoteUnavailable as error:
            return error
        except httpx.TimeoutException:
            return RemoteUnavailable(f"{title} took too long to answer.", "Try again later.")
        except httpx.HTTPError as error:
            return RemoteUnavailable(
                f"{title} cannot be reached.", f"Look at the connection ({type(error).__name__})."
            )

    def _text(self, answer: httpx.Response) -> str:
        try:
            choice = answer.json()["choices"][0]
            message = choice["message"]
        except (ValueError, LookupError, TypeError) as error:
            raise RemoteUnavailable(
                f"{self._service.title} answered something else than a caption.", "Try again."
            ) from error
        refusal = message.get("refusal") or (
            "" if choice.get("finish_reason") != "content_filter" else "its rules"
        )
        if refusal:
            raise Refused(
                f"{self._service.title} will not describe this picture: {_short(refusal)}.",
                "Write it yourself.",
            )
        return str(message.get("content") or "").strip()

    def _problem(self, answer: httpx.Response) -> MasukaError:
        title, status = self._service.title, answer.status_code
        said = _message(answer)
        if status in (401, 403):
            return AccessDenied(f"{title} does not accept the key.", "Look at it in Settings.")
        if status == httpx.codes.PAYMENT_REQUIRED or "insufficient_quota" in answer.text[:2000]:
            return AccessDenied(f"The account at {title} has no credit.", "Add credit there.")
        if status == httpx.codes.NOT_FOUND:
            return AccessDenied(
                f"{title} has no model named {self._service.model!r}, or not for you.", "Name another model."
            )
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return RemoteUnavailable(f"{title} wants fewer requests.", "Try again later.")
        if status >= 500:
            return RemoteUnavailable(f"{title} is out of order ({status}).", "Try again later.")
        if 300 <= status < 400:
            return AccessDenied(
                f"{title} points to another address.", "The key is sent nowhere else; correct the address."
            )
        if any(word in answer.text[:5000].lower() for word in _REFUSALS):
            return Refused(f"{title} will not describe this picture: {said}.", "Write this caption yourself.")
        return Refused(f"{title} did not take this picture ({status}): {said}.", "Try another model.")

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._check()
            time.sleep(min(_LOOK_S, max(0.0, until - time.monotonic())))


def _body(model: str, text: str, image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_SENT_AS_JPEG)
    picture = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": picture}}]
    return {"model": model, "max_tokens": MOST_TOKENS, "messages": [{"role": "user", "content": content}]}


def _wanted_wait_s(answer: httpx.Response) -> float | None:
    """How long the service asks us to wait; None where it does not say."""
    told = answer.headers.get("retry-after", "").strip()
    if not told:
        return None
    if told.replace(".", "", 1).isdigit():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _message(answer: httpx.Response) -> str:
    try:
        told = answer.json()
    except ValueError:
        return _short(answer.text or "no reason given")
    error = told.get("error", told) if isinstance(told, dict) else told
    return _short(str(error.get("message", error)) if isinstance(error, dict) else str(error))


def _short(text: str) -> str:
    text = " ".join(text.split()).rstrip(".")
    return text if len(text) <= 160 else f"{text[:157]}…"
