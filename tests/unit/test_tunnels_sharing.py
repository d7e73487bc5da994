"""A link is opened by the first way that works, and never where a stranger would get in."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from masuka.config import Settings, Workspace
from masuka.errors import Conflict, NotAllowed, RemoteUnavailable, StoreError
from masuka.hosting import addresses
from masuka.hosting.runtime import Runtime
from masuka.hosting.sharing import ASK_EVERY, Rules, Sharing
from masuka.hosting.tunnels import Link, Tunnel
from masuka.hosting.tunnels.budget import Budget
from masuka.hosting.tunnels.probe import public_must_refuse
from masuka.hosting.ways import opens_by_itself, ways
from tests.tunnel_stand_in import House, Proxy, certificate

SOON_S = 10.0


class Way:
    """A tunnel of the tests: it leads to `target` by a public address with TLS."""

    def __init__(self, provider: str, pem: Path, *, target: str = "", fails: str = "") -> None:
        self.provider = provider
        self.pem = pem
        self.target = target
        self.fails = fails
        self.opened = 0
        self.proxy: Proxy | None = None

    def open(self, host: str, port: int) -> Link:
        self.opened += 1
        if self.fails:
            raise RemoteUnavailable(self.fails, "Try again.")
        self.proxy = Proxy(self.target or f"http://{host}:{port}", self.pem)
        return Link(self.proxy.url(), self.provider)

    def close(self) -> None:
        if self.proxy is not None:
            self.proxy.end()
            self.proxy = None

    def alive(self) -> bool:
        return self.proxy is not None


class Gate:
    """What the app around the sharing would be told."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        self.password = True
        self.faults: list[BaseException] = []

    def may_open(self) -> None:
        if self.faults:
            raise self.faults.pop()
        if not self.password:
            raise NotAllowed("A link needs an owner's password first.", "Set one.")


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    return certificate(tmp_path)


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.end()


Make = Callable[..., Sharing]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def make(workspace: Workspace, house: House, gate: Gate, pem: Path) -> Iterator[Make]:
    made: list[Sharing] = []

    def new(
        *tunnels: Tunnel, share: str = "auto", public_address: str = "", budget: Budget | None = None, **more: object
    ) -> Sharing:
        import httpx

        transport = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(pem)))
        rules = Rules(
            may_open=gate.may_open,
            allow_host=lambda link: gate.hosts.add(link.host),
            forget_host=lambda link: gate.hosts.discard(link.host),
            tunnels=lambda: tunnels,
            budget=budget or Budget(lambda: "", lambda text: None),
            share=share,
            public_address=public_address,
            probe=partial(public_must_refuse, transport=transport, deadline_s=2.0),
        )
        made.append(Sharing(workspace, house.address, rules, **more))  # type: ignore[arg-type]
        return made[-1]

    yield new
    for sharing in made:
        sharing.stop()


def until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON_S
    while not wanted():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


def test_the_first_way_that_works_is_used(make: Make, pem: Path, gate: Gate, workspace: Workspace) -> None:
    first, second, third = Way("ngrok", pem, fails="No."), Way("gradio", pem), Way("cloudflared", pem)
    sharing = make(first, second, third)
    link = sharing.open()
    assert (link.provider, first.opened, second.opened, third.opened) == ("gradio", 1, 1, 0)
    told = addresses.read(workspace)
    assert (told.state, told.public_url, told.provider) == ("open", link.url, "gradio")
    assert gate.hosts == {"localhost"}
    sharing.close()
    assert addresses.read(workspace).state == "closed" and addresses.read(workspace).public_url == ""
    assert gate.hosts == set() and not second.alive()


def test_what_the_person_set_up_is_what_they_hear_about(make: Make, pem: Path) -> None:
    with pytest.raises(RemoteUnavailable, match="the first"):
        make(Way("ngrok", pem, fails="the first"), Way("gradio", pem, fails="the second")).open()


