"""A stranger who gets anything but a refusal counts as let in."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from masuka.errors import NotAllowed, RemoteUnavailable
from masuka.hosting.tunnels.probe import BEHIND, local_must_refuse, public_must_refuse
from tests.tunnel_stand_in import House, Proxy, certificate


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.end()


def test_a_house_that_refuses_everywhere_is_closed(house: House) -> None:
    local_must_refuse(house.address)
    assert [line.split()[1] for line in house.asked] == [*BEHIND, "/"]


@pytest.mark.parametrize("path", [*BEHIND, "/"])
def test_one_open_path_is_enough_to_refuse(path: str, house: House) -> None:
    house.open.add(path)
    with pytest.raises(NotAllowed, match="let strangers in"):
        local_must_refuse(house.address)


def test_an_app_that_does_not_answer_is_not_shown_either(house: House) -> None:
    address = house.address
    house.server_close()
    with pytest.raises(RemoteUnavailable, match="does not answer"):
        local_must_refuse(address)


def test_a_door_that_is_busy_lets_nobody_in() -> None:
    with pytest.raises(RemoteUnavailable, match="answers 429"):
        public_must_refuse("https://x.example", transport=answering(*[refusal()] * 3, httpx.Response(429)), deadline_s=0)


def test_an_app_that_is_not_ready_is_said_in_a_sentence(house: House) -> None:
    house.status = 503
    with pytest.raises(RemoteUnavailable, match="answers 503"):
        local_must_refuse(house.address)


def through(folder: Path, upstream: str) -> tuple[Proxy, httpx.HTTPTransport]:
    file = certificate(folder)
    return Proxy(upstream, file), httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(file)))


def test_the_public_address_is_asked_as_well(house: House, tmp_path: Path) -> None:
    proxy, transport = through(tmp_path, house.address)
    public_must_refuse(proxy.url(), transport=transport)
    assert house.asked[0] == f"localhost:{proxy.port} /config"
    proxy.end()


def test_a_public_address_that_lets_in_is_refused_at_once(house: House, tmp_path: Path) -> None:
    proxy, transport = through(tmp_path, house.address)
    house.open.add("/media/item/1")
    with pytest.raises(NotAllowed, match="closed at once"):
        public_must_refuse(proxy.url(), transport=transport)
    proxy.end()


def answering(*answers: httpx.Response | Exception) -> httpx.MockTransport:
    """The world outside: one answer a request, the last one for ever."""
    left = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, Exception):
            raise now
        return now

    return httpx.MockTransport(answer)


def refusal() -> httpx.Response:
    return httpx.Response(401, json={"type": "NotAllowed"})


def test_a_new_link_may_need_some_seconds() -> None:
    slept: list[float] = []
    early = [httpx.ConnectError("no name yet"), httpx.Response(404), httpx.Response(502)]
    late = [refusal(), refusal(), refusal(), httpx.Response(303, headers={"location": "/login"})]
    public_must_refuse("https://x.example", transport=answering(*early, *late), sleep=slept.append)
    assert len(slept) == 3


@pytest.mark.parametrize(
    "answer", [httpx.ConnectError("nowhere"), httpx.Response(404), httpx.Response(502), httpx.Response(421)]
)
def test_a_link_that_never_leads_here_is_given_up(answer: httpx.Response | Exception) -> None:
    with pytest.raises(RemoteUnavailable, match=r"leads nowhere|does not lead to this app"):
        public_must_refuse("https://x.example", transport=answering(answer), deadline_s=0)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"type": "NotAllowed"}),
        httpx.Response(401, text="somebody else's sign-in"),
        httpx.Response(401, json=["NotAllowed"]),
        httpx.Response(302, headers={"location": "https://elsewhere.example/"}),
        httpx.Response(403),
    ],
)
def test_an_answer_that_is_not_our_gates_is_never_trusted(answer: httpx.Response) -> None:
    entrance = httpx.Response(303, headers={"location": "/login"})
    with pytest.raises(NotAllowed, match="/config answered"):
        public_must_refuse("https://x.example", transport=answering(*[answer] * 3, entrance), deadline_s=0)
