"""The one gate before every route: nobody gets past it without a session.

Pure ASGI, and closed by default: a route that is added later, a websocket or a file of
Gradio is behind it without having to know of it. Open to strangers are `/healthz`,
`/login` and `/enter` only, and of those nothing tells about the studio.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from masuka.access.limits import Throttle
from masuka.access.pages import login_page
from masuka.access.sessions import SESSION_LIFETIME_S, Sessions
from masuka.requests import Actor

log = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STARTUP_PATH = "/gradio_api/startup-events"
_LONGEST_FORM_BYTES = 8192
_USED = "This link was used already, or it is too old."
_CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Gradio needs inline scripts and compiles `js=`; nothing may be fetched from elsewhere."""
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "SAMEORIGIN",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": _CSP,
}


@dataclass
class Door:
    """What the gate decides by.

    `actor_of` gives the person of a user id, None when there is no such active user.
    `starting` is true until the app answers: Gradio's launch asks one harmless path of
    its own server, without a cookie, from this machine.
    """

    sessions: Sessions
    actor_of: Callable[[int], Actor | None]
    hosts: frozenset[str]
    throttle: Throttle = field(default_factory=Throttle)
    starting: bool = False

    @staticmethod
    def host_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
        """Loopback, the address the app listens on, and what the person allowed."""
        everywhere = ("0.0.0.0", "::", "")  # noqa: S104 - listened on, never a name in a request
        own = set() if host in everywhere else {host}
        return frozenset(name.lower() for name in LOOPBACK_NAMES | own | set(allowed))