def test_without_an_owners_password_no_agent_is_even_called(make: Make, pem: Path, gate: Gate, house: House) -> None:
    gate.password = False
    way = Way("ngrok", pem)
    with pytest.raises(NotAllowed, match="password"):
        make(way).open()
    assert way.opened == 0 and house.asked == [] and gate.hosts == set()


@pytest.mark.parametrize("path", ["/config", "/media/item/1", "/"])
def test_an_app_that_lets_strangers_in_gets_no_link(path: str, make: Make, pem: Path, house: House) -> None:
    house.open.add(path)
    way = Way("ngrok", pem)
    with pytest.raises(NotAllowed, match="let strangers in"):
        make(way).open()
    assert way.opened == 0


def test_a_public_address_that_lets_strangers_in_is_closed_before_anybody_sees_it(
    make: Make, pem: Path, gate: Gate, workspace: Workspace
) -> None:
    open_house = House("/config")
    way, next_way = Way("ngrok", pem, target=open_house.address), Way("gradio", pem)
    sharing = make(way, next_way)
    told: list[str] = []
    sharing._rules.say = lambda now: told.append(now.public_url)
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "failed")
    assert "let strangers in" in addresses.read(workspace).message
    assert not way.alive() and next_way.opened == 0
    assert told == [""] and gate.hosts == set()
    open_house.end()


def test_a_link_that_leads_nowhere_is_closed_and_the_next_way_tried(make: Make, pem: Path) -> None:
    way, next_way = Way("ngrok", pem, target="http://127.0.0.1:9"), Way("gradio", pem)
    assert make(way, next_way).open().provider == "gradio"
    assert not way.alive()


def test_the_link_is_closed_when_the_password_goes(make: Make, pem: Path, gate: Gate, workspace: Workspace) -> None:
    way = Way("ngrok", pem)
    sharing = make(way, watch_every_s=0.05)
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    gate.password = False
    until(lambda: addresses.read(workspace).state == "failed")
    assert not way.alive() and gate.hosts == set()


def test_a_link_whose_program_ended_is_opened_again(make: Make, pem: Path, workspace: Workspace) -> None:
    way = Way("ngrok", pem)
    sharing = make(way, watch_every_s=0.05, reopen_waits_s=(0.05, 0.05))
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    way.close()
    until(lambda: way.opened == 2 and addresses.read(workspace).state == "open")
    way.fails = "Gone for good."
    way.close()
    until(lambda: addresses.read(workspace).state == "failed")
    assert addresses.read(workspace).message == "Gone for good."
    assert way.opened == 3


def test_wishes_come_from_other_programs(make: Make, pem: Path, workspace: Workspace) -> None:
    way, other = Way("ngrok", pem), Way("gradio", pem)
    make(way, other).start(open_now=False)
    wish = addresses.ask(workspace, "open", provider="gradio")
    assert addresses.answer_to(workspace, wish, timeout_s=SOON_S).provider == "gradio"
    assert way.opened == 0
    wish = addresses.ask(workspace, "close")
    assert addresses.answer_to(workspace, wish, timeout_s=SOON_S).state == "closed"
    assert not other.alive()


def test_one_workspace_has_one_link(make: Make, pem: Path) -> None:
    first, second = make(Way("ngrok", pem)), make(Way("ngrok", pem))
    first.open()
    with pytest.raises(Conflict, match="Another running app"):
        second.open()
    first.close()
    second.open()


def test_switched_off_stays_off(make: Make, pem: Path) -> None:
    way = Way("ngrok", pem)
    with pytest.raises(NotAllowed, match="switched off"):
        make(way, share="off").open()
    assert way.opened == 0


def test_a_host_with_an_address_of_its_own_opens_none(make: Make, pem: Path) -> None:
    way = Way("ngrok", pem)
    with pytest.raises(NotAllowed, match="has a public address already"):
        make(way, public_address="https://mira.hf.space").open()
    assert way.opened == 0


