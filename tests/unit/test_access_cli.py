"""masuka user, invite, password: the door from the machine itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from masuka.access import password as passwords
from masuka.cli import app

CHEAP = {"memory_kib": 8, "time_cost": 1, "parallelism": 1}


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.Passwords.__init__, "__kwdefaults__", CHEAP)


def masuka(*arguments: str, typed: str = "", code: int = 0) -> Any:
    answer = CliRunner().invoke(app, [*arguments, "--json"], input=typed)
    assert answer.exit_code == code, answer.output
    return json.loads(answer.stdout)


def test_an_invite_is_made_listed_and_taken_back() -> None:
    made = masuka("invite", "make", "--role", "editor", "--note", "Kim", "--address", "https://x.example")
    assert made["link"].startswith("https://x.example/invite?token=") and made["role"] == "editor"
    listed = masuka("invite", "list")
    assert [i["note"] for i in listed] == ["Kim"]
    assert made["link"].partition("token=")[2] not in json.dumps(listed) and "token_hash" not in listed[0]
    assert masuka("invite", "revoke", str(made["id"]))["revoked_at"]


def test_the_owners_password_is_typed_piped_or_made() -> None:
    assert masuka("user", "list")[0]["has_password"] is False
    assert masuka("password", typed="correct horse battery\n") == {"username": "owner"}
    assert masuka("user", "list")[0]["has_password"] is True
    assert len(masuka("password", "--generate")["password"]) == 19
    assert masuka("password", typed="short\n", code=1)["error"]["field"] == "password"
    assert masuka("password", typed="\n", code=1)["error"]["field"] == "password"


def test_what_a_person_sees_is_shared_and_taken_back() -> None:
    from masuka.access.accounts import Accounts
    from masuka.studio import Studio

    masuka("character", "create", "Mira", "--trigger-word", "mira7x")
    token = masuka("invite", "make", "--share", "nothing")["link"].partition("token=")[2]
    with Studio.open() as studio:
        Accounts(studio.store).accept(token, "kim", "correct horse battery", address="here")
    assert [s["kind"] for s in masuka("user", "share", "kim")] == ["all"]
    assert [s["object_id"] for s in masuka("user", "share", "kim", "--character", "1")] == [0, 1]
    assert masuka("user", "share", "kim", "--stop") and not masuka("user", "share", "kim", "--character", "1", "--stop")
    masuka("user", "remove", "kim", "--yes")
    assert len(masuka("user", "list")) == 1


def test_people_are_found_by_name_and_the_last_owner_stays() -> None:
    assert masuka("user", "rename", "OWNER", "Mira")["username"] == "Mira"
    assert masuka("user", "role", "mira", "editor", code=1)["error"]["type"] == "Conflict"
    assert masuka("user", "lock", "1", code=1)["error"]["type"] == "Conflict"
    assert masuka("user", "remove", "mira", "--yes", code=1)["error"]["type"] == "Conflict"
    assert masuka("user", "role", "mira", "king", code=1)["error"]["field"] == "role"
    assert masuka("user", "lock", "nobody", code=1)["error"]["type"] == "NotFound"
    masuka("user", "signout", "mira")
    assert [e["action"] for e in masuka("user", "history")] == ["signed out everywhere", "renamed a person"]


def test_a_number_is_never_anothers_name() -> None:
    from masuka.requests import Actor
    from masuka.store import users
    from masuka.studio import Studio

    assert masuka("user", "rename", "owner", "2", code=1)["error"]["field"] == "username"
    with Studio.open() as studio:
        for name in ("3", "trusted"):  # a name from before numbers were refused
            users.add_user(studio.store, actor=Actor(1), username=name)
    assert masuka("user", "role", "3", "owner", code=1)["error"]["type"] == "Conflict"
    assert masuka("user", "role", "trusted", "editor")["id"] == 3


def test_a_link_lets_in_whom_it_names() -> None:
    from masuka.access.sessions import Sessions
    from masuka.requests import Actor
    from masuka.store import users
    from masuka.studio import Studio

    with Studio.open() as studio:
        kim = users.add_user(studio.store, actor=Actor(1), username="kim").id
    for names, user_id in ((["--name", "Kim"], kim), ([], 1)):
        token = masuka("link", *names)["link"].partition("token=")[2]
        with Studio.open() as studio:
            assert Sessions(studio.store, studio.workspace.secrets).use_token(token) == user_id
    masuka("user", "lock", "kim")
    assert masuka("link", "--name", "kim", code=1)["error"]["type"] == "Conflict"
    assert masuka("link", "--name", "nobody", code=1)["error"]["type"] == "NotFound"
