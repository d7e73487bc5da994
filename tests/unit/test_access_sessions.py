"""Links work once; sessions are rows, end in time, and cannot be made elsewhere."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.access.links import LINK_LIFETIME_S, Links, digest
from masuka.access.sessions import AT_HOME, AWAY, SEEN_EVERY_S, Sessions
from masuka.config import Workspace
from masuka.requests import Actor
from masuka.store import invites, users
from masuka.store.connect import Store
from masuka.store.migrations.runner import backup, restore

OWNER = Actor(1)


class Clock:
    def __init__(self) -> None:
        self.now = time.time()  # links are files, whose times are real

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    with Store.open(workspace) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(store: Store, workspace: Workspace, clock: Clock) -> Sessions:
    return Sessions(store, workspace.secrets, clock)


@pytest.fixture
def links(tmp_path: Path) -> Links:
    return Links(tmp_path / "secrets")


def test_a_token_works_once(links: Links) -> None:
    token = links.new_token(7)
    assert links.use_token(token) == 7
    assert links.use_token(token) is None


def test_another_process_can_make_a_token_for_the_running_app(tmp_path: Path) -> None:
    app, command_line = Links(tmp_path / "secrets"), Links(tmp_path / "secrets")
    assert app.use_token(command_line.new_token(1)) == 1


def test_of_many_who_use_a_token_at_once_one_gets_in(links: Links) -> None:
    token = links.new_token(1)
    start, entered = threading.Barrier(8), []

    def enter() -> None:
        start.wait()
        entered.append(links.use_token(token))

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(u is not None for u in entered) == [False] * 7 + [True]


def test_a_token_ends_after_a_day(tmp_path: Path, clock: Clock) -> None:
    links = Links(tmp_path / "secrets", clock)
    token = links.new_token(1)
    clock.now += LINK_LIFETIME_S + 1
    assert links.use_token(token) is None


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    token = Links(tmp_path / "secrets").new_token(1)
    for path in (tmp_path / "secrets").rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
        assert token not in path.name
        assert path.is_dir() or token.encode() not in path.read_bytes()


def test_the_database_holds_no_cookie(sessions: Sessions, store: Store) -> None:
    cookie = sessions.begin(1)
    with store.read() as conn:
        rows = [tuple(row) for row in conn.execute("SELECT * FROM sessions")]
    assert digest(cookie) in rows[0] and all(cookie not in str(value) for value in rows[0])
    assert len(cookie) >= 43  # 256 bits


def test_a_session_survives_a_restart(store: Store, workspace: Workspace) -> None:
    cookie = Sessions(store, workspace.secrets).begin(1)
    again = Sessions(store, workspace.secrets).find(cookie)
    assert again is not None and again.actor == Actor(1, "owner", "owner")


@pytest.mark.parametrize("lifetime", [AWAY, AT_HOME], ids=["away", "at home"])
def test_a_session_ends_when_it_is_not_used(sessions: Sessions, clock: Clock, lifetime: object) -> None:
    cookie = sessions.begin(1, lifetime=lifetime)  # type: ignore[arg-type]
    clock.now += lifetime.idle_s - 1  # type: ignore[attr-defined]
    assert sessions.find(cookie) is not None
    clock.now += 2
    assert sessions.find(cookie) is None


def test_a_session_that_is_used_ends_at_its_last_day(sessions: Sessions, clock: Clock) -> None:
    cookie, begun = sessions.begin(1), clock.now
    while (session := sessions.find(cookie)) is not None:
        assert clock.now < begun + AWAY.absolute_s
        if sessions.is_due(session):
            sessions.touch(session)
        clock.now += AWAY.idle_s / 2
    assert clock.now >= begun + AWAY.absolute_s


def test_a_look_is_written_down_every_five_minutes_only(sessions: Sessions, clock: Clock) -> None:
    cookie = sessions.begin(1)
    session = sessions.find(cookie)
    assert session is not None and not sessions.is_due(session)
    clock.now += SEEN_EVERY_S + 1
    assert sessions.is_due(session)
    sessions.touch(session)
    again = sessions.find(cookie)
    assert again is not None and not sessions.is_due(again)


def test_signing_in_again_ends_the_session_of_before(sessions: Sessions) -> None:
    before = sessions.begin(1)
    after = sessions.begin(1, before=before)
    assert sessions.find(before) is None and sessions.find(after) is not None


def test_a_cookie_that_a_browser_brings_is_never_taken_over(sessions: Sessions) -> None:
    planted = "A" * 43
    begun = sessions.begin(1, before=planted)
    assert begun != planted and sessions.find(planted) is None


def test_signing_out_everywhere_ends_sessions_and_links_of_that_person(
    sessions: Sessions, store: Store
) -> None:
    kim = users.add_user(store, actor=OWNER, username="kim", role="editor").id
    mine, theirs = sessions.begin(1), sessions.begin(kim)
    my_link, their_link = sessions.new_token(1), sessions.new_token(kim)
    sessions.end_all(kim)
    assert sessions.find(theirs) is None and sessions.use_token(their_link) is None
    assert sessions.find(mine) is not None and sessions.use_token(my_link) == 1
    assert sessions.find(sessions.begin(kim)) is not None


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        ({"role": "editor"}, True), ({"password_hash": "another"}, True), ({"active": False}, True),
        ({"role": "viewer"}, False), ({"username": "kimmy"}, False), ({"password_hash": "first"}, False),
    ],
    ids=["role", "password", "locked", "same role", "name", "same password"],
)  # fmt: skip
def test_what_ends_a_persons_sessions(
    sessions: Sessions, store: Store, change: dict[str, object], ends: bool
) -> None:
    kim = users.add_user(store, actor=OWNER, username="kim", role="viewer", password_hash="first").id
    cookie = sessions.begin(kim)
    users.set_user(store, actor=OWNER, id=kim, **change)  # type: ignore[arg-type]
    assert (sessions.find(cookie) is None) is ends
    if ends:
        users.set_user(store, actor=OWNER, id=kim, active=True, role="viewer", password_hash="first")
        assert sessions.find(cookie) is None  # what has ended does not come back


def test_a_first_password_ends_no_session(sessions: Sessions, store: Store) -> None:
    cookie = sessions.begin(1)
    users.set_user(store, actor=OWNER, id=1, password_hash="first")
    assert sessions.find(cookie) is not None


def test_sessions_of_a_removed_person_are_gone(sessions: Sessions, store: Store) -> None:
    kim = users.add_user(store, actor=OWNER, username="kim").id
    cookie = sessions.begin(kim)
    users.delete_user(store, actor=OWNER, id=kim)
    assert sessions.find(cookie) is None


def test_sessions_that_are_over_are_swept(sessions: Sessions, store: Store, clock: Clock) -> None:
    for _ in range(5):
        sessions.begin(1)
    clock.now += AWAY.absolute_s + 1
    sessions.begin(1)
    with store.read() as conn:
        assert conn.table("sessions").count == 1
    assert len(sessions.list(1)) == 1


def test_two_installations_have_two_cookie_names(store: Store, tmp_path: Path) -> None:
    one, two = Sessions(store, tmp_path / "one"), Sessions(store, tmp_path / "two")
    assert one.cookie_name != two.cookie_name == Sessions(store, tmp_path / "two").cookie_name


@given(st.text(max_size=300))
def test_no_made_up_cookie_or_token_opens(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-sessions"
    workspace = Workspace(folder).create()
    with Store.open(workspace) as store:
        sessions = Sessions(store, workspace.secrets)
        assert sessions.find(text) is None
        assert sessions.use_token(text) is None


def test_a_restored_backup_lets_nobody_in_again(workspace: Workspace) -> None:
    with Store.open(workspace) as store:
        cookie = Sessions(store, workspace.secrets).begin(1)
        invites.add_invite(
            store, actor=OWNER, token_hash="x", role="viewer", note="", shares=[], expires_at="2999-01-01"
        )
    kept = backup(workspace.database, backups=workspace.backups)
    with Store.open(workspace) as store:
        Sessions(store, workspace.secrets).end(cookie)
    restore(workspace.database, kept, backups=workspace.backups)
    with Store.open(workspace) as store:
        assert Sessions(store, workspace.secrets).find(cookie) is None
        assert invites.find_invite(store, token_hash="x", now="2030-01-01") is None