def test_a_chosen_way_is_the_only_one(make: Make, pem: Path) -> None:
    first, second = Way("ngrok", pem), Way("gradio", pem)
    assert make(first, second, share="gradio").open().provider == "gradio"
    with pytest.raises(NotAllowed, match="needs a token"):
        make(second, share="ngrok").open()


def test_the_app_that_ends_takes_its_link_along(make: Make, pem: Path, workspace: Workspace) -> None:
    way = Way("ngrok", pem)
    sharing = make(way)
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    sharing.stop()
    assert not way.alive() and not workspace.address.exists()
    assert make(Way("gradio", pem)).open().provider == "gradio", "the next app may have a link"


def test_a_screen_that_cannot_be_written_to_does_not_end_the_watch(
    make: Make, pem: Path, gate: Gate, workspace: Workspace
) -> None:
    def broken(_: object) -> None:
        raise BrokenPipeError("nobody reads it")

    way = Way("ngrok", pem)
    sharing = make(way, watch_every_s=0.05)
    sharing._rules.say = broken
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    gate.password = False
    until(lambda: not way.alive() and addresses.read(workspace).state == "failed")
    assert sharing._thread.is_alive()


def test_a_file_that_cannot_be_written_does_not_end_the_watch(
    make: Make, pem: Path, gate: Gate, workspace: Workspace
) -> None:
    way = Way("ngrok", pem)
    make(way, watch_every_s=0.05).start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    workspace.address.unlink()
    workspace.address.mkdir()
    gate.password = False
    until(lambda: not way.alive() and gate.hosts == set())
    workspace.address.rmdir()
    until(lambda: addresses.read(workspace).state == "failed")


def test_a_count_that_cannot_be_saved_leaves_no_link_open(make: Make, pem: Path, workspace: Workspace) -> None:
    def refuse(_: str) -> None:
        raise StoreError("The database is busy.", "Try again.")

    budget, way = Budget(lambda: "", refuse), Way("ngrok", pem)
    make(way, budget=budget, watch_every_s=0.05).start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    budget.add(requests=1)
    wish = addresses.ask(workspace, "close")
    assert addresses.answer_to(workspace, wish, timeout_s=SOON_S).state == "closed"
    assert not way.alive()


def test_a_database_that_is_busy_for_a_moment_does_not_close_for_good(
    make: Make, pem: Path, gate: Gate, workspace: Workspace
) -> None:
    way = Way("ngrok", pem)
    make(way, watch_every_s=0.05, reopen_waits_s=(0.05, 0.05, 0.05)).start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    gate.faults = [StoreError("The database is busy.", "Try again."), StoreError("The database is busy.", "Try again.")]
    until(lambda: way.opened >= 2 and addresses.read(workspace).state == "open" and not gate.faults)


def test_the_link_is_closed_when_the_app_lets_strangers_in_later(
    make: Make, pem: Path, gate: Gate, house: House, workspace: Workspace
) -> None:
    way = Way("ngrok", pem)
    make(way, watch_every_s=0.05).start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    house.open.add("/config")
    until(lambda: addresses.read(workspace).state == "failed")
    assert "let strangers in" in addresses.read(workspace).message
    assert not way.alive() and gate.hosts == set() and ASK_EVERY < 10


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_takes_the_link_along(make: Make, pem: Path, gate: Gate, workspace: Workspace) -> None:
    way = Way("ngrok", pem)
    sharing = make(way, watch_every_s=0.05)
    sharing.start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    gate.faults = [SystemExit()]
    until(lambda: not sharing._thread.is_alive())
    assert not way.alive() and gate.hosts == set()


class Stuck(Way):
    """A way whose program does not end while it is held."""

    held = True

    def close(self) -> None:
        if self.held and self.proxy is not None:
            raise PermissionError("not ours to end")
        super().close()


