"""The link for collaborators: opened by the first way that works, and closed when in doubt.

One thread of the app does it, because opening takes up to a minute. It opens nothing
unless an owner has a password and the app refuses a stranger; it shows nothing unless
the public address refuses one too; and it closes what is open when that is no longer so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from masuka.config import Settings, Workspace
from masuka.errors import Conflict, ExternalError, MasukaError, NotAllowed, RemoteUnavailable
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses, Wish
from masuka.hosting.runtime import Runtime
from masuka.hosting.tunnels import TITLES, Link, Tunnel
from masuka.hosting.tunnels.budget import Budget
from masuka.hosting.tunnels.cloudflared import Cloudflared
from masuka.hosting.tunnels.gradio_live import GradioLive, Start
from masuka.hosting.tunnels.ngrok import Ngrok
from masuka.hosting.tunnels.probe import local_must_refuse, public_must_refuse

METERED = frozenset({"ngrok"})
WATCH_EVERY_S = 10.0
REOPEN_WAITS_S = (5.0, 30.0, 120.0)
STEADY_S = 600.0
"""A link that held this long may be lost as often again."""
LOOK_EVERY_S = 0.5
PROVE_S = 20.0
STOP_S = 20.0
"""A download of an agent is not waited for longer; the thread ends with the app."""
LOCK_NAME = "tunnel.lock"

log = logging.getLogger(__name__)


def ways(
    settings: Settings, secrets: Mapping[str, str], *, start: Start, stop: Callable[[str], None]
) -> list[Tunnel]:
    """The tunnels that these settings and keys make possible, in their order.

    `start` and `stop` are Gradio's part, which needs no key.
    """
    folder = settings.workspace.secrets
    found: list[Tunnel] = []
    if token := secrets.get("NGROK_AUTHTOKEN"):
        found.append(
            Ngrok(token=token, folder=folder, domain=settings.ngrok_domain, program=settings.ngrok_program)
        )
    found.append(GradioLive(start=start, stop=stop, folder=folder))
    if (token := secrets.get("CLOUDFLARED_TOKEN")) and settings.cloudflared_host:
        found.append(Cloudflared(token=token, host_name=settings.cloudflared_host, folder=folder))
    return found


def opens_by_itself(settings: Settings, secrets: Mapping[str, str], host: Runtime) -> bool:
    """Whether a link is wanted at the start without anybody asking for it.

    A host with a public address of its own needs none. Kaggle's rules leave it open
    whether one is allowed, so there it must be asked for.
    """
    if settings.share == "off" or host.public_address or host.name == "space":
        return False
    if settings.share != "auto":
        return True
    named = bool(secrets.get("CLOUDFLARED_TOKEN") and settings.cloudflared_host)
    return host.name != "kaggle" and (named or bool(secrets.get("NGROK_AUTHTOKEN")))


def prove_ngrok(settings: Settings, token: str, *, deadline_s: float = PROVE_S) -> None:
    """Returns when ngrok accepts the authtoken, else raises what ngrok meant.

    An agent signs in and opens nothing. Raises Conflict while a link is open: one program
    of this workspace at a time.
    """
    folder = settings.workspace.secrets
    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Conflict("A link is open.", "Close it first, then test the key.") from error
    try:
        Ngrok(
            token=token, folder=folder, program=settings.ngrok_program, deadline_s=deadline_s,
            config_name="ngrok-test.yml",
        ).prove()  # fmt: skip
    finally:
        lock.release()


@dataclass
class Rules:
    """What the sharing asks of the app around it.

    `may_open` raises NotAllowed while no owner has a password. `allow_host` lets the gate
    accept the link's name, `forget_host` no longer. `tunnels` gives the ways that are
    possible now. `probe` raises when a stranger gets in at the public address; it waits
    between its tries with what it is given.
    """

    may_open: Callable[[], None]
    allow_host: Callable[[Link], None]
    forget_host: Callable[[Link], None]
    tunnels: Callable[[], Sequence[Tunnel]]
    budget: Budget
    share: str = "auto"
    public_address: str = ""
    probe: Callable[[str, Callable[[float], None]], None] = public_must_refuse
    say: Callable[[Addresses], Any] = field(default=lambda told: None)


class Sharing:
    """Opens, watches and closes the one link of a running app, from `start` to `stop`."""

    def __init__(
        self,
        workspace: Workspace,
        address: str,
        rules: Rules,
        *,
        watch_every_s: float = WATCH_EVERY_S,
        reopen_waits_s: Sequence[float] = REOPEN_WAITS_S,
    ) -> None:
        self._workspace = workspace
        self._rules = rules
        self._watch_every_s = watch_every_s
        self._reopen_waits_s = list(reopen_waits_s)
        self._waits_s = list(reopen_waits_s)
        self._again: tuple[float, str] | None = None
        self._told = Addresses(address=address)
        self._tunnel: Tunnel | None = None
        self._link: Link | None = None
        self._watched_s = self._opened_s = 0.0
        self._opening: Tunnel | None = None
        # Taken by the thread, given back by whoever stops it.
        self._lock = FileLock(workspace.secrets / LOCK_NAME, thread_local=False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sharing", daemon=True)

    @property
    def told(self) -> Addresses:
        """What is known about the addresses now."""
        return self._told

    def start(self, *, open_now: bool) -> None:
        """Begins; with `open_now` a link is opened without being asked for."""
        self._set(state="opening" if open_now else "closed")
        if open_now:
            addresses.ask(self._workspace, "open")
        self._thread.start()

    def stop(self) -> None:
        """Closes the link and ends the thread."""
        self._stopping.set()
        if (opening := self._opening) is not None:
            opening.close()  # what it waits for does not come any more
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        self.close()
        addresses.forget(self._workspace)

    def open(self, provider: str = "") -> Link:
        """The link by the first way that works; an open one is closed before.

        Raises NotAllowed when a stranger could get in or links are switched off,
        Conflict when another app of this workspace has one, ExternalError else.
        """
        self.close()
        self._must_be_allowed()
        tunnels = self._chosen(provider)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise Conflict("Another running app of this workspace has the link.", "Stop it first.") from error
        try:
            return self._first_of(tunnels)
        finally:
            if self._tunnel is None:
                self._lock.release()

    def close(self) -> None:
        """Closes the link, if one is open."""
        self._again = None
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
            self._lock.release()
        self._forget()
        self._rules.budget.keep(now=True)
        self._set(state="closed", public_url="", provider="", message="", hint="")

    def _must_be_allowed(self) -> None:
        if self._rules.share == "off":
            raise NotAllowed("Links are switched off here.", "Remove MASUKA_SHARE=off and start the app again.")
        if self._rules.public_address:
            raise NotAllowed(
                f"This app has a public address already: {self._rules.public_address}",
                "Send that one to the people you invite.",
            )
        self._rules.may_open()
        local_must_refuse(self._told.address)

    def _chosen(self, provider: str) -> list[Tunnel]:
        wanted = provider or (self._rules.share if self._rules.share != "auto" else "")
        found = [t for t in self._rules.tunnels() if wanted in ("", t.provider)]
        if not found:
            raise NotAllowed(
                f"{TITLES.get(wanted, wanted)} needs a token that is not there.", "Enter it in Settings → Keys."
            )
        return found

    def _first_of(self, tunnels: Sequence[Tunnel]) -> Link:
        failures: list[ExternalError] = []
        parts = urlsplit(self._told.address)
        host = "127.0.0.1" if parts.hostname in (None, "localhost") else str(parts.hostname)
        for tunnel in tunnels:
            self._set(state="opening", provider=tunnel.provider)
            try:
                return self._opened(tunnel, host, parts.port or 80)
            except ExternalError as error:
                log.warning("no link by %s: %s", tunnel.provider, error)
                failures.append(error)
            if self._stopping.is_set():
                break
        # The first way is the one that the person set up; its trouble is what they can mend.
        raise failures[0]

    def _opened(self, tunnel: Tunnel, host: str, port: int) -> Link:
        try:
            self._opening = tunnel
            self._link = link = tunnel.open(host, port)
            self._rules.allow_host(link)
            if tunnel.provider in METERED:
                self._rules.budget.meter(link.host)
            self._rules.probe(link.url, self._pause)
            self._rules.may_open()
            self._pause(0)
        except BaseException:
            tunnel.close()
            self._forget()
            raise
        finally:
            self._opening = None
        self._tunnel = tunnel
        self._watched_s = self._opened_s = time.monotonic()
        self._set(state="open", public_url=link.url, provider=link.provider, message="", hint="")
        return link

    def _pause(self, seconds: float) -> None:
        """Waits; raises when the app is closing meanwhile."""
        if self._stopping.wait(seconds):
            raise RemoteUnavailable("The app is closing.", "Open the link again when it is back.")

    def _forget(self) -> None:
        """Nothing is served, and nothing counted, under the link's name any more."""
        self._rules.budget.meter("")
        if self._link is not None:
            self._rules.forget_host(self._link)
            self._link = None

    def _run(self) -> None:
        while not self._stopping.is_set():
            now_s = time.monotonic()
            wish = addresses.take_wish(self._workspace)
            if wish is not None:
                self._waits_s = list(self._reopen_waits_s)
                self._carry_out(wish)
            elif self._again is not None and now_s >= self._again[0]:
                self._guard(partial(self._open_again, self._again[1]))
            elif self._tunnel is not None and now_s - self._watched_s >= self._watch_every_s:
                self._guard(self._watch)
            self._stopping.wait(LOOK_EVERY_S)

    def _carry_out(self, wish: Wish) -> None:
        self._guard(self.close if wish.want == "close" else lambda: self.open(wish.provider))
        self._set(answered=wish.id)
        self._rules.say(self._told)

    def _guard(self, do: Callable[[], object]) -> None:
        """Does it; a failure leaves nothing open and is told."""
        try:
            do()
        except MasukaError as error:
            self.close()
            self._set(state="failed", message=error.message, hint=error.hint)
        except Exception:
            log.exception("the link could not be looked after")
            self.close()
            self._set(
                state="failed", message="The link was closed because of a fault.", hint="The log tells more."
            )

    def _watch(self) -> None:
        """Closes the link when it must not be open; opens it again when its program ended."""
        self._watched_s = time.monotonic()
        self._rules.may_open()
        self._rules.budget.keep()
        usage = self._rules.budget.usage()
        if (usage.month, usage.requests, usage.bytes) != (self._told.month, self._told.requests, self._told.bytes):
            self._tell()
        if self._tunnel is None:
            return
        if self._tunnel.alive():
            if self._watched_s - self._opened_s > STEADY_S:
                self._waits_s = list(self._reopen_waits_s)
            return
        log.warning("the program behind the link ended")
        provider = self._told.provider
        self.close()
        self._try_later(provider, RemoteUnavailable("The link was lost and could not be kept open.", "Open it again."))

    def _open_again(self, provider: str) -> None:
        try:
            self.open(provider)
        except ExternalError as error:
            self.close()
            self._try_later(provider, error)
        self._rules.say(self._told)

    def _try_later(self, provider: str, error: ExternalError) -> None:
        """Plans to open the link again; raises the error when it was tried often enough."""
        if not self._waits_s:
            raise error
        self._again = (time.monotonic() + self._waits_s.pop(0), provider)
        self._set(state="opening", provider=provider, message=error.message, hint="It is tried again by itself.")

    def _set(self, **changed: Any) -> None:
        self._told = replace(self._told, **changed)
        self._tell()

    def _tell(self) -> None:
        usage = self._rules.budget.usage()
        self._told = replace(
            self._told, month=usage.month, requests=usage.requests, bytes=usage.bytes
        )
        addresses.write(self._workspace, self._told)
