"""The one gate before every route: nobody gets past it without a session.

Pure ASGI, and closed by default: a route that `access.rules` does not name is closed, a
websocket too. Open to strangers is what `access.entrance` answers, and nothing of that
tells about the studio.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from masuka.access import rules, wire
from masuka.access.accounts import Accounts
from masuka.access.entrance import Entrance, Visit
from masuka.access.limits import Rate, Throttle
from masuka.access.sessions import Sessions
from masuka.errors import StoreError
from masuka.requests import Actor

log = logging.getLogger(__name__)

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
STARTUP_PATH = "/gradio_api/startup-events"
STREAM_PATH = "/gradio_api/queue/data"
CHANGES_PER_MINUTE = 100
LOOKS_PER_MINUTE = 1500
MOST_STREAMS = 24
"""Open at once in one session; a browser keeps one a tab, and six to one server."""
_STREAMS_KNOWN = 4096
_SESSIONS_READ_AT_ONCE = 4
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


@dataclass
class Door:
    """What the gate decides by.

    `hosts` are the names under which the page may be asked for; of them `proxied` are those
    of the host's or the person's proxy, `tunnels` those of links for collaborators.
    `framed_by` are the sites that may show it in a frame (a Space's page, a notebook), never
    under a tunnel's name. `proxies` may say whom a request comes from. `starting` is true
    until the app answers: Gradio's launch asks one harmless path of its own server, without
    a cookie, from this machine.
    """

    sessions: Sessions
    accounts: Accounts
    hosts: frozenset[str]
    proxied: frozenset[str] = frozenset()
    tunnels: frozenset[str] = frozenset()
    proxies: tuple[wire.Network, ...] = ()
    framed_by: str = ""
    tokens: Throttle = field(default_factory=Throttle)
    looks: Rate = field(default_factory=lambda: Rate(LOOKS_PER_MINUTE))
    changes: Rate = field(default_factory=lambda: Rate(CHANGES_PER_MINUTE))
    starting: bool = False
    telling: frozenset[str] = frozenset()

    @staticmethod
    def host_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
        """Loopback, the address the app listens on, and what the person allowed."""
        everywhere = ("0.0.0.0", "::", "")  # noqa: S104 - listened on, never a name in a request
        own = set() if host in everywhere else {host}
        return frozenset(name.lower() for name in wire.LOOPBACK_NAMES | own | set(allowed))

    def allow_host(self, name: str, *, tells_address: bool = False) -> None:
        """Serves the page under one more name, a tunnel's.

        `tells_address` is for an agent on this machine that adds the visitor's address as
        the last one of X-Forwarded-For itself.
        """
        # Whole new sets: requests that are looked at meanwhile walk through the old ones.
        added = {wire.host_name(name)}
        self.hosts, self.tunnels = self.hosts | added, self.tunnels | added
        if tells_address:
            self.telling = self.telling | added

    def forget_host(self, name: str) -> None:
        """Serves the page under that name no longer."""
        gone = {wire.host_name(name)}
        self.hosts, self.tunnels = self.hosts - gone, self.tunnels - gone
        self.telling = self.telling - gone

    def known_as(self, name: str) -> str:
        """The name as it was allowed; one for all names of a '*.example.org'."""
        return name if name in self.hosts else "*"


class Gate:
    """ASGI middleware; puts the Actor into `scope["actor"]` for what lies behind it."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door
        self._entrance = Entrance(door.sessions, door.accounts, door.tokens)
        self._readers = ThreadPoolExecutor(_SESSIONS_READ_AT_ONCE, "sessions")
        self._headers = {framed: wire.security_headers(door.framed_by if framed else "") for framed in (True, False)}
        self._streams: OrderedDict[str, str] = OrderedDict()
        self._open_streams: dict[str, int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = wire.headers_of(scope)
        refusal = self._foreign(scope, headers)
        if scope["type"] == "websocket":
            await _close(receive, send)  # there is none that anybody needs
            return
        send = wire.with_headers(send, self._headers[self._is_framed(headers)])
        if refusal is None:
            visit = await self._visit(scope, receive, headers)
            rule = rules.rule_of(visit.method, visit.path)
            visit = replace(visit, wait_s=self._count(visit, rule))
            refusal = self._forbidden(visit, rule) or await self._entrance.answer(visit)
            if refusal is None and visit.actor is None and not self._is_start(scope):
                refusal = wire.refusal(401, "Not signed in.", "Open the app's link.")
            if refusal is None:
                await self._pass(visit, send)
                return
        await refusal(scope, receive, send)

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Refuses names that are not ours (DNS rebinding) and requests from other sites."""
        if not wire.is_allowed(wire.host_name(headers.get("host", "")), self._door.hosts):
            log.warning("refused the host name %r", headers.get("host", "")[:200])
            return wire.refusal(421, "This name does not belong to the app.", "Add it to MASUKA_ALLOWED_HOSTS.")
        changes = scope["type"] == "websocket" or scope["method"] in CHANGING
        if changes and not self._is_same_site(headers):
            log.warning("refused a request from the site %r", headers.get("origin", "")[:200])
            return wire.refusal(403, "Another site sent this request.", "Open the app itself and try again.")
        return None

    def _is_same_site(self, headers: dict[str, str]) -> bool:
        """Whether our own page sent this; behind a proxy the page may have another name of ours."""
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
        asked = headers.get("host", "").lower()
        try:
            said = urlsplit(origin)
        except ValueError:
            return False
        place = said.netloc.lower()
        if not place or place in (asked, asked.removesuffix(_DEFAULT_PORTS.get(said.scheme, ""))):
            return bool(place)
        # A proxy may ask by another name than the browser did. Names without a port are then
        # enough; on the same host another port is another program, and a name with a star
        # is everybody's.
        outside = self._door.proxied | self._door.tunnels
        return place in outside and place != wire.host_name(asked)

    def _is_framed(self, headers: dict[str, str]) -> bool:
        """Whether other sites may show this in a frame: where the host itself does, not by a link."""
        return bool(self._door.framed_by) and wire.host_name(headers.get("host", "")) not in self._door.tunnels

    async def _visit(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> Visit:
        cookie = wire.cookie_in(headers.get("cookie", ""), self._door.sessions.cookie_name)
        scope["actor"] = actor = await self._actor(cookie)
        peer = (scope.get("client") or ("", 0))[0]
        name, local = wire.host_name(headers.get("host", "")), wire.is_loopback(peer)
        forwarded = headers.get("x-forwarded-for", "")
        # A tunnel's agent is a program of this machine; anybody else only says that they are.
        always = local and name in self._door.telling
        address = wire.client_address(peer, forwarded, self._door.proxies, always=always)
        told = address != wire.client_address(peer, "", ())
        between = local or wire.is_allowed(name, self._door.proxied | self._door.tunnels)
        source = f"{self._door.known_as(name)} {bool(forwarded)} {address}"
        return Visit(
            scope, receive, headers, address, actor, cookie,
            source=source, shared=between and not told, framed=self._is_framed(headers),
        )  # fmt: skip

    async def _actor(self, cookie: str) -> Actor | None:
        if not cookie:
            return None
        # Threads of their own: no download or password is waited for.
        loop = asyncio.get_running_loop()
        session = await loop.run_in_executor(self._readers, self._door.sessions.find, cookie)
        if session is None:
            return None
        if self._door.sessions.is_due(session):
            try:
                await run_in_threadpool(self._door.sessions.touch, session)
            except StoreError as error:
                log.warning("a session's last use could not be noted: %s", error)
        return session.actor

    def _forbidden(self, visit: Visit, rule: rules.Rule) -> Response | None:
        """What the rules and the limits say against this request."""
        if visit.actor is None and rule.who == "anybody":
            return None  # the entrance looks first whether they bring a key
        if visit.wait_s:
            return wire.later(visit.wait_s)
        if visit.actor is None:
            return None  # answered with 401, whatever it is: a stranger learns no route
        if rule.who == "nobody":
            return wire.refusal(404, "There is nothing at this address.", "", "NotFound")
        if not rule.lets(visit.actor):
            return wire.refusal(403, "This is not for you.", "Ask the owner of this studio.")
        return self._strange_stream(visit)

    def _count(self, visit: Visit, rule: rules.Rule) -> float:
        who = visit.cookie if visit.actor is not None else visit.source
        rate = self._door.looks if rule.kind == "look" else self._door.changes
        return rate.take(f"{rule.kind == 'login'}:{who}")

    def _strange_stream(self, visit: Visit) -> Response | None:
        """Refuses the stream of another session: it carries what that person sees."""
        if visit.path.rstrip("/") != STREAM_PATH:
            return None
        stream = visit.query.get("session_hash", "")[:100]
        if self._streams.setdefault(stream, visit.cookie) != visit.cookie:
            return wire.refusal(404, "There is nothing at this address.", "", "NotFound")
        while len(self._streams) > _STREAMS_KNOWN:
            self._streams.popitem(last=False)
        if self._open_streams.get(visit.cookie, 0) >= MOST_STREAMS:
            return wire.later(5)
        return None

    def _is_start(self, scope: Scope) -> bool:
        client = (scope.get("client") or ("", 0))[0]
        return self._door.starting and scope["path"] == STARTUP_PATH and client in ("127.0.0.1", "::1")

    async def _pass(self, visit: Visit, send: Send) -> None:
        _drop_foreign_names(visit, self._door.hosts)
        if visit.path.rstrip("/") != STREAM_PATH:
            await self._app(visit.scope, visit.receive, send)
            return
        self._open_streams[visit.cookie] = self._open_streams.get(visit.cookie, 0) + 1
        try:
            await self._app(visit.scope, visit.receive, send)
        finally:
            left = self._open_streams[visit.cookie] - 1
            if left:
                self._open_streams[visit.cookie] = left
            else:
                del self._open_streams[visit.cookie]


def _drop_foreign_names(visit: Visit, hosts: frozenset[str]) -> None:
    """Gradio believes these headers; a name that is not ours must not get into a page."""
    dropped = {b"x-gradio-server"}
    said = visit.headers.get("x-forwarded-host")
    if said is not None and not wire.is_allowed(wire.host_name(said.split(",")[0]), hosts):
        dropped.add(b"x-forwarded-host")
    visit.scope["headers"] = [pair for pair in visit.scope["headers"] if pair[0].lower() not in dropped]


async def _close(receive: Receive, send: Send) -> None:
    await receive()  # websocket.connect
    await send({"type": "websocket.close", "code": 4401, "reason": "Not signed in"})
