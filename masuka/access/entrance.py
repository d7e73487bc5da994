"""What a stranger can do at the door: a link, a name and password, an invite, an account."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope

from masuka.access import pages, wire
from masuka.access.accounts import Accounts
from masuka.access.limits import Throttle
from masuka.access.rules import READ
from masuka.access.sessions import AT_HOME, AWAY, Lifetime, Sessions
from masuka.errors import MasukaError, NotFound
from masuka.requests.actor import Actor

_USED = "This link was used already, or it is too old."
_WRONG = "The name or the password is wrong."
_NO_INVITE = "This invite was used, taken back or is too old. Ask for a new one."


@dataclass(frozen=True)
class Visit:
    """A request at the door: who comes (None is a stranger), from where, with what.

    `source` is what strangers are counted by: the name they ask for and their address.
    `shared` says that many may come from this address, through a tunnel or a proxy. With
    `wait_s` there were too many requests; only a one-time token or an invite passes.
    """

    scope: Scope
    receive: Receive
    headers: dict[str, str]
    address: str
    actor: Actor | None
    cookie: str
    source: str = ""
    shared: bool = False
    framed: bool = False
    wait_s: float = 0.0

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1")))

    @property
    def at_home(self) -> bool:
        """Whether the browser calls this machine by its own name, with nothing between."""
        return "x-forwarded-for" not in self.headers and wire.host_name(self.headers.get("host", "")) in wire.LOOPBACK_NAMES

    @property
    def device(self) -> str:
        return device(self.headers.get("user-agent", ""))


class Entrance:
    """Answers what is open to strangers; None lets the request go on to the page."""

    def __init__(self, sessions: Sessions, accounts: Accounts, tokens: Throttle) -> None:
        self._sessions = sessions
        self._accounts = accounts
        self._tokens = tokens
        # Whoever waits for a password to be looked at holds no thread that serves the others.
        self._desk = asyncio.Semaphore(2)

    async def answer(self, visit: Visit) -> Response | None:
        """What the door itself says to this request."""
        reading, path = visit.method in READ, visit.path
        if not reading and visit.method != "POST":
            return None
        if visit.wait_s and path not in ("/login", "/invite") and "token" not in visit.query:
            return wire.later(visit.wait_s)
        if path == "/healthz" and reading:
            return JSONResponse({"status": "ok"})
        if path == "/logout" and visit.actor is not None and not reading:
            return await self._leave(visit)
        if path in ("/", "/enter", "/login") and reading:
            return await self._arrive(visit)
        if path == "/login":
            return await self._login(visit)
        if path == "/register":
            return await self._register(visit)
        if path == "/invite":
            return await self._invite(visit)
        return None

    async def _arrive(self, visit: Visit) -> Response | None:
        token = visit.query.get("token", "")
        if visit.actor is not None:
            if token:
                self._sessions.use_token(token)  # nobody else may use it after this
            return self._go(_without_token(visit)) if token or visit.path != "/" else None
        if token and visit.method == "GET":
            return await self._by_link(visit, token, _without_token(visit))
        if visit.wait_s:
            return wire.later(visit.wait_s)
        return wire.html(await self._login_page()) if visit.path == "/login" else self._go("/login")

    async def _login(self, visit: Visit) -> Response:
        given = await wire.form(visit.receive)
        if "username" not in given:
            return await self._by_link(visit, _token_in(given.get("token", "")), "/")
        if visit.wait_s:
            return wire.later(visit.wait_s)
        name, password = given["username"], given.get("password", "")
        async with self._desk:
            verdict = await run_in_threadpool(
                self._accounts.sign_in, name, password, address=visit.address, shared=visit.shared
            )
        if verdict.wait_s:
            minutes = max(1, round(verdict.wait_s / 60))
            said = f"Too many wrong tries. Wait {minutes} min, or use a link."
            return wire.later(verdict.wait_s, wire.html(await self._login_page(said, name=name), 429))
        if verdict.user_id is None:
            return wire.html(await self._login_page(_WRONG, name=name), 401)
        return await self._enter(visit, verdict.user_id, "/", AWAY)

    async def _by_link(self, visit: Visit, token: str, then: str) -> Response:
        # A right token is let in whatever others tried: it cannot be guessed, and nobody
        # may keep the owner out by guessing.
        user_id = self._sessions.use_token(token)
        entered = user_id is not None and await run_in_threadpool(
            self._accounts.enter_by_link, user_id, address=visit.address
        )
        if entered and user_id is not None:
            return await self._enter(visit, user_id, then, AT_HOME if visit.at_home else AWAY)
        wait_s = visit.wait_s or self._tokens.take(visit.source)
        if wait_s:
            said = f"Too many wrong tries. Wait {wait_s:.0f} seconds."
            return wire.later(wait_s, wire.html(await self._login_page(said), 429))
        return wire.html(await self._login_page(_USED), 401)

    async def _register(self, visit: Visit) -> Response:
        if visit.wait_s:
            return wire.later(visit.wait_s)
        if not await run_in_threadpool(self._accounts.registration_is_open):
            return wire.html(pages.closed_page("Nobody can register here. Ask the owner for an invite."), 403)
        if visit.method in READ:
            return wire.html(pages.register_page())
        given = await wire.form(visit.receive)
        name, password = given.get("username", ""), given.get("password", "")
        try:
            async with self._desk:
                user_id = await run_in_threadpool(
                    self._accounts.register, name, password, address=visit.address
                )
        except MasukaError as error:
            return wire.html(pages.register_page(str(error), name=name), 400)
        return await self._enter(visit, user_id, "/", AWAY)

    async def _invite(self, visit: Visit) -> Response:
        reading = visit.method in READ
        given = visit.query if reading else await wire.form(visit.receive)
        token, name = given.get("token", ""), given.get("username", "")
        invite = await run_in_threadpool(self._accounts.invite_of, token)
        if invite is None:
            wait_s = visit.wait_s or self._tokens.take(visit.source)
            closed = wire.html(pages.closed_page(_NO_INVITE), 429 if wait_s else 404)
            return wire.later(wait_s, closed) if wait_s else closed
        if reading:
            return wire.html(pages.invite_page(invite.role, token))
        try:
            async with self._desk:
                user_id = await run_in_threadpool(
                    self._accounts.accept, token, name, given.get("password", ""), address=visit.address
                )
        except NotFound:
            return wire.html(pages.closed_page(_NO_INVITE), 404)
        except MasukaError as error:
            return wire.html(pages.invite_page(invite.role, token, str(error), name=name), 400)
        return await self._enter(visit, user_id, "/", AWAY)

    async def _enter(self, visit: Visit, user_id: int, then: str, lifetime: Lifetime) -> Response:
        cookie = await run_in_threadpool(
            self._sessions.begin, user_id, lifetime=lifetime, device=visit.device, before=visit.cookie
        )
        return self._go(then, self._cookie(visit, cookie, lifetime.absolute_s))

    async def _leave(self, visit: Visit) -> Response:
        await run_in_threadpool(self._sessions.end, visit.cookie)
        if visit.actor is not None:
            await run_in_threadpool(self._accounts.left, visit.actor, address=visit.address)
        return self._go("/login", self._cookie(visit, "", 0))

    def _cookie(self, visit: Visit, value: str, max_age_s: int) -> str:
        return wire.set_cookie(
            self._sessions.cookie_name, value, max_age_s=max_age_s,
            secure=wire.is_https(visit.scope, visit.headers), framed=visit.framed,
        )  # fmt: skip

    def _go(self, where: str, cookie: str = "") -> Response:
        more = {"set-cookie": cookie} if cookie else {}
        return RedirectResponse(where, 303, {**wire.FRESH, **more})

    async def _login_page(self, message: str = "", *, name: str = "") -> str:
        return pages.login_page(
            message, passwords=await run_in_threadpool(self._accounts.somebody_has_a_password),
            register=await run_in_threadpool(self._accounts.registration_is_open), name=name,
        )  # fmt: skip


def device(user_agent: str) -> str:
    """A browser as its owner would call it, for example 'Firefox on Windows'."""
    browsers = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
    systems = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS", "Mac"), ("Linux", "Linux"))
    browser = next((name for mark, name in browsers if mark in user_agent), "A browser")
    system = next((name for mark, name in systems if mark in user_agent), "")
    return f"{browser} on {system}" if system else browser


def _without_token(visit: Visit) -> str:
    kept = {name: value for name, value in visit.query.items() if name != "token"}
    return "/" + (f"?{urlencode(kept)}" if kept else "")


def _token_in(text: str) -> str:
    """The token that was typed, also out of a whole link."""
    text = text.strip()
    if "token=" not in text:
        return text
    try:
        return parse_qs(urlsplit(text).query).get("token", [""])[0]
    except ValueError:
        return ""
