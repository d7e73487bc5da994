"""The gate before a tiny app: names, origins, cookies, limits, addresses."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from masuka.access import wire
from masuka.access.accounts import Accounts, Verdict
from masuka.access.entrance import device
from masuka.access.gate import MOST_STREAMS, Door, Gate
from masuka.access.limits import Rate
from masuka.access.password import Passwords
from masuka.access.rules import RANKS, RULES, rule_of
from masuka.access.sessions import Sessions
from masuka.config import Settings, Workspace
from masuka.errors import InvalidInput
from masuka.requests import Actor
from masuka.store import audit, users
from masuka.store.connect import Store
from tests.asynchronous import finish

OWNER = Actor(1)
WHO = "/fragment/who"
RIGHT = "correct horse battery"


@pytest.fixture
def door(workspace: Workspace) -> Iterator[Door]:
    with Store.open(workspace) as store:
        yield door_of(store, workspace)


def door_of(store: Store, workspace: Workspace, **more: Any) -> Door:
    accounts = Accounts(store, Passwords(memory_kib=8, time_cost=1, parallelism=1))
    hosts = Door.host_names("127.0.0.1", ["testserver"])
    return Door(Sessions(store, workspace.secrets), accounts, hosts, **more)


def add(door: Door, name: str = "eda", role: Any = "editor") -> int:
    return users.add_user(
        door.accounts.store, actor=OWNER, username=name, role=role,
        password_hash=door.accounts.passwords.hash(RIGHT),
    ).id  # fmt: skip


def knock(door: Door, peer: str = "testclient") -> TestClient:
    """A browser before the gate, with a tiny app behind it that says who came and how."""

    async def who(request: Request) -> JSONResponse:
        seen = {"name": request.scope["actor"].name, "host": request.headers.get("x-forwarded-host", "")}
        seen["server"] = request.headers.get("x-gradio-server", "")
        return JSONResponse(seen)

    paths = (WHO, "/gradio_api/queue/data", "/gradio_api/queue/join", "/gradio_api/token", "/upload/a/1")
    app = Starlette(routes=[Route(p, who, methods=["GET", "POST", "PUT"]) for p in paths])
    return TestClient(Gate(app, door), follow_redirects=False, client=(peer, 5))


def inside(door: Door, user_id: int = 1) -> TestClient:
    client = knock(door)
    assert client.get("/", params={"token": door.sessions.new_token(user_id)}).status_code == 303
    return client


def test_the_gate_says_who_came(door: Door) -> None:
    assert knock(door).get(WHO).status_code == 401
    assert inside(door, add(door)).get(WHO).json()["name"] == "eda"


def test_a_name_and_a_password_let_in(door: Door) -> None:
    add(door)
    client = knock(door)
    assert "username" in client.get("/login").text
    wrong = client.post("/login", data={"username": "eda", "password": "nonsense"})
    assert wrong.status_code == 401 and "wrong" in wrong.text and "nonsense" not in wrong.text
    right = client.post("/login", data={"username": "eda", "password": RIGHT})
    assert (right.status_code, right.headers["location"]) == (303, "/")
    assert client.get(WHO).status_code == 200


def test_where_nobody_has_a_password_none_is_asked_for(door: Door) -> None:
    page = knock(door).get("/login").text
    assert "username" not in page and "masuka link" in page


def test_after_five_wrong_passwords_a_link_still_lets_in(door: Door) -> None:
    eda = add(door)
    client = knock(door)
    codes = [client.post("/login", data={"username": "eda", "password": "no"}).status_code for _ in range(6)]
    assert codes == [401] * 5 + [429]
    late = client.post("/login", data={"username": "eda", "password": RIGHT})
    assert late.status_code == 429 and int(late.headers["retry-after"]) > 600
    assert inside(door, eda).get(WHO).status_code == 200


def test_wrong_tokens_have_to_wait_and_a_right_one_does_not(door: Door) -> None:
    client = knock(door)
    codes = [client.get("/", params={"token": f"wrong{i}"}).status_code for i in range(11)]
    assert codes == [401] * 10 + [429]
    assert client.get("/", params={"token": door.sessions.new_token(1)}).status_code == 303


def test_a_person_who_was_locked_out_is_outside_at_once(door: Door) -> None:
    eda = add(door)
    client = inside(door, eda)
    assert client.get(WHO).status_code == 200
    users.set_user(door.accounts.store, actor=OWNER, id=eda, active=False)
    assert client.get(WHO).status_code == 401
    assert client.get("/", params={"token": door.sessions.new_token(eda)}).status_code == 401


def test_a_cookie_cannot_be_used_after_signing_out(door: Door) -> None:
    client = inside(door)
    name = door.sessions.cookie_name
    replayed = client.cookies[name]
    assert client.post("/logout").headers["location"] == "/login"
    assert name not in client.cookies
    assert knock(door).get(WHO, headers={"cookie": f"{name}={replayed}"}).status_code == 401


def test_a_planted_cookie_is_replaced_at_signing_in(door: Door) -> None:
    client = knock(door)
    name = door.sessions.cookie_name
    client.cookies.set(name, "A" * 43)
    client.get("/", params={"token": door.sessions.new_token(1)})
    held = [c.value for c in client.cookies.jar if c.name == name]
    assert "A" * 43 not in held[-1:] and door.sessions.find("A" * 43) is None


def test_the_local_link_lasts_longer_than_one_from_away(door: Door) -> None:
    door.allow_host("public.example")
    for host, days in (("localhost:7860", 30), ("public.example", 7)):
        answer = knock(door).get(
            "/", params={"token": door.sessions.new_token(1)}, headers={"host": host}
        )
        assert f"Max-Age={days * 86400};" in answer.headers["set-cookie"]


def test_cookies_by_the_way_the_page_is_shown(workspace: Workspace) -> None:
    with Store.open(workspace) as store:
        for framed, https, wanted in (
            ("", {}, "SameSite=Lax"),
            ("", {"x-forwarded-proto": "https"}, "SameSite=Lax; Secure"),
            ("https://huggingface.co", {}, "SameSite=None; Secure; Partitioned"),
        ):
            door = door_of(store, workspace, framed_by=framed)
            answer = knock(door).get("/", params={"token": door.sessions.new_token(1)}, headers=https)
            assert answer.headers["set-cookie"].endswith(f"; Path=/; HttpOnly; {wanted}")
            frames = answer.headers["content-security-policy"].partition("frame-ancestors ")[2]
            assert frames == f"'self' {framed}".strip()
            assert ("x-frame-options" in answer.headers) is (not framed)


def test_an_invite_is_shown_then_accepted_once(door: Door) -> None:
    from masuka.access.links import digest
    from masuka.store import invites

    invites.add_invite(
        door.accounts.store, actor=OWNER, token_hash=digest("t" * 43), role="viewer", note="", shares=[],
        expires_at="2999-01-01",
    )  # fmt: skip
    client = knock(door)
    for _ in range(3):  # looking does not use it: chat programs fetch links before people do
        page = client.get("/invite", params={"token": "t" * 43})
        assert page.status_code == 200 and "viewer" in page.text
    short = client.post("/invite", data={"token": "t" * 43, "username": "<kim>", "password": "short"})
    assert short.status_code == 400 and "&lt;kim&gt;" in short.text and "<kim>" not in short.text
    given = {"token": "t" * 43, "username": "kim", "password": RIGHT}
    assert client.post("/invite", data=given).headers["location"] == "/"
    assert client.get(WHO).json()["name"] == "kim"
    assert knock(door).post("/invite", data={**given, "username": "lee"}).status_code == 404
    assert knock(door).get("/invite", params={"token": "wrong"}).status_code == 404


def test_registering_is_closed_until_it_is_opened(door: Door) -> None:
    given = {"username": "kim", "password": RIGHT}
    assert knock(door).get("/register").status_code == 403
    assert knock(door).post("/register", data=given).status_code == 403
    assert "register" not in knock(door).get("/login").text
    door.accounts.registration = True
    assert "register" in knock(door).get("/login").text
    client = knock(door)
    assert client.get("/register").status_code == 200
    assert client.post("/register", data=given).status_code == 303
    assert client.get(WHO).json()["name"] == "kim"


def test_a_websocket_is_closed(door: Door) -> None:
    for client in (knock(door), inside(door)):
        with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect(WHO):
            raise AssertionError("there is no websocket")
        assert refused.value.code == 4401


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("testserver", True), ("LOCALHOST:7860", True), ("[::1]:7860", True), ("127.0.0.1", True),
        ("localhost.", True), ("evil.example", False), ("testserver.evil.example", False), ("[::2]", False),
        ("", False), ("a.tunnel.example", True), ("tunnel.example", False), (".tunnel.example", False),
        ("a.tunnel.example.evil.example", False), ("evil-tunnel.example", False),
    ],
)  # fmt: skip
def test_host_names(door: Door, host: str, served: bool) -> None:
    door.hosts |= {"*.tunnel.example"}
    assert (knock(door).get("/healthz", headers={"host": host}).status_code == 200) is served


def test_a_host_name_comes_and_goes_while_the_app_runs(door: Door) -> None:
    client = knock(door)
    asked = {"headers": {"host": "new.example"}}
    assert client.get("/healthz", **asked).status_code == 421
    door.allow_host("New.Example:443")
    assert client.get("/healthz", **asked).status_code == 200
    door.forget_host("new.example")
    assert client.get("/healthz", **asked).status_code == 421


def test_listening_everywhere_allows_no_more_names() -> None:
    everywhere = Door.host_names("0.0.0.0", ["Studio.Example"])
    assert everywhere == {"localhost", "127.0.0.1", "[::1]", "studio.example"}


@pytest.mark.parametrize(
    ("origin", "passes"),
    [
        ("http://testserver", True), ("http://testserver:81", False), ("https://evil.example", False),
        ("null", False), ("https://public.example", True), ("http://localhost:3000", False), ("", False),
        ("https://a.tunnel.example", False),
    ],
)  # fmt: skip
def test_origins(door: Door, origin: str, passes: bool) -> None:
    door.allow_host("public.example")
    door.hosts |= {"*.tunnel.example"}
    answer = knock(door).post("/login", data={"token": "x"}, headers={"origin": origin})
    assert (answer.status_code != 403) is passes


@pytest.mark.parametrize(
    ("host", "origin", "passes"),
    [
        ("192.168.1.5:7860", "http://192.168.1.5:7860", True), ("192.168.1.5:7860", "http://192.168.1.5", False),
        ("192.168.1.5:7860", "http://192.168.1.5:9000", False), ("proxy.example", "https://proxy.example", True),
        ("proxy.example:443", "https://proxy.example", True), ("proxy.example:7860", "https://proxy.example", False),
        ("192.168.1.5:7860", "https://proxy.example", True), ("proxy.example", "https://[", False),
    ],
)  # fmt: skip
def test_another_port_of_the_same_host_is_another_site(door: Door, host: str, origin: str, passes: bool) -> None:
    door.hosts |= {"192.168.1.5", "proxy.example"}
    door.proxied = frozenset({"proxy.example"})
    answer = knock(door).post("/login", data={"token": "x"}, headers={"host": host, "origin": origin})
    assert (answer.status_code != 403) is passes


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["host", "cookie", "origin", "x-forwarded-proto", "sec-fetch-site", "x-forwarded-for"]),
                    st.text(alphabet=st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=80)),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
)  # fmt: skip
@example({"origin": "http://["}, "POST")
@example({"host": "[", "origin": "//[::"}, "POST")
def test_no_header_gets_a_stranger_in(door: Door, headers: dict[str, str], method: str) -> None:
    encoded = {k.encode(): v.strip().encode("latin-1") for k, v in headers.items()}
    answer = knock(door).request(method, WHO, headers=encoded)
    assert answer.status_code in (401, 403, 421)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=300), st.sampled_from(["/login", "/invite", "/register"]))
@example(b"token=http%3A%2F%2F%5Bx%3Ftoken%3Da", "/login")
def test_no_form_breaks_the_door(door: Door, body: bytes, path: str) -> None:
    door.accounts.registration = True
    answer = knock(door).post(path, content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code in (400, 401, 404, 429)
    door.tokens.forget("testserver False testclient")


def test_a_form_that_is_too_long_is_no_form(door: Door) -> None:
    add(door)
    given = {"username": "eda", "password": RIGHT, "more": "x" * 9000}
    assert knock(door).post("/login", data=given).status_code == 401


def test_a_form_that_never_ends_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SLOWEST_FORM_S", 0.02)

    async def slowly() -> dict[str, Any]:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b"a", "more_body": True}

    assert finish(wire.form(slowly)) == {}


@pytest.mark.parametrize("role", ["viewer", "editor", "owner"])
def test_each_rule_holds_for_each_role(door: Door, role: Any) -> None:
    client = inside(door, add(door, role=role))
    for path, method, needed in (("/upload/a/1", "PUT", "editor"), ("/download/diagnostics", "GET", "owner"), (WHO, "GET", "viewer")):
        answer = client.request(method, path)
        assert (answer.status_code == 403) is (RANKS[role] < RANKS[needed]), path


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/token", "/gradio_api/file=/etc/passwd", "/gradio_api/file/x", "/gradio_api/upload",
     "/gradio_api/mcp/sse", "/openapi.json", "/monitoring/summary", "/fragment", "/gradio_api/call/x",
     "//gradio_api/token", "/GRADIO_API/token", "/gradio_api/queue/data/../../token", "/no/such"],
)  # fmt: skip
def test_what_is_closed_is_closed_for_the_owner_too(door: Door, path: str) -> None:
    for method in ("GET", "POST"):
        assert inside(door).request(method, path).status_code == 404
        assert knock(door).request(method, path).status_code == 401


def test_no_rule_lets_strangers_to_more_than_the_door() -> None:
    opened = {path for path in ("/healthz", "/", "/enter", "/login", "/register", "/invite")
              if rule_of("GET", path).who == "anybody"}  # fmt: skip
    assert len(opened) == 6 and sum(rule.who == "anybody" for rule in RULES) == 3


def test_too_many_requests_have_to_wait_by_kind_and_session(door: Door) -> None:
    door.changes, door.looks = Rate(3), Rate(5)
    client, other = inside(door), inside(door)
    changes = [client.post("/gradio_api/queue/join").status_code for _ in range(4)]
    assert changes == [200, 200, 200, 429]
    looks = [client.get(WHO) for _ in range(6)]
    assert [a.status_code for a in looks] == [200] * 5 + [429]
    assert int(looks[-1].headers["retry-after"]) >= 1
    assert other.get(WHO).status_code == 200
    assert other.post("/gradio_api/queue/join").status_code == 200


def test_whoever_waits_for_a_password_keeps_nobody_else_waiting(door: Door) -> None:
    """Many sign-ins at once: two are looked at, and a page is served before they are done."""
    add(door)
    release, began = threading.Event(), threading.Semaphore(0)

    def slowly(username: str, password: str, *, address: str, shared: bool) -> Verdict:
        began.release()
        release.wait(20)
        return Verdict(None)

    door.accounts.sign_in = slowly  # type: ignore[method-assign]
    gate = Gate(Starlette(routes=[Route(WHO, lambda request: JSONResponse({}))]), door)
    cookie = f"{door.sessions.cookie_name}={door.sessions.begin(1)}".encode()

    async def ask(method: str, path: str, body: bytes = b"", headers: Any = ()) -> int:
        codes: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                codes.append(message["status"])

        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "scheme": "http",
                 "client": ("127.0.0.1", 1), "headers": [(b"host", b"testserver"), *headers]}  # fmt: skip
        await gate(scope, receive, send)
        return codes[0]

    async def all_at_once() -> tuple[list[int], int]:
        body = b"username=eda&password=nonsense"
        asked = [asyncio.create_task(ask("POST", "/login", body)) for _ in range(60)]
        await asyncio.to_thread(began.acquire)
        served = await ask("GET", WHO, headers=[(b"cookie", cookie)])
        waiting = sum(not task.done() for task in asked)
        release.set()
        assert set(await asyncio.gather(*asked)) == {401}
        return [served], waiting

    assert finish(all_at_once()) == ([200], 60)


def test_sign_ins_of_one_address_are_limited(door: Door) -> None:
    door.changes = Rate(3)
    client = knock(door)
    codes = [client.post("/login", data={"token": "x"}).status_code for _ in range(4)]
    assert codes == [401, 401, 401, 429]
    assert client.get("/login").status_code == 200


TUNNEL, HOME = {"host": "a.tunnel.example"}, {"host": "127.0.0.1:7860"}


def test_strangers_behind_a_tunnel_keep_nobody_out_at_home(door: Door) -> None:
    door.allow_host("a.tunnel.example")
    door.looks, door.changes = Rate(5), Rate(5)
    client = knock(door, "127.0.0.1")
    for _ in range(5):
        client.get("/enter", headers=TUNNEL)
        client.post("/login", data={"token": "x"}, headers=TUNNEL)
    assert client.get("/enter", headers=TUNNEL).status_code == 429
    assert client.post("/login", data={"username": "x"}, headers=TUNNEL).status_code == 429
    assert client.get("/login", headers=HOME).status_code == 200
    assert client.post("/login", data={"token": "wrong"}, headers=HOME).status_code == 401


def test_a_right_token_passes_whatever_strangers_did(door: Door) -> None:
    from masuka.access.links import digest
    from masuka.store import invites

    invites.add_invite(
        door.accounts.store, actor=OWNER, token_hash=digest("t" * 43), role="viewer", note="", shares=[],
        expires_at="2999-01-01",
    )  # fmt: skip
    door.looks, door.changes = Rate(2), Rate(2)
    client = knock(door)
    for _ in range(3):
        client.get("/login")
        client.post("/login", data={"token": "x"})
    for path in ("/", "/login", "/register", "/healthz", "/register?token=x", "/login?token=x", "/invite?token=x"):
        assert client.get(path).status_code == 429, path
    assert client.post("/login", data={"token": "x"}).status_code == 429
    assert client.get("/", params={"token": door.sessions.new_token(1)}).status_code == 303
    assert knock(door).post("/login", data={"token": door.sessions.new_token(1)}).status_code == 303
    assert knock(door).get("/invite", params={"token": "t" * 43}).status_code == 200
    assert client.get(WHO).status_code == 200


def test_strangers_are_counted_where_nothing_is_open_too(door: Door) -> None:
    door.looks = Rate(3)
    client = knock(door)
    forged = [{"cookie": f"{door.sessions.cookie_name}=zzz{n}"} for n in range(4)]
    assert [client.get(WHO, headers=each).status_code for each in forged] == [401, 401, 401, 429]


def test_names_below_a_star_are_counted_as_one(door: Door) -> None:
    door.hosts |= {"*.tunnel.example"}
    door.looks = Rate(3)
    client = knock(door)
    codes = [client.get("/login", headers={"host": f"n{n}.tunnel.example"}).status_code for n in range(4)]
    assert codes == [200, 200, 200, 429]


def test_many_wrong_names_keep_nobody_out_where_an_address_is_shared(door: Door) -> None:
    eda = add(door)
    door.allow_host("a.tunnel.example")
    door.hosts, door.proxied = door.hosts | {"proxy.example"}, frozenset({"proxy.example"})
    right = {"username": "eda", "password": RIGHT}
    for peer, host in (("127.0.0.1", "a.tunnel.example"), ("10.0.0.2", "proxy.example"), ("127.0.0.1", "localhost")):
        client = knock(door, peer)
        for number in range(21):
            given = {"username": f"{host} {number}", "password": "x"}
            assert client.post("/login", data=given, headers={"host": host}).status_code == 401
        assert client.post("/login", data=right, headers={"host": host}).status_code == 303
    alone = knock(door, "203.0.113.7")
    codes = [alone.post("/login", data={"username": f"n{n}", "password": "x"}).status_code for n in range(21)]
    assert codes[-1] == 429 and eda


def test_only_this_machine_says_whom_a_tunnel_brings(door: Door) -> None:
    door.allow_host("x.ngrok.example", tells_address=True)
    for peer, seen in (("127.0.0.1", "10.1.1.1"), ("192.168.1.66", "192.168.1.66")):
        headers = {"host": "x.ngrok.example", "x-forwarded-for": "10.1.1.1"}
        knock(door, peer).post("/login", data={"username": "x", "password": "y"}, headers=headers)
        assert audit.list_audit(door.accounts.store, actor=OWNER, limit=1)[0].address == seen


def test_under_a_tunnels_name_no_site_shows_the_page_in_a_frame(workspace: Workspace) -> None:
    with Store.open(workspace) as store:
        door = door_of(store, workspace, framed_by="https://*.host.example")
        door.allow_host("a.tunnel.example")
        for host, framed in (("localhost", True), ("a.tunnel.example", False)):
            link = {"params": {"token": door.sessions.new_token(1)}, "headers": {"host": host}}
            answer = knock(door).get("/", **link)
            assert ("host.example" in answer.headers["content-security-policy"]) is framed
            assert ("SameSite=None" in answer.headers["set-cookie"]) is framed
            assert ("x-frame-options" in answer.headers) is not framed


def test_what_gradio_would_believe_is_dropped(door: Door) -> None:
    seen = inside(door).get(WHO, headers={"x-gradio-server": "https://evil.example"}).json()
    assert seen["server"] == ""


def test_nobody_reads_the_stream_of_another_session(door: Door) -> None:
    stream = {"params": {"session_hash": "abc123"}}
    mine = inside(door)
    other = TestClient(mine.app, follow_redirects=False)
    other.get("/", params={"token": door.sessions.new_token(add(door))})
    assert mine.get("/gradio_api/queue/data", **stream).status_code == 200
    assert other.get("/gradio_api/queue/data", **stream).status_code == 404
    assert mine.get("/gradio_api/queue/data", **stream).status_code == 200


def test_one_session_holds_so_many_streams_open(door: Door) -> None:
    cookie = inside(door).cookies[door.sessions.cookie_name]

    async def open_many() -> list[int]:
        release, codes = asyncio.Event(), []

        async def hold(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await release.wait()
            await send({"type": "http.response.body", "body": b""})

        gate = Gate(hold, door)

        async def one(number: int) -> None:
            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    codes.append(message["status"])

            scope = {
                "type": "http", "method": "GET", "path": "/gradio_api/queue/data", "scheme": "http",
                "query_string": f"session_hash=s{number}".encode(), "client": ("127.0.0.1", 1),
                "headers": [(b"host", b"testserver"), (b"cookie", f"{door.sessions.cookie_name}={cookie}".encode())],
            }  # fmt: skip
            await gate(scope, _nothing, send)

        tasks = [asyncio.create_task(one(n)) for n in range(MOST_STREAMS + 5)]
        while len(codes) < len(tasks):
            await asyncio.sleep(0.001)
        release.set()
        await asyncio.gather(*tasks)
        await one(0)  # there is room again
        return codes

    codes = finish(open_many())
    assert sorted(codes[:-1]) == [200] * MOST_STREAMS + [429] * 5 and codes[-1] == 200


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_foreign_forwarded_host_does_not_reach_the_page(door: Door) -> None:
    door.allow_host("public.example")
    client = inside(door)
    for said, reaches in (("evil.example", ""), ("public.example", "public.example"), ("evil.example, public.example", "")):
        assert client.get(WHO, headers={"x-forwarded-host": said}).json()["host"] == reaches


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "always", "address"),
    [
        ("203.0.113.9", "198.51.100.1", (), False, "203.0.113.9"),
        ("127.0.0.1", "198.51.100.1", (), False, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", ("127.0.0.1",), False, "198.51.100.1"),
        ("10.0.0.2", "1.2.3.4, 198.51.100.1, 10.0.0.3", ("10.0.0.0/8",), False, "198.51.100.1"),
        ("10.0.0.2", "nonsense", ("10.0.0.0/8",), False, "10.0.0.2"),
        ("10.0.0.2", "", ("10.0.0.0/8",), False, "10.0.0.2"),
        ("127.0.0.1", "1.2.3.4, 198.51.100.1", (), True, "198.51.100.1"),
        ("127.0.0.1", "", (), True, "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "", (), False, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "", (), False, "203.0.113.9"),
        ("testclient", "1.2.3.4", ("127.0.0.1",), False, "testclient"),
    ],
)  # fmt: skip
def test_whom_a_request_comes_from(
    peer: str, forwarded: str, trusted: tuple[str, ...], always: bool, address: str
) -> None:
    assert wire.client_address(peer, forwarded, wire.networks(trusted), always=always) == address


def test_settings_of_the_door() -> None:
    given = Settings.from_environment(
        {"MASUKA_TRUSTED_PROXIES": "10.0.0.0/8, ::1", "ALLOW_REGISTRATION": "1", "MASUKA_OWNER_PASSWORD": RIGHT}
    )
    assert (given.trusted_proxies, given.allow_registration, given.owner_password) == (("10.0.0.0/8", "::1"), True, RIGHT)
    assert RIGHT not in repr(given)
    for wrong in ({"MASUKA_TRUSTED_PROXIES": "proxy.example"}, {"ALLOW_REGISTRATION": "perhaps"}):
        with pytest.raises(InvalidInput):
            Settings.from_environment(wrong)


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Safari/604.1", "Safari on iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"),
        ("<script>", "A browser"),
        ("", "A browser"),
    ],
)
def test_a_device_is_told_by_a_name_of_ours(agent: str, name: str) -> None:
    assert device(agent) == name


def test_a_last_use_that_cannot_be_written_keeps_nobody_out(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    client = inside(door)
    monkeypatch.setattr("masuka.access.sessions.SEEN_EVERY_S", -1.0)
    with door.accounts.store.read() as conn, contextlib.ExitStack() as after:
        conn.execute("PRAGMA query_only = ON")  # of this thread; touching happens in another
        after.callback(conn.execute, "PRAGMA query_only = OFF")
        assert client.get(WHO).status_code == 200
