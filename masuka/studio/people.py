"""People of this studio: invites, roles, passwords, what is shared, who did what."""

from __future__ import annotations

import builtins
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from masuka import logs
from masuka.access import password as passwords
from masuka.access.accounts import REGISTRATION
from masuka.access.limits import Throttle
from masuka.access.links import digest
from masuka.access.password import Passwords
from masuka.access.sessions import Sessions
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.jobs import endings, queue
from masuka.requests.actor import Actor, Role
from masuka.requests.people import InvitePerson, clean_username
from masuka.store import audit as history
from masuka.store import characters, invites, jobs, settings, shares, users
from masuka.store.audit import Entry
from masuka.store.invites import Invite
from masuka.store.sessions import Session
from masuka.store.shares import Share, ShareKind
from masuka.store.users import User
from masuka.studio.context import Context, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.jobs import Jobs
from masuka.studio.library import Library
from masuka.studio.models import Models
from masuka.studio.training import Training


@dataclass(frozen=True)
class Person:
    """Somebody who may sign in; never a hash."""

    id: int
    username: str
    role: Role
    active: bool
    has_password: bool
    created_at: str


@dataclass(frozen=True)
class NewInvite:
    """An invite with its token, which is told this once."""

    invite: Invite
    token: str

    def link(self, address: str) -> str:
        """The address to send to whoever is invited."""
        return f"{address.rstrip('/')}/invite?token={self.token}"