class Gate:
    """ASGI middleware; puts the Actor into `scope["actor"]` for what lies behind it."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _headers(scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            scope["actor"] = actor = self._actor(headers)
            if actor is None and not self._passes_unknown(scope):
                refusal = await self._strangers_answer(scope, receive, headers)
            elif actor is not None and scope["type"] == "http":
                refusal = self._token_answer(scope, headers)
        if refusal is None:
            await self._app(scope, receive, _with_security_headers(send))
        elif scope["type"] == "websocket":
            await _close(receive, send)
        else:
            await refusal(scope, receive, _with_security_headers(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Refuses names that are not ours (DNS rebinding) and requests from other sites."""
        if not self._is_ours(headers.get("host", "")):
            log.warning("refused the host name %r", headers.get("host", "")[:200])
            return _error(421, "This name does not belong to the app.", "Add it to MASUKA_ALLOWED_HOSTS.")
        changes = scope["type"] == "websocket" or scope["method"] in CHANGING
        if changes and not self._is_same_site(headers):
            log.warning("refused a request from the site %r", headers.get("origin", "")[:200])
            return _error(403, "Another site sent this request.", "Open the app itself and try again.")
        return None

    def _is_ours(self, host: str) -> bool:
        return _name(host) in self._door.hosts

    def _is_same_site(self, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is not None:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")

    def _actor(self, headers: dict[str, str]) -> Actor | None:
        cookie = _cookie(headers.get("cookie", ""), self._door.sessions.cookie_name)
        user_id = self._door.sessions.user_of(cookie) if cookie else None
        return None if user_id is None else self._door.actor_of(user_id)

    def _passes_unknown(self, scope: Scope) -> bool:
        client = (scope.get("client") or ("", 0))[0]
        return bool(
            self._door.starting
            and scope["type"] == "http"
            and scope["path"] == STARTUP_PATH
            and client in ("127.0.0.1", "::1")
        )

    async def _strangers_answer(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> Response:
        if scope["type"] == "websocket":
            return _error(401, "Not signed in.", "Open the app's link.")
        method, path = scope["method"], scope["path"]
        if path == "/healthz" and method in ("GET", "HEAD"):
            return JSONResponse({"status": "ok"})
        if path == "/login" and method == "POST":
            token = _token_in((await _form(receive)).get("token", ""))
            return self._enter(scope, headers, token, "/")
        if path == "/login" and method in ("GET", "HEAD"):
            return _html(login_page())
        if path in ("/", "/enter") and method == "GET" and _query(scope).get("token"):
            return self._enter(scope, headers, _query(scope)["token"], _without_token(scope))
        if path in ("/", "/enter") and method in ("GET", "HEAD"):
            return RedirectResponse("/login", 303, {"cache-control": "no-store"})
        return _error(401, "Not signed in.", "Open the app's link.")

    def _token_answer(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """What somebody who is inside gets instead of a page: a clean address, a way out."""
        method, path = scope["method"], scope["path"]
        if path == "/healthz" and method in ("GET", "HEAD"):
            return JSONResponse({"status": "ok"})
        if path == "/logout" and method == "POST":
            answer = RedirectResponse("/login", 303, {"cache-control": "no-store"})
            answer.delete_cookie(self._door.sessions.cookie_name, path="/")
            return answer
        if path in ("/", "/enter", "/login") and method == "GET":
            token = _query(scope).get("token")
            if token:
                self._door.sessions.use_token(token)  # nobody else may use it after this
            if token or path != "/":
                return RedirectResponse(_without_token(scope), 303, {"cache-control": "no-store"})
        return None

    def _enter(self, scope: Scope, headers: dict[str, str], token: str, then: str) -> Response:
        client = (scope.get("client") or ("", 0))[0]
        wait_s = self._door.throttle.wait_s(client)
        if wait_s > 0:
            later = _html(login_page(f"Too many wrong tries. Wait {wait_s:.0f} seconds."), 429)
            later.headers["retry-after"] = f"{wait_s:.0f}"
            return later
        user_id = self._door.sessions.use_token(token)
        if user_id is None or self._door.actor_of(user_id) is None:
            self._door.throttle.failed(client)
            return _html(login_page(_USED), 401)
        answer = RedirectResponse(then, 303, {"cache-control": "no-store"})
        answer.set_cookie(
            self._door.sessions.cookie_name,
            self._door.sessions.cookie(user_id),
            max_age=SESSION_LIFETIME_S,
            path="/",
            secure=_is_https(scope, headers),
            httponly=True,
            samesite="lax",
        )
        return answer


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; a header that comes twice is joined, as HTTP says."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        joint = "; " if key == "cookie" else ", "
        headers[key] = f"{headers[key]}{joint}{text}" if key in headers else text
    return headers


def _name(host: str) -> str:
    """The host without its port, lower case; brackets of an IPv6 address are kept."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            try:
                return SimpleCookie(f"{key}={value}")[key].value
            except (CookieError, KeyError):
                return ""
    return ""


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))


def _without_token(scope: Scope) -> str:
    """Where to go after entering: the same view of the page, and never another site."""
    kept = {k: v for k, v in _query(scope).items() if k != "token"}
    return "/?" + urlencode(kept) if kept else "/"


def _token_in(text: str) -> str:
    """The token that was typed, also out of a whole link."""
    text = text.strip()
    if "token=" in text:
        return parse_qs(urlsplit(text).query).get("token", [""])[0]
    return text


async def _form(receive: Receive) -> dict[str, str]:
    """The fields of a small urlencoded form; a longer body is cut, so its token is wrong."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _LONGEST_FORM_BYTES or not message.get("more_body"):
            break
    return dict(parse_qsl(body[:_LONGEST_FORM_BYTES].decode("latin-1")))


def _is_https(scope: Scope, headers: dict[str, str]) -> bool:
    forwarded = headers.get("x-forwarded-proto", "").split(",")[0].strip()
    return "https" in (scope.get("scheme"), forwarded)


def _html(page: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(page, status, {"cache-control": "no-store"})


def _error(status: int, message: str, hint: str) -> JSONResponse:
    body: dict[str, Any] = {"type": "NotAllowed", "message": message, "hint": hint}
    return JSONResponse(body, status, {"cache-control": "no-store"})


async def _close(receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.close", "code": 4401, "reason": "Not signed in"})


def _with_security_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            extra = [
                (name.encode(), value.encode())
                for name, value in SECURITY_HEADERS.items()
                if name.encode() not in present
            ]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return guarded
