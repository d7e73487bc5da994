"""Settings → People: who may come in, as what, what they see, and who did what."""

from __future__ import annotations

from masuka.errors import InvalidInput, NotFound
from masuka.requests.base import params
from masuka.requests.people import InvitePerson
from masuka.requests.text import id_in
from masuka.store.invites import Invite
from masuka.store.users import OWNER_ID
from masuka.studio import Studio
from masuka.studio.people import Person
from masuka.ui.forms import field
from masuka.ui.kit import Outcome, Payload, Region, id_of, values_of
from masuka.ui.markup import attributes, button, card, chip, disclosure, esc
from masuka.ui.view import View
from masuka.ui.words import moment, plural

INVITE_FORM, PASSWORD_FORM, NAME_FORM = "settings-invite", "settings-password", "settings-name"
ROLE_WORDS = {"owner": "Owner", "editor": "Editor", "viewer": "Viewer"}
SHARE_WORDS = (
    ("everything", "Everything of mine"),
    ("characters", "Some characters, with all that belongs to them"),
    ("nothing", "Nothing; a place of their own"),
)
_ROLE_CHOICES = (
    ("viewer", "Viewer: looks at what I share"),
    ("editor", "Editor: also makes things, changes and deletes what I share"),
)
_STATES = {"open": "warn", "used": "good", "revoked": "", "expired": ""}
ENTRIES_SHOWN, INVITES_SHOWN = 40, 8


def draw_people(studio: Studio, view: View) -> str:
    """Everybody with their role, and what may be done about it."""
    rows = "".join(_person(studio, person) for person in studio.people.list())
    body = f'<div class="list bare">{rows}</div>{_registration(studio)}'
    return card(body, title="People")


def draw_invites(studio: Studio, view: View) -> str:
    """The invites that were made, the open ones with a way to take them back."""
    found = studio.people.invites()[:INVITES_SHOWN]
    if not found:
        return ""
    return card(f'<div class="list bare">{"".join(_invite(studio, i) for i in found)}</div>', title="Invites")


def draw_invite_form(studio: Studio, view: View) -> str:
    """Where an invite is made; its link is shown once, after that."""
    known = params(InvitePerson)
    boxes = "".join(
        f'<label class="switch"><input{attributes({"type": "checkbox", "name": f"character-{c.id}", "data-default": "", "id": f"{INVITE_FORM}-character-{c.id}"})}>'
        f"<span>{esc(c.name)}</span></label>"
        for c in studio.characters.list()
    )
    chosen = (
        f'<fieldset class="wide"><legend>Characters, where some are shared</legend>{boxes}</fieldset>' if boxes else ""
    )
    shares = SHARE_WORDS if boxes else tuple(s for s in SHARE_WORDS if s[0] != "characters")
    body = (
        field(INVITE_FORM, known["role"], choices=_ROLE_CHOICES, wide=True, label="They come in as")
        + field(INVITE_FORM, known["share"], choices=shares, wide=True, label="They see")
        + chosen
        + field(INVITE_FORM, known["days"])
        + field(INVITE_FORM, known["note"], label="For whom", placeholder="Kim")
        + button("Make an invite", "settings-invite", look="primary", form=INVITE_FORM, name=f"{INVITE_FORM}-go")
    )
    form = (
        f'<form id="{INVITE_FORM}" class="form" data-submit="{INVITE_FORM}-go" novalidate autocomplete="off">{body}</form>'
    )
    hint = '<p class="hint">An invite is a link that lets one person in, once. Send it to them alone.</p>'
    return card(hint + form, title="Invite somebody")


def draw_me(studio: Studio, view: View) -> str:
    """Who the visitor is, where they are signed in, their password, the way out."""
    me, sessions = studio.people.me(), studio.people.sessions()
    current = _secret("current", "Current password", "current-password") if me.has_password else ""
    form = (
        f'<form id="{PASSWORD_FORM}" class="form" data-submit="{PASSWORD_FORM}-go" novalidate autocomplete="off">'
        f'{current}{_secret("password", "New password", "new-password", "10 to 200 characters; several words are good.")}'
        + button("Save password", "settings-own-password", form=PASSWORD_FORM, name=f"{PASSWORD_FORM}-go")
        + "</form>"
    )
    devices = "".join(
        f"<div><div><h3>{esc(s.device or 'A browser')}</h3><p>since {moment(s.created_at)}, seen {moment(s.seen_at)}</p></div></div>"
        for s in sessions
    )
    out = '<form method="post" action="logout"><button class="button" type="submit">Sign out here</button></form>'
    every = button(
        "Sign out everywhere", "settings-sign-out", confirm="Sign out on every device?",
        detail="This page too. You come in again with your password or a new link.", yes="Sign out",
    )  # fmt: skip
    said = "Nobody can sign in as you without a link." if not me.has_password else "A new password signs you out everywhere."
    return card(
        f"<p><strong>{esc(me.username)}</strong> {chip(ROLE_WORDS[me.role])}</p>"
        f'<div class="list bare">{devices}</div><div class="actions">{out}{every}</div>'
        + disclosure("Password" if me.has_password else "Set a password", f'<p class="hint">{said}</p>{form}', name="settings-own"),
        title="You",
    )


