"""What stands in a request and goes into an answer: names, addresses, cookies, headers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Collection, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
FRESH = {"cache-control": "no-store"}
SLOWEST_FORM_S = 10.0
_LONGEST_FORM_BYTES = 8192
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
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "content-security-policy": _CSP,
}


def security_headers(framed_by: str = "") -> dict[str, str]:
    """Headers of every answer; `framed_by` are sites that show the page in a frame."""
    if not framed_by:
        return SECURITY_HEADERS
    # X-Frame-Options cannot name another site, and a browser that reads it obeys it.
    kept = {name: value for name, value in SECURITY_HEADERS.items() if name != "x-frame-options"}
    return {**kept, "content-security-policy": f"{_CSP} {framed_by}"}


def headers_of(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; one that comes twice is joined, as HTTP says."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        joint = "; " if key == "cookie" else ", "
        headers[key] = f"{headers[key]}{joint}{text}" if key in headers else text
    return headers


def host_name(host: str) -> str:
    """The host without its port, lower case; brackets of an IPv6 address are kept."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def is_allowed(name: str, allowed: Collection[str]) -> bool:
    """Whether a host name is one of these; '*.example.org' allows every name below it."""
    return name in allowed or any(
        known.startswith("*.") and name.endswith(known[1:]) and len(name) > len(known) - 1 for known in allowed
    )


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks such as 10.0.0.0/8; raises ValueError for what is none."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def client_address(peer: str, forwarded: str, trusted: Collection[Network], *, always: bool = False) -> str:
    """Whom the request comes from: the peer, or what a known proxy says about it.

    Of `forwarded` (X-Forwarded-For) the last address that is no proxy of ours counts: the
    ones before it are whatever the visitor wrote. An IPv6 address counts as its /64.
    """
    address = _address(peer)
    if address is None:
        return peer
    hops = [part.strip() for part in forwarded.split(",") if part.strip()]
    if always and hops:
        address, hops = _address(hops[-1]) or address, []
    while hops and any(address in network for network in trusted):
        address = _address(hops.pop()) or address
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_loopback(peer: str) -> bool:
    """Whether a program of this machine asks."""
    address = _address(peer)
    return address is not None and address.is_loopback


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def cookie_in(header: str, name: str) -> str:
    """The cookie of that name; '' when it is missing or unreadable."""
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            try:
                return SimpleCookie(f"{key}={value}")[key].value
            except (CookieError, KeyError):
                return ""
    return ""


def set_cookie(name: str, value: str, *, max_age_s: int, secure: bool, framed: bool = False) -> str:
    """The value of a Set-Cookie header; `framed` is for a page in another's frame."""
    parts = [f"{name}={value}", f"Max-Age={max_age_s}", "Path=/", "HttpOnly"]
    parts += ["SameSite=None", "Secure", "Partitioned"] if framed else ["SameSite=Lax"]
    if secure and not framed:
        parts.append("Secure")
    return "; ".join(parts)


def is_https(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether the browser came by https, as this end or the proxy before it says.

    Whoever writes that header into their own request only makes their own cookie stricter.
    """
    forwarded = headers.get("x-forwarded-proto", "").split(",")[0].strip()
    return "https" in (scope.get("scheme"), forwarded)


async def form(receive: Receive) -> dict[str, str]:
    """The fields of a small urlencoded form; {} for a longer or slower one."""
    body = b""
    try:
        async with asyncio.timeout(SLOWEST_FORM_S):
            while True:
                message = await receive()
                body += message.get("body", b"")
                if len(body) > _LONGEST_FORM_BYTES or message["type"] == "http.disconnect":
                    return {}
                if not message.get("more_body"):
                    return dict(parse_qsl(body.decode("latin-1"), keep_blank_values=True))
    except TimeoutError:
        return {}


def html(page: str, status: int = 200) -> HTMLResponse:
    """A page that no cache keeps."""
    return HTMLResponse(page, status, FRESH)


def refusal(status: int, message: str, hint: str, kind: str = "NotAllowed") -> JSONResponse:
    """An error of the one shape that all have."""
    body: dict[str, Any] = {"type": kind, "message": message, "hint": hint}
    return JSONResponse(body, status, FRESH)


def later(wait_s: float, answer: Response | None = None) -> Response:
    """429: too many requests, with the seconds to wait."""
    said = answer or refusal(429, "That was too much in a short time.", f"Wait {max(1, round(wait_s))} s and go on.")
    said.headers["retry-after"] = str(max(1, round(wait_s)))
    return said


def with_headers(send: Send, more: dict[str, str]) -> Send:
    """The same `send`, which adds these headers where an answer does not have them."""

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", ())}
            extra = [(n.encode(), v.encode()) for n, v in more.items() if n.encode() not in present]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return guarded
