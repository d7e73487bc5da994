"""A hosted vision model: what is sent, and each answer that is none, against a local service."""

from __future__ import annotations

import pytest
from PIL import Image

from masuka.datasets.captions.captioners import Wish
from masuka.errors import AccessDenied, Refused, RemoteUnavailable, Stop
from masuka.providers import vision
from masuka.providers.vision import HostedSpeaker, Service
from tests.vision_stand_in import KEY, colour_of, running, said

RED, BLUE = (Image.new("RGB", (80, 60), name) for name in ("red", "blue"))
WISH = Wish("fixed", "person", ("brown hair",))


def speaker(address: str, **more: object) -> HostedSpeaker:
    """It asks this machine, which is allowed by name."""
    service = Service("Test", address, "eyes-1", KEY, local=["127.0.0.1"])
    return HostedSpeaker(service, **more)  # type: ignore[arg-type]


def test_each_picture_gets_its_own_answer() -> None:
    with running(lambda n, image: said(f"all {colour_of(image)}")) as service:
        assert speaker(service.address).say([RED, BLUE, RED], WISH) == ["all red", "all blue", "all red"]
    assert set(service.keys) == {f"Bearer {KEY}"}
    asked = service.asked[0]
    assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "eyes-1")
    text = asked["messages"][0]["content"][0]["text"]
    assert "Never mention: brown hair." in text and "clothing, pose, expression, background" in text


def test_a_refusal_is_of_one_picture() -> None:
    def answer(n: int, image: Image.Image):
        if colour_of(image) == "red":
            return 400, {"error": {"code": "content_policy_violation", "message": "No."}}, {}
        return said("blue")

    with running(answer) as service:
        refused, told = speaker(service.address).say([RED, BLUE], WISH)
    assert told == "blue"
    assert isinstance(refused, Refused) and "will not describe this picture: No" in refused.message


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"choices": [{"message": {"refusal": "I cannot."}}]}, "will not describe this picture: I cannot"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}, "its rules"),
        ({"nothing": 1}, "answered something else than a caption"),
    ],
)
def test_an_answer_that_is_no_caption(told: dict[str, object], sentence: str) -> None:
    with running(lambda n, image: (200, told, {})) as service:
        error = speaker(service.address).say([RED], WISH)[0]
    assert isinstance(error, Refused | RemoteUnavailable) and sentence in error.message


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "does not accept the key"), (402, "has no credit"), (404, "has no model named 'eyes-1'"),
        (307, "points to another address"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_every_picture_is_raised(status: int, sentence: str) -> None:
    headers = {"location": "http://127.0.0.1:1/v1/chat/completions"} if status == 307 else {}
    with (
        running(lambda n, image: (status, {"error": {"message": "no"}}, headers)) as service,
        pytest.raises(AccessDenied, match=sentence),
    ):
        speaker(service.address).say([RED], WISH)
    assert len(service.asked) == 1


def test_too_many_requests_are_asked_again_after_the_time_it_names() -> None:
    def answer(n: int, image: Image.Image):
        return (429, {"error": "slow down"}, {"retry-after": "0.01"}) if n < 3 else said("red")

    with running(answer) as service:
        assert speaker(service.address).say([RED], WISH) == ["red"]
    assert len(service.asked) == 3


def test_a_service_that_wants_an_hour_is_not_waited_for() -> None:
    with running(lambda n, image: (429, {}, {"retry-after": "3600"})) as service:
        error = speaker(service.address).say([RED], WISH)[0]
    assert isinstance(error, RemoteUnavailable) and "wants fewer requests" in error.message
    assert len(service.asked) == 1


def test_out_of_order_is_tried_four_times(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    monkeypatch.setattr(HostedSpeaker, "_rest", lambda self, seconds: rests.append(seconds))
    with running(lambda n, image: (503, {}, {})) as service:
        error = speaker(service.address).say([RED], WISH)[0]
    assert isinstance(error, RemoteUnavailable) and "out of order (503)" in error.message
    assert len(service.asked) == vision.TRIES and rests == [0.5, 1.0, 2.0]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostedSpeaker, "_rest", lambda self, seconds: None)
    error = speaker("http://127.0.0.1:9/v1").say([RED], WISH)[0]
    assert isinstance(error, RemoteUnavailable) and "cannot be reached" in error.message


def test_a_wait_can_be_cancelled() -> None:
    looks = iter(range(10))

    def check() -> None:
        if next(looks) >= 2:
            raise Stop("cancel")

    with running(lambda n, image: (429, {}, {"retry-after": "50"})) as service, pytest.raises(Stop):
        speaker(service.address, check=check).say([RED], WISH)
    assert len(service.asked) == 1


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "169.254.169.254", "2130706433:{port}"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_address_that_leads_inside_gets_neither_key_nor_picture(host: str, scheme: str) -> None:
    with running(lambda n, image: said("red")) as service:
        port = service.address.split(":")[2].partition("/")[0]
        asked = Service("Test", f"{scheme}://{host.format(port=port)}/v1", "eyes-1", KEY, local=["ollama:11434"])
        with pytest.raises(AccessDenied, match=r"not outside|not https|plain to read"):
            HostedSpeaker(asked).say([RED, BLUE], WISH)
    assert service.asked == []


def test_a_name_that_leads_inside_gets_neither_key_nor_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(lambda n, image: said("red")) as service:
        port = int(service.address.split(":")[2].partition("/")[0])
        monkeypatch.setattr("socket.getaddrinfo", lambda *args, **more: [(2, 1, 6, "", ("127.0.0.1", port))])
        asked = Service("Test", f"https://rebound.example:{port}/v1", "eyes-1", KEY)
        with pytest.raises(AccessDenied, match="not outside"):
            HostedSpeaker(asked).say([RED], WISH)
    assert service.asked == []


def test_a_name_that_nobody_knows_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*args: object, **more: object) -> None:
        raise OSError("no such name")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    rests: list[float] = []
    monkeypatch.setattr(HostedSpeaker, "_rest", lambda self, seconds: rests.append(seconds))
    error = HostedSpeaker(Service("Test", "https://nowhere.example/v1", "eyes-1", KEY)).say([RED], WISH)[0]
    assert isinstance(error, RemoteUnavailable) and "was not found" in error.message
    assert len(rests) == vision.TRIES - 1
