"""Names and passwords at the door: signing in, registering, accepting an invite.

Attempts are counted before a password is looked at, per name and per address. Where many
share one address, behind a tunnel or a proxy, the limit per name alone holds: strangers
must not keep everybody out. Who is kept out by guesses still enters by a one-time link.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from masuka.access.limits import Throttle
from masuka.access.links import digest
from masuka.access.password import Passwords, clean_password
from masuka.errors import Conflict, NotAllowed, NotFound
from masuka.requests.actor import Actor, Role
from masuka.requests.people import clean_username, typed_name
from masuka.store import audit, invites, settings, shares, users
from masuka.store.connect import Store
from masuka.store.invites import Invite

MINUTES_15_S = 15 * 60.0
NOBODY = "somebody"
"""In the history: a name that nobody has."""
REGISTRATION = "allow_registration"
"""The owner's setting by which strangers may make an account; '1' or not there."""
_DOORMAN = Actor(user_id=users.OWNER_ID, role="owner", name="door")
"""Adds people whom an invite or the owner's setting lets in; nobody's session has it."""


def password_tries() -> Throttle:
    """The limit for each name: five wrong passwords in a quarter of an hour."""
    return Throttle(5, MINUTES_15_S)


@dataclass(frozen=True)
class Verdict:
    """Who is let in, None for nobody; with `wait_s` nothing was even looked at."""

    user_id: int | None
    wait_s: float = 0.0


@dataclass
class Accounts:
    """What the login page asks; `registration` is the host's own setting."""

    store: Store
    passwords: Passwords = field(default_factory=Passwords)
    per_name: Throttle = field(default_factory=password_tries)
    per_address: Throttle = field(default_factory=lambda: Throttle(20, MINUTES_15_S))
    registers: Throttle = field(default_factory=lambda: Throttle(20, MINUTES_15_S))
    registration: bool = False
    clock: Callable[[], float] = time.time

    def sign_in(self, username: str, password: str, *, address: str, shared: bool = False) -> Verdict:
        """Who that is; takes as long for a name that nobody has.

        `shared` says that many may come from this address.
        """
        name = typed_name(username)
        wait_s = self._take(name.casefold(), "" if shared else address)
        if wait_s:
            return Verdict(None, wait_s)
        user = users.find_user(self.store, username=name)
        right = self.passwords.check(password, user.password_hash if user else None)
        if user is None or not right or not user.active:
            # What nobody is called may be a password that was typed into the wrong field.
            known, called = (user.id, user.username) if user else (None, NOBODY)
            self._note("was refused", known, called, address=address)
            return Verdict(None)
        if user.password_hash and self.passwords.outdated(user.password_hash):
            users.renew_hash(self.store, id=user.id, old=user.password_hash, new=self.passwords.hash(password))
        self.per_name.forget(name.casefold())
        if not shared:
            self.per_address.give_back(address)
        self._note("signed in", user.id, user.username, address=address)
        return Verdict(user.id)

    def enter_by_link(self, user_id: int, *, address: str) -> bool:
        """Whether the user of a one-time link may still enter."""
        try:
            user = users.get_user(self.store, actor=_DOORMAN, id=user_id)
        except NotFound:
            return False
        if user.active:
            self._note("signed in by a link", user.id, user.username, address=address)
        return user.active

    def left(self, actor: Actor, *, address: str) -> None:
        """Notes that somebody signed out."""
        self._note("signed out", actor.user_id, actor.name, address=address)

    def somebody_has_a_password(self) -> bool:
        """Whether the login page has to offer a name and a password."""
        return any(u.password_hash and u.active for u in users.list_users(self.store, actor=_DOORMAN))

    def registration_is_open(self) -> bool:
        """Whether strangers may make themselves an account."""
        known = settings.list_settings(self.store, actor=_DOORMAN)
        return self.registration or any(s.key == REGISTRATION and s.value == "1" for s in known)

    def register(self, username: str, password: str, *, address: str) -> int:
        """The new person, an editor with nothing shared; raises NotAllowed while closed."""
        if not self.registration_is_open():
            raise NotAllowed("Nobody can register here.", "Ask the owner for an invite.")
        if self.registers.take(address):
            raise NotAllowed("Too many people try to come in just now.", "Wait a quarter of an hour.")
        user_id = self._add(username, password, "editor")
        self._note("registered", user_id, username, address=address)
        return user_id

    def invite_of(self, token: str) -> Invite | None:
        """The open invite of a token."""
        return invites.find_invite(self.store, token_hash=digest(token), now=self._now()) if token else None

    def accept(self, token: str, username: str, password: str, *, address: str) -> int:
        """The new person, with the invite's role and what it shares; the invite is used.

        Raises NotFound for an invite that is not open, Conflict for a name that is taken.
        """
        invite = self.invite_of(token)
        if invite is None:
            raise NotFound("This invite is not good any more.", "Ask for a new one.")
        clean_password(password)
        hashed = self.passwords.hash(password)
        with self.store.write():
            user_id = self._add(username, "", invite.role, hashed=hashed)
            invites.use_invite(self.store, id=invite.id, user_id=user_id, now=self._now())
            by = Actor(user_id=invite.by_user_id, role="owner")
            for share in invite.shares:
                self._share(by, user_id, share)
        self._note("accepted an invite", user_id, username, about=f"as {invite.role}", address=address)
        return user_id

    def _share(self, by: Actor, user_id: int, share: dict[str, object]) -> None:
        try:
            shares.add_share(
                self.store, actor=by, user_id=user_id,
                kind="all" if share["kind"] == "all" else "character", object_id=int(str(share["object_id"])),
            )  # fmt: skip
        except NotFound:
            # The character was deleted after the invite was sent.
            self._note("was shown less", user_id, "", about=f"character {share['object_id']} is gone")

    def _add(self, username: str, password: str, role: Role, *, hashed: str = "") -> int:
        name = clean_username(username)
        if not hashed:
            hashed = self.passwords.hash(clean_password(password))
        try:
            return users.add_user(
                self.store, actor=_DOORMAN, username=name, role=role, password_hash=hashed
            ).id
        except Conflict:
            raise Conflict("Somebody has this name already.", "Choose another.") from None

    def _take(self, name: str, address: str) -> float:
        """The seconds to wait; 0 when the attempt may be looked at, which is counted.

        An address of '' is not counted.
        """
        wait_s = self.per_address.take(address) if address else 0.0
        if wait_s:
            return wait_s
        wait_s = self.per_name.take(name)
        if wait_s and address:
            self.per_address.give_back(address)
        return wait_s

    def _note(self, action: str, user_id: int | None, name: str, *, about: str = "", address: str = "") -> None:
        audit.add_audit(self.store, user_id=user_id, name=name, action=action, about=about, address=address)

    def _now(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="microseconds")