def test_a_program_that_does_not_end_is_said_and_reaches_nothing(
    make: Make, pem: Path, gate: Gate, workspace: Workspace
) -> None:
    way = Stuck("ngrok", pem)
    make(way, watch_every_s=0.05).start(open_now=True)
    until(lambda: addresses.read(workspace).state == "open")
    wish = addresses.ask(workspace, "close")
    told = addresses.answer_to(workspace, wish, timeout_s=SOON_S)
    assert told.state == "failed" and "does not end" in told.message and told.public_url == ""
    assert gate.hosts == set()
    way.held = False
    until(lambda: not way.alive() and addresses.read(workspace).state == "closed")


class Hanging(Way):
    """A way whose program says nothing until it is ended."""

    def __init__(self, pem: Path) -> None:
        super().__init__("ngrok", pem)
        self.ended = threading.Event()

    def open(self, host: str, port: int) -> Link:
        self.opened += 1
        assert self.ended.wait(60)
        raise RemoteUnavailable("It was ended.", "Try again.")

    def close(self) -> None:
        self.ended.set()


def test_an_app_that_ends_does_not_wait_for_a_link(make: Make, pem: Path, workspace: Workspace) -> None:
    way, next_way = Hanging(pem), Way("gradio", pem)
    sharing = make(way, next_way)
    sharing.start(open_now=True)
    until(lambda: way.opened == 1)
    sharing.stop()
    assert way.ended.is_set() and next_way.opened == 0
    assert not sharing._thread.is_alive() and not workspace.address.exists()


def test_an_app_that_ends_while_it_asks_outside_leaves_nothing_open(make: Make, pem: Path) -> None:
    way = Way("ngrok", pem, target="http://127.0.0.1:9")
    sharing = make(way, Way("gradio", pem))
    sharing.start(open_now=True)
    until(lambda: way.proxy is not None and bool(way.proxy.passed))
    sharing.stop()
    assert not way.alive() and not sharing._thread.is_alive()
    make(Way("gradio", pem)).open()  # the next app of this workspace may have one


def runtime(name: str, public_address: str = "") -> Runtime:
    return Runtime(name, name, keeps_files=False, public_address=public_address)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "secrets", "host", "opens"),
    [
        ("auto", {}, runtime("local"), False),
        ("auto", {"NGROK_AUTHTOKEN": "x"}, runtime("local"), True),
        ("auto", {"NGROK_AUTHTOKEN": "x"}, runtime("colab"), True),
        ("auto", {"NGROK_AUTHTOKEN": "x"}, runtime("kaggle"), False),
        ("ngrok", {"NGROK_AUTHTOKEN": "x"}, runtime("kaggle"), True),
        ("auto", {"CLOUDFLARED_TOKEN": "x"}, runtime("local"), False),
        ("off", {"NGROK_AUTHTOKEN": "x"}, runtime("colab"), False),
        ("ngrok", {"NGROK_AUTHTOKEN": "x"}, runtime("space", "https://mira.hf.space"), False),
        ("gradio", {}, runtime("local"), True),
        ("gradio", {}, runtime("space"), False),
    ],
)
def test_when_a_link_is_opened_without_being_asked_for(
    share: str, secrets: dict[str, str], host: Runtime, opens: bool, settings: Settings
) -> None:
    assert opens_by_itself(replace(settings, share=share), secrets, host) is opens


def test_a_named_tunnel_needs_its_name(settings: Settings) -> None:
    secrets = {"CLOUDFLARED_TOKEN": "x", "NGROK_AUTHTOKEN": "y"}

    def names(settings: Settings, secrets: dict[str, str]) -> list[str]:
        return [t.provider for t in ways(settings, secrets, start=lambda *_: "", stop=lambda _: None)]

    assert names(settings, {}) == ["gradio"]
    assert names(settings, secrets) == ["ngrok", "gradio"]
    named = replace(settings, cloudflared_host="studio.example.org")
    assert names(named, secrets) == ["ngrok", "gradio", "cloudflared"]
    assert opens_by_itself(named, {"CLOUDFLARED_TOKEN": "x"}, runtime("local"))
