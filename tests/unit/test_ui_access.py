"""Links work once, cookies cannot be made elsewhere, wrong tries have to wait."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from masuka.access.gate import Door, Gate
from masuka.access.limits import Throttle
from masuka.access.sessions import LINK_LIFETIME_S, SESSION_LIFETIME_S, Sessions
from masuka.requests import Actor


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "secrets")


def test_a_token_works_once(sessions: Sessions) -> None:
    token = sessions.new_token(7)
    assert sessions.use_token(token) == 7
    assert sessions.use_token(token) is None


def test_another_process_can_make_a_token_for_the_running_app(tmp_path: Path) -> None:
    app, command_line = Sessions(tmp_path / "secrets"), Sessions(tmp_path / "secrets")
    assert app.use_token(command_line.new_token(1)) == 1
    assert app.cookie_name == command_line.cookie_name
    assert command_line.user_of(app.cookie(1)) == 1


def test_of_many_who_use_a_token_at_once_one_gets_in(sessions: Sessions) -> None:
    token = sessions.new_token(1)
    start, entered = threading.Barrier(8), []

    def enter() -> None:
        start.wait()
        entered.append(sessions.use_token(token))

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(u is not None for u in entered) == [False] * 7 + [True]


def test_a_token_ends_after_a_day(tmp_path: Path) -> None:
    clock = Clock()
    sessions = Sessions(tmp_path / "secrets", clock)
    token = sessions.new_token(1)
    clock.now += LINK_LIFETIME_S + 1
    assert sessions.use_token(token) is None


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "secrets")
    token = sessions.new_token(1)
    for path in (tmp_path / "secrets").rglob("*"):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
        assert token not in path.name
        assert path.is_dir() or token.encode() not in path.read_bytes()


def test_a_cookie_of_another_installation_opens_nothing(tmp_path: Path) -> None:
    one, two = Sessions(tmp_path / "one"), Sessions(tmp_path / "two")
    assert two.user_of(one.cookie(1)) is None
    assert one.cookie_name != two.cookie_name


def test_a_cookie_ends_after_its_time(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    import itsdangerous.timed as timed

    cookie = sessions.cookie(1)
    assert sessions.user_of(cookie) == 1
    real = timed.time.time()
    monkeypatch.setattr(timed.time, "time", lambda: real + SESSION_LIFETIME_S + 2)
    assert sessions.user_of(cookie) is None


def test_signing_out_everywhere_ends_sessions_and_links(sessions: Sessions) -> None:
    cookie, token = sessions.cookie(1), sessions.new_token(1)
    sessions.end_all()
    assert sessions.user_of(cookie) is None
    assert sessions.use_token(token) is None
    assert sessions.user_of(sessions.cookie(1)) == 1


def test_a_session_survives_a_restart(tmp_path: Path) -> None:
    cookie = Sessions(tmp_path / "secrets").cookie(3)
    assert Sessions(tmp_path / "secrets").user_of(cookie) == 3


@given(st.text(max_size=300))
def test_no_made_up_cookie_or_token_opens(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    sessions = Sessions(folder)
    assert sessions.user_of(text) is None
    assert sessions.use_token(text) is None


def test_a_throttle_lets_go_after_its_window() -> None:
    clock = Clock()
    throttle = Throttle(attempts=3, window_s=60, clock=clock)
    for _ in range(3):
        assert throttle.wait_s("a") == 0
        throttle.failed("a")
    assert throttle.wait_s("a") == 60
    assert throttle.wait_s("b") == 0
    clock.now += 61
    assert throttle.wait_s("a") == 0


def test_a_throttle_does_not_grow_without_end() -> None:
    throttle = Throttle(attempts=1, window_s=60)
    for number in range(Throttle.MOST_KEYS + 500):
        throttle.failed(str(number))
    assert len(throttle._failures) <= Throttle.MOST_KEYS


def knock(sessions: Sessions, actors: dict[int, Actor], hosts: frozenset[str] | None = None) -> TestClient:
    """A browser before a gate with a tiny app behind it that says who came."""

    async def who(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.scope["actor"].name)

    door = Door(sessions, actors.get, hosts or Door.host_names("127.0.0.1", ["testserver"]))
    return TestClient(Gate(Starlette(routes=[Route("/who", who)]), door), follow_redirects=False)


def test_the_gate_says_who_came(sessions: Sessions) -> None:
    client = knock(sessions, {5: Actor(5, "editor", "eda")})
    assert client.get("/who").status_code == 401
    client.get("/", params={"token": sessions.new_token(5)})
    assert client.get("/who").text == "eda"


def test_a_user_who_was_removed_is_outside_at_once(sessions: Sessions) -> None:
    people = {5: Actor(5)}
    client = knock(sessions, people)
    client.get("/", params={"token": sessions.new_token(5)})
    assert client.get("/who").status_code == 200
    del people[5]
    assert client.get("/who").status_code == 401
    assert client.get("/", params={"token": sessions.new_token(5)}).status_code == 401


def test_a_websocket_of_a_stranger_is_closed(sessions: Sessions) -> None:
    client = knock(sessions, {1: Actor(1)})
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/who"):
        raise AssertionError("a stranger was let in")
    assert refused.value.code == 4401


def test_wrong_tokens_have_to_wait_and_sessions_do_not(sessions: Sessions) -> None:
    client = knock(sessions, {1: Actor(1)})
    inside = knock(sessions, {1: Actor(1)})
    inside.get("/", params={"token": sessions.new_token(1)})
    codes = [client.get("/", params={"token": f"wrong{i}"}).status_code for i in range(11)]
    assert codes == [401] * 10 + [429]
    late = client.get("/", params={"token": sessions.new_token(1)})
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 0
    assert inside.get("/who").status_code == 200


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("testserver", True),
        ("LOCALHOST:7860", True),
        ("[::1]:7860", True),
        ("127.0.0.1", True),
        ("localhost.", True),
        ("evil.example", False),
        ("testserver.evil.example", False),
        ("[::2]", False),
        ("", False),
    ],
)
def test_host_names(sessions: Sessions, host: str, served: bool) -> None:
    client = knock(sessions, {1: Actor(1)})
    assert (client.get("/healthz", headers={"host": host}).status_code == 200) is served


def test_listening_everywhere_allows_no_more_names() -> None:
    assert Door.host_names("0.0.0.0", ["Studio.Example"]) == {
        "localhost",
        "127.0.0.1",
        "[::1]",
        "studio.example",
    }


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://testserver", True),
        ("http://testserver:81", False),
        ("https://evil.example", False),
        ("null", False),
    ],
)
def test_origins(sessions: Sessions, origin: str, passes: bool) -> None:
    client = knock(sessions, {1: Actor(1)})
    answer = client.post("/login", data={"token": "x"}, headers={"origin": origin})
    assert (answer.status_code != 403) is passes


@given(
    st.dictionaries(st.sampled_from(["host", "cookie", "origin", "x-forwarded-proto", "sec-fetch-site"]),
                    st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80)),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
)  # fmt: skip
def test_no_header_gets_a_stranger_in(
    tmp_path_factory: pytest.TempPathFactory, headers: dict[str, str], method: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed-gate"
    folder.mkdir(exist_ok=True)
    client = knock(Sessions(folder), {1: Actor(1)})
    encoded = {k.encode(): v.strip().encode("latin-1") for k, v in headers.items()}
    answer = client.request(method, "/who", headers=encoded)
    assert answer.status_code in (401, 403, 421)
