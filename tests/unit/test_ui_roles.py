"""What a viewer, an editor and the owner see of the page, and may press."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from masuka.config import Settings
from masuka.errors import NotAllowed
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses
from masuka.requests import Actor
from masuka.store import users
from masuka.studio import Studio
from masuka.ui import build as built
from masuka.ui import people, roles
from masuka.ui.kit import Wiring
from masuka.ui.markup import button
from masuka.ui.view import PARTS, TABS, View

ROLES: tuple[Any, ...] = ("viewer", "editor", "owner")


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        mira = opened.characters.create(name="Mira", trigger_word="mira7x")
        opened.datasets.create(name="Set", trigger_word="mira7x", character_id=mira.id)
        yield opened


def person(studio: Studio, role: Any) -> Actor:
    if role == "owner":
        return studio.actor
    made = users.add_user(studio.store, actor=studio.actor, username=f"the {role}", role=role)
    studio.people.share(made.id, "all")
    return Actor(made.id, role, made.username)


def pages(studio: Studio, actor: Actor) -> str:
    """Every region of every tab, as this person gets them."""
    page = built.build(studio)
    wiring = next(fn.fn for fn in page.fns.values() if getattr(fn.fn, "__name__", "") == "on_look").__self__
    request: Any = SimpleNamespace(request=SimpleNamespace(scope={"actor": actor}))
    texts = []
    for tab, part in [*((tab, "") for tab in TABS), *(("datasets", part) for part in PARTS)]:
        answered = wiring.on_look(f'{{"tab": "{tab}", "dataset": 1, "part": "{part}"}}', request)
        texts += [piece for piece in answered if isinstance(piece, str)]
    return "".join(texts)


@pytest.mark.parametrize("role", ROLES)
def test_nobody_is_shown_a_button_that_is_refused(studio: Studio, role: Any) -> None:
    actor = person(studio, role)
    text = pages(studio, actor)
    shown = set(re.findall(r'data-do="([a-z-]+)"', text))
    for action in shown:
        roles.must_be_allowed(action, actor)
    assert ("settings-invite" in shown) is (role == "owner")
    assert ("datasets-create" in shown or "datasets-update" in shown) is (role != "viewer")
    assert "settings-sign-out" in shown  # everybody may leave
    assert "Set" in text  # and sees what is shared


def test_a_viewer_is_not_told_what_is_the_owners(studio: Studio) -> None:
    studio.people.invite(note="a secret note")
    text = pages(studio, person(studio, "viewer"))
    for hidden in (str(studio.workspace.root), "a secret note", "CivitAI", "Who did what", 'class="skeleton"'):
        assert hidden not in text, hidden
        if hidden != 'class="skeleton"':
            assert hidden in pages(studio, studio.actor), hidden


@pytest.mark.parametrize("role", ROLES)
def test_each_action_is_refused_below_its_role(studio: Studio, role: Any) -> None:
    actor = person(studio, role)
    for action in Wiring(studio, built.TABS).actions:
        if roles.RANKS[role] < roles.RANKS[roles.needed_for(action)]:
            with pytest.raises(NotAllowed):
                roles.must_be_allowed(action, actor)
        else:
            roles.must_be_allowed(action, actor)


def test_the_tables_of_roles_name_what_exists(studio: Studio) -> None:
    actions = set(Wiring(studio, built.TABS).actions)
    assert set(roles.ACTIONS) <= actions and actions >= roles.QUIET
    regions = {f"{tab.name}-{region.name}" for tab in built.TABS for region in tab.regions}
    assert set(roles.REGIONS) <= regions


def test_a_button_is_taken_out_whatever_stands_in_it() -> None:
    hostile = '</button><b data-do="x">" data-do="settings-remove'
    made = button(hostile, "settings-remove", name=hostile, confirm=hostile, id=1)
    kept = button("Leave", "settings-sign-out")
    body = f"<div>{made}{kept}</div>"
    assert roles.without_forbidden(body, Actor(2, "viewer")) == f"<div>{kept}</div>"
    assert roles.without_forbidden(body, Actor(1)) == body


def test_a_viewer_gets_no_button_beside_a_picture_either() -> None:
    star = '<button type="button" class="star" data-do="images-star" aria-label="Star"><svg><path d="M0"/></svg></button>'
    assert roles.without_forbidden(f"<i>{star}</i>{star}", Actor(2, "viewer")) == "<i></i>"
    assert roles.without_forbidden(star, Actor(2, "editor")) == star


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_what_is_not_for_them_is_refused_to_whoever_asks_for_it_by_hand(studio: Studio, role: Any) -> None:
    actor, wiring = person(studio, role), Wiring(studio, built.TABS)
    request: Any = SimpleNamespace(request=SimpleNamespace(scope={"actor": actor}))
    before = studio.people.audit(limit=1000)
    for action in wiring.actions:
        if roles.RANKS[role] < roles.RANKS[roles.needed_for(action)]:
            answer = wiring.on_perform(f'{{"do": "{action}", "payload": {{"id": 1, "ids": [1]}}, "key": ""}}', request)
            assert "&quot;ok&quot;: false" in answer and ("look, not change" in answer or "Only the owner" in answer), action
    assert studio.people.audit(limit=1000) == before


def test_an_invite_is_shown_once_and_its_form_understood(studio: Studio) -> None:
    values = {"role": "editor", "share": "characters", "days": "3", "note": "Kim", "character-1": True, "character-2": False}
    told = people.on_invite(studio, {"values": values}, View())
    assert told.show["link"].startswith("invite?token=") and "Kim" in told.show["text"]
    assert studio.people.invites()[0].shares == [{"kind": "character", "object_id": 1}]
    token = told.show["link"].partition("=")[2]
    addresses.write(studio.workspace, Addresses(address="http://127.0.0.1:1/", public_url="https://x.example", state="open"))
    away = people.on_invite(studio, {"values": {}}, View()).show["link"]
    assert away.startswith("https://x.example/invite?token=")
    assert token not in pages(studio, studio.actor)


def test_what_people_are_called_is_escaped(studio: Studio) -> None:
    users.add_user(studio.store, actor=studio.actor, username='<img src=x onerror="alert(1)">')
    studio.people.invite(note="<script>alert(1)</script>")
    text = people.draw_people(studio, View()) + people.draw_invites(studio, View()) + people.draw_history(studio, View())
    assert "<script" not in text and "<img" not in text and "&lt;script&gt;" in text


def test_what_was_done_on_the_page_is_in_the_history(studio: Studio) -> None:
    wiring = Wiring(studio, built.TABS)
    request: Any = SimpleNamespace(request=SimpleNamespace(scope={"actor": studio.actor}))
    wiring.on_perform('{"do": "datasets-delete", "payload": {"id": 1}, "key": ""}', request)
    wiring.on_perform('{"do": "datasets-delete", "payload": {"id": 1}, "key": ""}', request)  # gone: nothing done
    told = [(e.name, e.action) for e in studio.people.audit() if "delete" in e.action]
    assert told == [("owner", "datasets: delete")]


def test_people_are_changed_from_the_page(studio: Studio) -> None:
    kim = users.add_user(studio.store, actor=studio.actor, username="kim").id
    people.on_role(studio, {"id": kim, "role": "editor"}, View())
    people.on_share_all(studio, {"id": kim, "on": True}, View())
    assert [s.kind for s in studio.people.shares(user_id=kim)] == ["all"]
    people.on_share_all(studio, {"id": kim, "on": False}, View())
    people.on_lock(studio, {"id": kim, "on": False}, View())
    studio.people.share(kim, "character", 1)
    people.on_unshare(studio, {"id": kim, "character": 1}, View())
    assert studio.people.shares(user_id=kim) == []
    people.on_registration(studio, {"on": True}, View())
    assert studio.people.registration()
    people.on_remove(studio, {"id": kim}, View())
    assert [p.username for p in studio.people.list()] == ["owner"]
