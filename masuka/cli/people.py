"""masuka user, invite, password …: who may come in, from the machine itself."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from masuka.cli.command import Answer, command
from masuka.cli.show import table
from masuka.errors import Conflict, InvalidInput, NotFound
from masuka.requests.people import InvitePerson
from masuka.store.invites import Invite
from masuka.studio import Studio
from masuka.studio.people import Person

group = typer.Typer(help="People: list, roles, lock out, remove, history.", no_args_is_help=True)
invite_group = typer.Typer(help="Invites: make, list, revoke.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The person's name.")]


def add_to(app: typer.Typer) -> None:
    """Adds the groups, and the one command that belongs to none."""
    app.add_typer(group, name="user")
    app.add_typer(invite_group, name="invite")
    command(app, "password")(password)


@command(group, "list")
def list_all(studio: Studio) -> Answer:
    """Lists the people."""
    found = studio.people.list()
    rows = [(p.id, p.username, p.role, "yes" if p.has_password else "no", "" if p.active else "locked out") for p in found]
    return Answer(found, table(("id", "name", "role", "password", ""), rows))


@command(group, "role")
def role(
    studio: Studio, name: Name, role: Annotated[str, typer.Argument(help="owner, editor or viewer.")]
) -> Answer:
    """Gives a person another role; they sign in again."""
    person = studio.people.set_role(named(studio, name).id, role)  # type: ignore[arg-type]
    return Answer(person, f"{person.username} is {person.role} now.")


@command(group, "rename")
def rename(studio: Studio, name: Name, to: str) -> Answer:
    """Gives a person another name to sign in with."""
    person = studio.people.rename(to, user_id=named(studio, name).id)
    return Answer(person, f"Person {person.id} is called {person.username}.")


@command(group, "lock")
def lock(studio: Studio, name: Name) -> Answer:
    """Locks a person out, at once."""
    person = studio.people.set_active(named(studio, name).id, False)
    return Answer(person, f"{person.username} is locked out.")


@command(group, "unlock")
def unlock(studio: Studio, name: Name) -> Answer:
    """Lets a person in again."""
    person = studio.people.set_active(named(studio, name).id, True)
    return Answer(person, f"{person.username} may come in again.")


@command(group, "signout")
def sign_out(studio: Studio, name: Name) -> Answer:
    """Signs a person out everywhere."""
    person = named(studio, name)
    studio.people.sign_out(user_id=person.id)
    return Answer(person, f"{person.username} is signed out everywhere.")


@command(group, "share")
def share(
    studio: Studio,
    name: Name,
    character: Annotated[int, typer.Option(help="This character alone, with all that belongs to it.")] = 0,
    stop: Annotated[bool, typer.Option("--stop", help="Share it no longer.")] = False,
) -> Answer:
    """Lets a person see everything of the owner's, or one character."""
    person, act = named(studio, name), studio.people.unshare if stop else studio.people.share
    act(person.id, "character" if character else "all", character)
    return Answer(studio.people.shares(user_id=person.id), f"{person.username} {'sees it no longer' if stop else 'sees it now'}.")


@command(group, "remove")
def remove(studio: Studio, name: Name, yes: bool = False) -> Answer:
    """Removes a person with everything of theirs."""
    person = named(studio, name)
    if not yes:
        typer.confirm(f"Remove {person.username} with all pictures, sets and LoRAs of theirs?", abort=True, err=True)
    studio.people.remove(person.id)
    return Answer({"removed": person.id}, f"Removed {person.username}.")


@command(group, "history")
def history(studio: Studio, limit: Annotated[int, typer.Option(help="So many lines.", min=1, max=10_000)] = 50) -> Answer:
    """Tells who did what, the newest first."""
    found = studio.people.audit(limit=limit)
    rows = [(e.at[:19], e.name, e.action, e.about, e.address) for e in found]
    return Answer(found, table(("at (UTC)", "who", "what", "about", "from"), rows, empty="Nothing yet."))


@command(invite_group, "make", request=InvitePerson)
def make(
    studio: Studio,
    values: dict[str, object],
    address: Annotated[str, typer.Option(help="Where the app is reached, for the link.")] = "",
) -> Answer:
    """Makes an invite and prints its link, once."""
    made = studio.people.invite(**values)
    here = f"http://{studio.settings.host}:{studio.settings.port}"
    link = made.link(address or studio.links.public_base() or here)
    return Answer({**_shown(made.invite), "link": link}, f"{link}\nIt works once, until {made.invite.expires_at[:16]} UTC.")


@command(invite_group, "list")
def list_invites(studio: Studio) -> Answer:
    """Lists the invites of late."""
    found = studio.people.invites()
    rows = [(i.id, i.note, i.role, studio.people.state_of(i), i.expires_at[:16]) for i in found]
    return Answer([_shown(i) for i in found], table(("id", "for", "role", "state", "until (UTC)"), rows, empty="No invites yet."))


@command(invite_group, "revoke")
def revoke(studio: Studio, invite_id: int) -> Answer:
    """Takes an invite back."""
    invite = studio.people.revoke(invite_id)
    return Answer(_shown(invite), f"Invite {invite.id} lets nobody in any more.")


def password(
    studio: Studio,
    name: Annotated[str, typer.Option(help="Whose; the owner's without it.")] = "",
    generate: Annotated[bool, typer.Option("--generate", help="Make one up and print it.")] = False,
) -> Answer:
    """Sets a password, typed or from standard input; never from the command line.

    Ends every session of that person when they had one before.
    """
    person = named(studio, name) if name else studio.people.me()
    if generate:
        made = studio.people.new_password(user_id=person.id)
        return Answer({"username": person.username, "password": made}, f"{person.username}: {made}")
    if sys.stdin.isatty():
        text = typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        text = sys.stdin.readline().rstrip("\r\n")
    if not text:
        raise InvalidInput("No password came.", "Type one, pipe one in, or use --generate.", field="password")
    studio.people.set_password(text, user_id=person.id)
    return Answer({"username": person.username}, f"The password of {person.username} is set.")


def named(studio: Studio, name: str) -> Person:
    """The person of that name or number; raises NotFound, or Conflict for two."""
    found = [p for p in studio.people.list() if p.username.casefold() == name.casefold() or str(p.id) == name]
    if not found:
        raise NotFound(f"There is nobody called {name}.", "Look: masuka user list")
    if len(found) > 1:
        raise Conflict(f"{name} is one person's name and another's number.", "Rename the first: masuka user list")
    return found[0]


def _shown(invite: Invite) -> dict[str, Any]:
    return {
        "id": invite.id, "role": invite.role, "note": invite.note, "shares": invite.shares,
        "created_at": invite.created_at, "expires_at": invite.expires_at, "used_at": invite.used_at,
        "revoked_at": invite.revoked_at,
    }  # fmt: skip