def draw_history(studio: Studio, view: View) -> str:
    """Who did what, the newest first."""
    rows = "".join(
        f"<div><div><h3>{esc(e.name or 'somebody')} {esc(e.action)}</h3><p>{esc(e.about)}</p></div>"
        f'<span class="hint">{moment(e.at)}{esc(f" · {e.address}" if e.address else "")}</span></div>'
        for e in studio.people.audit(limit=ENTRIES_SHOWN)
    )
    body = f'<div class="list bare">{rows}</div>' if rows else '<p class="hint">Nothing yet.</p>'
    return card(disclosure(f"The last {ENTRIES_SHOWN}", body, name="settings-history-lines"), title="Who did what")


def on_invite(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A new invite, its link shown once."""
    values = values_of(payload)
    chosen = [int(n.removeprefix("character-")) for n, on in values.items() if _is_box(n) and on in (True, "true")]
    wanted = {n: v for n, v in values.items() if not _is_box(n)}
    made = studio.people.invite({**wanted, "character_ids": chosen})
    return Outcome(
        clear=INVITE_FORM,
        show={
            "title": "The invite",
            "text": f"Send this to {made.invite.note or 'one person'}. It works once, and it is not shown again.",
            "link": f"{studio.links.public_base()}invite?token={made.token}",
        },
    )


def on_revoke(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The invite no longer lets anybody in."""
    studio.people.revoke(id_of(payload))
    return Outcome("The invite was taken back.")


def on_role(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person has another role and signs in again."""
    role = payload.get("role")
    if role not in ("owner", "editor", "viewer"):
        raise InvalidInput("This role is unknown.", "Reload the page.")
    person = studio.people.set_role(id_of(payload), role)
    return Outcome(f"{person.username} is {ROLE_WORDS[person.role].lower()} now.")


def on_lock(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person is out at once, or may come in again."""
    person = studio.people.set_active(id_of(payload), payload.get("on") is True)
    return Outcome(f"{person.username} may come in again." if person.active else f"{person.username} is locked out.")


def on_end(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person signs in again, on every device."""
    studio.people.sign_out(user_id=id_of(payload))
    return Outcome("Signed out everywhere.")


def on_remove(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person is gone, with all that was theirs."""
    studio.people.remove(id_of(payload))
    return Outcome("Removed, with everything of theirs.")


def on_share_all(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person sees everything of the owner who asks, or no longer does; or of `by`."""
    if payload.get("on") is True:
        studio.people.share(id_of(payload), "all")
    else:
        by = id_of(payload, "by") if "by" in payload else None
        studio.people.unshare(id_of(payload), "all", by_user_id=by)
    return Outcome("Shared." if payload.get("on") is True else "Not shared any more.")


def on_unshare(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The person no longer sees the character."""
    studio.people.unshare(id_of(payload), "character", id_of(payload, "character"))
    return Outcome("Not shared any more.")


def on_registration(studio: Studio, payload: Payload, view: View) -> Outcome:
    """Strangers may make themselves an account, or no longer."""
    studio.people.set_registration(payload.get("on") is True)
    return Outcome("Registration is open." if payload.get("on") is True else "Registration is closed.")


def on_new_password(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A made-up password of another person, shown once."""
    studio.actor.must_own()
    made = studio.people.new_password(user_id=id_of(payload))
    return Outcome(
        show={"title": "The new password", "text": "Tell it to them. It is not shown again.", "plain": made}
    )


def on_own_password(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The visitor's own password; another than before ends every session of theirs."""
    values = values_of(payload)
    had_one = studio.people.me().has_password
    studio.people.set_password(str(values.get("password", "")), current=str(values.get("current", "")))
    return Outcome("Saved. Sign in again." if had_one else "Saved.", clear=PASSWORD_FORM)


def on_sign_out(studio: Studio, payload: Payload, view: View) -> Outcome:
    """Every session of the visitor ends, this one too."""
    studio.people.sign_out()
    return Outcome("Signed out everywhere.")


def _person(studio: Studio, person: Person) -> str:
    own = person.id == studio.actor.user_id
    actions = "" if own else f'<div class="actions">{"".join(_for_others(studio, person))}</div>'
    change = disclosure("Change", actions, name=f"settings-person-{person.id}") if actions else ""
    state = chip("Locked out", "bad") if not person.active else ""
    way = "by password" if person.has_password else "by link only"
    seen = "" if person.role == "owner" else f" · {_shared(studio, person)}"
    return (
        f"<div><div><h3>{esc(person.username)} {chip(ROLE_WORDS[person.role])}{state}</h3>"
        f"<p>{way}{seen}</p>{change}</div></div>"
    )


def _for_others(studio: Studio, person: Person) -> list[str]:
    name = person.username
    first = person.id == OWNER_ID
    roles = [] if first else [
        button(f"Make {word.lower()}", "settings-role", id=person.id, role=role,
               confirm=f"Make {name} {word.lower()}?", detail="They sign in again.", yes=f"Make {word.lower()}")
        for role, word in ROLE_WORDS.items() if role != person.role
    ]  # fmt: skip
    shares = studio.people.shares(user_id=person.id)
    everything = any(s.kind == "all" and s.by_user_id == studio.actor.user_id for s in shares)
    label = "Stop sharing everything" if everything else "Share everything of mine"
    sharing = [] if person.role == "owner" else [button(label, "settings-share-all", id=person.id, on=not everything)]
    sharing += [
        button(f"Stop sharing everything of {_name(studio, s.by_user_id)}", "settings-share-all", id=person.id, by=s.by_user_id)
        for s in shares if s.kind == "all" and s.by_user_id != studio.actor.user_id
    ]  # fmt: skip
    sharing += [
        button(f"Stop sharing {_character(studio, s.object_id)}", "settings-unshare", id=person.id, character=s.object_id)
        for s in shares if s.kind == "character"
    ]  # fmt: skip
    renew = button(
        "New password", "settings-new-password", id=person.id, confirm=f"Make a new password for {name}?",
        detail="It is shown once. They are signed out everywhere.", yes="Make one",
    )  # fmt: skip
    lock = button("Lock out" if person.active else "Let in again", "settings-lock", id=person.id, on=not person.active)
    ends = button("Sign out everywhere", "settings-end", id=person.id)
    remove = button(
        "Remove", "settings-remove", look="danger", id=person.id, confirm=f"Remove {name}?",
        detail="Their characters, data sets, trainings, LoRAs and pictures are deleted for good.", yes="Remove",
    )  # fmt: skip
    return [*roles, *sharing, ends, renew] + ([] if first else [lock, remove])


def _shared(studio: Studio, person: Person) -> str:
    shares = studio.people.shares(user_id=person.id)
    if any(s.kind == "all" for s in shares):
        return "sees everything of " + ("yours" if any(s.by_user_id == studio.actor.user_id for s in shares) else "another's")
    count = sum(s.kind == "character" for s in shares)
    return f"sees {plural(count, 'shared character')}" if count else "sees their own things"


def _character(studio: Studio, character_id: int) -> str:
    try:
        return studio.characters.get(character_id).name
    except NotFound:
        return f"character {character_id}"


def _name(studio: Studio, user_id: int) -> str:
    return next((p.username for p in studio.people.list() if p.id == user_id), f"person {user_id}")


def _invite(studio: Studio, invite: Invite) -> str:
    state = studio.people.state_of(invite)
    back = button("Take back", "settings-revoke", id=invite.id, look="quiet") if state == "open" else ""
    what = "everything of yours" if any(s["kind"] == "all" for s in invite.shares) else (
        plural(len(invite.shares), "character") if invite.shares else "nothing shared"
    )  # fmt: skip
    until = f"until {moment(invite.expires_at)}" if state == "open" else f"made {moment(invite.created_at)}"
    return (
        f"<div><div><h3>{esc(invite.note or 'An invite')} {chip(state, _STATES[state])}</h3>"
        f"<p>{ROLE_WORDS[invite.role]}, {what}, {until}</p></div>{back}</div>"
    )


def _registration(studio: Studio) -> str:
    opened = studio.people.registration()
    said = "Whoever reaches the address can make an account and use this machine." if opened else "People come in by invite only."
    change = button(
        "Close registration" if opened else "Open registration", "settings-registration", on=not opened, look="quiet",
        confirm="" if opened else "Let strangers register?",
        detail="Whoever reaches the address can make an account and use this machine.", yes="Open it",
    )  # fmt: skip
    return f'<p class="hint">{said}</p><div class="actions">{change}</div>'


def _secret(name: str, label: str, kind: str, help_text: str = "") -> str:
    identity = f"{PASSWORD_FORM}-{name}"
    given = {
        "id": identity, "name": name, "type": "password", "autocomplete": kind, "data-default": "", "maxlength": 200,
        "aria-describedby": f"{identity}-help {identity}-error",
    }  # fmt: skip
    return (
        f'<div class="field wide"><label for="{identity}">{esc(label)}</label><input{attributes(given)}>'
        f'<p class="help" id="{identity}-help">{esc(help_text)}</p>'
        f'<p class="error" id="{identity}-error" role="alert" hidden></p></div>'
    )


def _is_box(name: str) -> bool:
    return name.startswith("character-") and id_in(name[10:]) is not None


REGIONS = (
    Region("me", draw_me, live=False),
    Region("people", draw_people, always=True),
    Region("invite-form", draw_invite_form, live=False),
    Region("invites", draw_invites, always=True),
    Region("history", draw_history, always=True),
)
ACTIONS = {
    "invite": on_invite, "revoke": on_revoke, "role": on_role, "lock": on_lock, "end": on_end,
    "remove": on_remove, "share-all": on_share_all, "unshare": on_unshare, "registration": on_registration,
    "own-password": on_own_password, "new-password": on_new_password, "sign-out": on_sign_out,
}  # fmt: skip
