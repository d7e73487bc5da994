"""The link for collaborators: opened by the first way that works, and closed when in doubt.

One thread of the app does it, because opening takes up to a minute. It opens nothing
unless an owner has a password and the app refuses a stranger; it shows nothing unless
the public address refuses one too; and it closes what is open when that is no longer so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from masuka.config import Workspace
from masuka.errors import Conflict, ExternalError, MasukaError, NotAllowed, RemoteUnavailable, StoreError
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses, Wish
from masuka.hosting.tunnels import TITLES, Link, Tunnel
from masuka.hosting.tunnels.budget import Budget
from masuka.hosting.tunnels.probe import local_must_refuse, public_must_refuse
from masuka.hosting.tunnels.warden import Warden, end_left
from masuka.hosting.ways import LOCK_NAME

METERED = frozenset({"ngrok"})
WATCH_EVERY_S = 10.0
ASK_EVERY = 6
"""At every so many looks the app itself is asked whether it still refuses a stranger."""
REOPEN_WAITS_S = (5.0, 30.0, 120.0)
STEADY_S = 600.0
"""A link that held this long may be lost as often again."""
LOOK_EVERY_S = 0.5
STOP_S = 20.0
"""A download of an agent is not waited for longer; the thread ends with the app."""

log = logging.getLogger(__name__)


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
        self._looks = 0
        self._untold = False
        self._first: Wish | None = None
        self._opening: Tunnel | None = None
        # Taken by the thread, given back by whoever stops it.
        self._lock = FileLock(workspace.secrets / LOCK_NAME, thread_local=False)
        self._warden = Warden(workspace.secrets)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sharing", daemon=True)

    @property
    def told(self) -> Addresses:
        """What is known about the addresses now."""
        return self._told

    def start(self, *, open_now: bool) -> None:
        """Begins; with `open_now` a link is opened without being asked for."""
        self._set(state="opening" if open_now else "closed")
        self._first = Wish("", "open") if open_now else None
        self._thread.start()

    def stop(self) -> None:
        """Closes the link and ends the thread; what goes wrong with it is in the log."""
        self._stopping.set()
        if (opening := self._opening) is not None:
            _logged(opening.close)  # what it waits for does not come any more
        if self._thread.ident is not None:
            self._thread.join(STOP_S)
        _logged(self.close)
        _logged(lambda: addresses.forget(self._workspace))

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
            end_left(self._workspace.secrets)
            self._warden.start()
            return self._first_of(tunnels)
        finally:
            if self._tunnel is None:
                self._warden.stop()
                self._lock.release()

    def close(self) -> None:
        """Closes the link, if one is open.

        Raises what its program raised that does not end; it is served nothing any more
        then, and closed again later.
        """
        self._again = None
        self._forget()
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None
            self._warden.stop()
            self._lock.release()
        self._set(state="closed", public_url="", provider="", message="", hint="")
        self._keep(now=True)

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
            self._forget()
            tunnel.close()
            raise
        finally:
            self._opening = None
        self._tunnel = tunnel
        self._watched_s = self._opened_s = time.monotonic()
        self._looks = 0
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
        try:
            _logged(self._end_left)
            while not self._stopping.is_set():
                _logged(self._look)
                self._stopping.wait(LOOK_EVERY_S)
        finally:
            _logged(self.close)

    def _end_left(self) -> None:
        """Ends what a killed app left; a link of another running app is its own."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return
        try:
            end_left(self._workspace.secrets)
        finally:
            self._lock.release()

    def _look(self) -> None:
        now_s = time.monotonic()
        wish = self._next_wish()
        if wish is not None:
            self._waits_s = list(self._reopen_waits_s)
            self._carry_out(wish)
        elif self._again is not None and now_s >= self._again[0]:
            self._guard(partial(self._open_again, self._again[1]))
        elif self._tunnel is not None and now_s - self._watched_s >= self._watch_every_s:
            self._guard(self._watch)
        if self._untold:
            self._tell()

    def _next_wish(self) -> Wish | None:
        first, self._first = self._first, None
        try:
            return first or addresses.take_wish(self._workspace)
        except (OSError, ValueError) as error:
            log.warning("a wish for the link could not be read: %s", error)
            return None

    def _carry_out(self, wish: Wish) -> None:
        self._guard(self.close if wish.want == "close" else lambda: self.open(wish.provider))
        self._set(answered=wish.id)
        _logged(lambda: self._rules.say(self._told))

    def _guard(self, do: Callable[[], object]) -> None:
        """Does it; a failure leaves nothing open and is told."""
        try:
            do()
        except MasukaError as error:
            self._fail(error.message, error.hint)
        except Exception:
            log.exception("the link could not be looked after")
            self._fail("The link was closed because of a fault.", "The log tells more.")

    def _fail(self, message: str, hint: str) -> None:
        if not _logged(self.close):
            message, hint = "The link's program does not end; the app answers it nothing.", "Stop the app to end it."
        self._set(state="failed", public_url="", provider="", message=message, hint=hint)

    def _watch(self) -> None:
        """Closes the link when it must not be open; opens it again when its program ended."""
        self._watched_s = time.monotonic()
        tunnel, provider = self._tunnel, self._told.provider
        if tunnel is None or self._link is None:
            self.close()  # its program did not end the last time
            return
        try:
            self._must_still_refuse()
        except StoreError as error:
            # Whether it may be open cannot be known now.
            self.close()
            self._try_later(provider, error)
            return
        self._keep()
        usage = self._rules.budget.usage()
        if (usage.month, usage.requests, usage.bytes) != (self._told.month, self._told.requests, self._told.bytes):
            self._tell()
        if tunnel.alive():
            if self._watched_s - self._opened_s > STEADY_S:
                self._waits_s = list(self._reopen_waits_s)
            return
        log.warning("the program behind the link ended")
        self.close()
        self._try_later(provider, RemoteUnavailable("The link was lost and could not be kept open.", "Open it again."))

    def _must_still_refuse(self) -> None:
        """Raises NotAllowed when a stranger could get in by now."""
        self._rules.may_open()
        self._looks += 1
        if self._looks % ASK_EVERY:
            return
        try:
            local_must_refuse(self._told.address)
        except RemoteUnavailable as error:
            log.info("the app was too busy to be asked: %s", error)  # nobody gets anything out of it either

    def _open_again(self, provider: str) -> None:
        try:
            self.open(provider)
        except (ExternalError, StoreError) as error:
            self.close()
            self._try_later(provider, error)
        _logged(lambda: self._rules.say(self._told))

    def _keep(self, *, now: bool = False) -> None:
        """Saves the month's count; a database that is busy does not end a link."""
        try:
            self._rules.budget.keep(now=now)
        except MasukaError as error:
            log.warning("the link's count of this month was not saved: %s", error)

    def _try_later(self, provider: str, error: MasukaError) -> None:
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
        try:
            addresses.write(self._workspace, self._told)
            self._untold = False
        except OSError as error:
            if not self._untold:
                log.warning("the app's addresses could not be told: %s", error)
            self._untold = True


def _logged(do: Callable[[], object]) -> bool:
    """Whether it was done; what went wrong is in the log and stops nothing else."""
    try:
        do()
    except Exception:
        log.exception("looking after the link went wrong")
        return False
    return True