class People:
    """Invite, see, change and remove people; others than an owner see to themselves."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._store = context.store

    @property
    def _actor(self) -> Actor:
        return self._context.actor

    @property
    def password_tries(self) -> Throttle:
        """The limit that the door and this studio share."""
        return self._context.password_tries

    def list(self) -> builtins.list[Person]:
        """Everybody, the first owner first; others than an owner see only themselves."""
        return [_person(user) for user in users.list_users(self._store, actor=self._actor)]

    def me(self) -> Person:
        """Who asks."""
        return _person(users.get_user(self._store, actor=self._actor, id=self._actor.user_id))

    def invite(
        self, request: InvitePerson | Mapping[str, Any] | None = None, /, **values: Any
    ) -> NewInvite:
        """The new invite and its token; raises NotFound for a character that is not there."""
        self._actor.must_own()
        wanted = parsed(InvitePerson, request, values)
        token = secrets.token_urlsafe(32)
        logs.redact.learn([token])
        with self._store.write():
            invite = invites.add_invite(
                self._store,
                actor=self._actor,
                token_hash=digest(token),
                role=wanted.role,
                note=wanted.note,
                shares=self._wanted_shares(wanted),
                expires_at=_at(timedelta(days=wanted.days)),
            )
            self.note("invited somebody", f"{wanted.note or 'no note'}, as {wanted.role}")
        return NewInvite(invite, token)

    def invites(self) -> Sequence[Invite]:
        """The invites of late, the newest first."""
        return invites.list_invites(self._store, actor=self._actor)

    def state_of(self, invite: Invite) -> str:
        """'open', 'used', 'revoked' or 'expired', now."""
        return invite.state(_at())

    def revoke(self, invite_id: int) -> Invite:
        """The invite, taken back."""
        invite = invites.revoke_invite(self._store, actor=self._actor, id=invite_id)
        self.note("took an invite back", invite.note)
        return invite

    def set_password(self, password: str, *, user_id: int | None = None, current: str | None = None) -> None:
        """Sets a password, one's own without `user_id`; it ends the person's sessions.

        Whoever has one and changes it through the page says the `current` one, which is
        looked at as seldom as at the door. A first password ends no session and no link.
        Only an owner sets another person's. Raises NotAllowed after too many wrong ones.
        """
        target = self._actor.user_id if user_id is None else user_id
        if target != self._actor.user_id:
            self._actor.must_own()
        user = users.get_user(self._store, actor=self._actor, id=target)
        hasher = Passwords()
        if current is not None and user.password_hash:
            self._must_be_current(user, current, hasher)
        hashed = hasher.hash(passwords.clean_password(password))
        with self._store.write():
            users.set_user(self._store, actor=self._actor, id=target, password_hash=hashed)
            self.note("set a password", user.username)
        if user.password_hash:
            self._sessions().links.forget(target)

    def _must_be_current(self, user: User, current: str, hasher: Passwords) -> None:
        tries, name = self._context.password_tries, user.username.casefold()
        wait_s = tries.take(name)
        if wait_s:
            minutes = max(1, round(wait_s / 60))
            raise NotAllowed("Too many wrong passwords.", f"Wait {minutes} min and try again.")
        if not hasher.check(current, user.password_hash):
            self.note("was refused", "another password")
            raise InvalidInput("The current password is wrong.", "Type it again.", field="current")
        tries.forget(name)

    def new_link(self, user_id: int) -> str:
        """A token that lets the person in once, within a day.

        Raises Conflict for one who is locked out.
        """
        self._actor.must_own()
        user = users.get_user(self._store, actor=self._actor, id=user_id)
        if not user.active:
            raise Conflict(f"{user.username} is locked out.", "Let them in again first.")
        token = self._sessions().new_token(user_id)
        logs.redact.learn([token])
        self.note("made a link for somebody", user.username)
        return token

    def ensure_owner_password(self) -> str | None:
        """A new password of the owner, told this once; None when an owner has one."""
        self._actor.must_own()
        return None if passwords.owner_has_one(self._store) else self.new_password()

    def new_password(self, *, user_id: int | None = None) -> str:
        """A made-up password that is set, one's own without `user_id`; told this once."""
        made = passwords.generate()
        logs.redact.learn([made])
        self.set_password(made, user_id=user_id)
        return made

    def take_owner_password(self, password: str) -> None:
        """Makes the host's own setting the owner's password; '' changes nothing."""
        if not password:
            return
        logs.redact.learn([password])
        owner = users.get_user(self._store, actor=self._actor, id=users.OWNER_ID)
        if not Passwords().check(password, owner.password_hash):
            self.set_password(password, user_id=owner.id)

    def rename(self, username: str, *, user_id: int | None = None) -> Person:
        """The person under another name to sign in with; raises Conflict when it is taken."""
        name = clean_username(username)
        target = self._actor.user_id if user_id is None else user_id
        with self._store.write():
            try:
                user = users.set_user(self._store, actor=self._actor, id=target, username=name)
            except Conflict:
                raise Conflict("Somebody has this name already.", "Choose another.") from None
            self.note("renamed a person", name)
        return _person(user)

    def set_role(self, user_id: int, role: Role) -> Person:
        """The person in the new role; their sessions end.

        Raises Conflict for the first owner, who stays one.
        """
        if role not in ("owner", "editor", "viewer"):
            raise InvalidInput(f"There is no role {role!r}.", "Use owner, editor or viewer.", field="role")
        _not_the_machines(user_id, role == "owner")
        with self._store.write():
            user = users.set_user(self._store, actor=self._actor, id=user_id, role=role)
            self.note("changed a role", f"{user.username} is {role}")
        return _person(user)

    def set_active(self, user_id: int, active: bool) -> Person:
        """The person, locked out or let in again; raises Conflict for the first owner.

        What a locked person has running or waiting is paused, or cancelled where it
        cannot be.
        """
        _not_the_machines(user_id, active)
        with self._store.write():
            user = users.set_user(self._store, actor=self._actor, id=user_id, active=active)
            self.note("let somebody in again" if active else "locked somebody out", user.username)
            if not active:
                queue.set_aside(self._store, user_id=user_id)
        self._context.wake()
        return _person(user)

    def remove(self, user_id: int) -> None:
        """Removes the person with all that is theirs, files too; what runs is stopped.

        Raises Conflict for the first owner and for the person who asks.
        """
        self._actor.must_own()
        if user_id == self._actor.user_id:
            raise Conflict("You cannot remove yourself.", "Another owner can.")
        user = self.set_active(user_id, False)
        self._sessions().end_all(user_id)
        self._remove_work(user_id)
        with self._store.write():
            users.delete_user(self._store, actor=self._actor, id=user_id)
            self.note("removed a person", user.username)
        self._context.forget_older_copies()

    def _remove_work(self, user_id: int) -> None:
        """Deletes a person's trainings, sets, LoRAs, pictures, jobs and uploads, files too."""
        context = self._context

        def theirs(table: Literal["datasets", "jobs", "runs", "models", "items"]) -> builtins.list[int]:
            return users.list_belongings(self._store, actor=self._actor, id=user_id, table=table)

        work, training, library = Jobs(context), Training(context), Library(context)
        work.stop([job.id for job in jobs.list_unfinished(self._store, user_id=user_id)])
        for run_id in theirs("runs"):
            training.delete(run_id)
        for dataset_id in theirs("datasets"):
            Datasets(context).delete(dataset_id)
        for adapter_id in theirs("models"):
            Models(context).erase(adapter_id)
        drawn = theirs("items")
        library.delete(drawn)
        library.purge(drawn)
        work.delete(theirs("jobs"))
        for upload in context.workspace.uploads.glob(f"{user_id}-*"):
            shutil.rmtree(upload)

    def share(self, user_id: int, kind: ShareKind, object_id: int = 0) -> None:
        """Lets a person see a character with all that hangs on it, a data set, or all."""
        with self._store.write():
            shares.add_share(
                self._store, actor=self._actor, user_id=user_id, kind=kind, object_id=object_id
            )
            self.note("shared", self._said(user_id, kind, object_id))

    def unshare(
        self, user_id: int, kind: ShareKind, object_id: int = 0, *, by_user_id: int | None = None
    ) -> None:
        """Takes it back, and stops the person's jobs on it.

        Of 'all' one's own, or what `by_user_id` shared.
        """
        with self._store.write():
            shares.delete_share(
                self._store, actor=self._actor, user_id=user_id, kind=kind, object_id=object_id,
                by_user_id=by_user_id,
            )  # fmt: skip
            self.note("stopped sharing", self._said(user_id, kind, object_id))
        for job in jobs.list_unfinished(self._store, user_id=user_id):
            try:
                queue.must_still_be_allowed(self._store, job)
            except NotAllowed:
                continue  # locked out or a viewer: it does not start as it is
            except NotFound:
                endings.cancel(self._store, workspace=self._context.workspace, actor=queue.SYSTEM, job_id=job.id)
        self._context.wake()

    def shares(self, *, user_id: int | None = None) -> Sequence[Share]:
        """What is shared, with one person or with all."""
        return shares.list_shares(self._store, actor=self._actor, user_id=user_id)

    def sessions(self) -> Sequence[Session]:
        """Where the person who asks is signed in."""
        return self._sessions().list(self._actor.user_id)

    def sign_out(self, *, user_id: int | None = None) -> None:
        """Ends every session and link of a person, one's own without `user_id`."""
        target = self._actor.user_id if user_id is None else user_id
        if target != self._actor.user_id:
            self._actor.must_own()
        self._sessions().end_all(target)
        self.note("signed out everywhere", "" if target == self._actor.user_id else f"person {target}")

    def registration(self) -> bool:
        """Whether strangers may make themselves an account, by setting or environment."""
        stored = settings.list_settings(self._store, actor=Actor(users.OWNER_ID))
        return self._context.settings.allow_registration or any(
            s.key == REGISTRATION and s.value == "1" for s in stored
        )

    def set_registration(self, open_to_all: bool) -> None:
        """Lets strangers make themselves an account, or not."""
        self._actor.must_own()
        if not open_to_all and self._context.settings.allow_registration:
            raise NotAllowed("ALLOW_REGISTRATION is set on this machine.", "Remove it there and start again.")
        owner = Actor(users.OWNER_ID)
        settings.set_setting(self._store, actor=owner, key=REGISTRATION, value="1" if open_to_all else "0")
        self.note("opened registration" if open_to_all else "closed registration")

    def audit(self, *, before_id: int | None = None, limit: int = 50) -> Sequence[Entry]:
        """Who did what, the newest first; for owners."""
        return history.list_audit(self._store, actor=self._actor, before_id=before_id, limit=limit)

    def note(self, action: str, about: str = "") -> None:
        """Writes into the history that the person who asks did something."""
        known = {user.id for user in users.list_users(self._store, actor=self._actor)}
        history.add_audit(
            self._store,
            user_id=self._actor.user_id if self._actor.user_id in known else None,
            name=self._actor.name,
            action=action,
            about=about,
        )

    def _sessions(self) -> Sessions:
        return Sessions(self._store, self._context.workspace.secrets)

    def _wanted_shares(self, wanted: InvitePerson) -> builtins.list[dict[str, Any]]:
        if wanted.share == "everything":
            return [{"kind": "all", "object_id": 0}]
        if wanted.share == "nothing":
            return []
        if not wanted.character_ids:
            raise InvalidInput("No character is chosen.", "Choose one or more.", field="character_ids")
        for character_id in wanted.character_ids:
            characters.get_character(self._store, actor=self._actor, id=character_id)
        return [{"kind": "character", "object_id": character_id} for character_id in wanted.character_ids]

    def _said(self, user_id: int, kind: ShareKind, object_id: int) -> str:
        what = "everything" if kind == "all" else f"{kind} {object_id}"
        return f"{what} with person {user_id}"


def _not_the_machines(user_id: int, harmless: bool) -> None:
    """The command line and the jobs of this machine act as the first owner."""
    if user_id == users.OWNER_ID and not harmless:
        raise Conflict("The first owner is whoever has this machine.", "Change another person.")


def _person(user: User) -> Person:
    return Person(
        id=user.id,
        username=user.username,
        role=user.role,
        active=user.active,
        has_password=user.password_hash is not None,
        created_at=user.created_at,
    )


def _at(later: timedelta = timedelta(0)) -> str:
    return (datetime.now(UTC) + later).isoformat(timespec="microseconds")
