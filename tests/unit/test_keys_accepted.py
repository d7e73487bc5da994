"""Whether a service accepts a key, asked of a stand-in that speaks as the service does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from masuka import logs
from masuka.config import Settings
from masuka.errors import AccessDenied, InvalidInput, NotFound, RemoteUnavailable
from masuka.hosting import keys
from masuka.jobs.secrets import stored_secrets
from masuka.requests import Actor
from masuka.store import users
from masuka.studio import Studio
from tests.unit.test_keys_forms import GOOD

TESTABLE = [name for name in GOOD if keys.can_be_tested(name) and name not in keys.BY_PROGRAM]


class StandIn(ThreadingHTTPServer):
    """Answers with `status`, and remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.status = 200
        self.body = "{}"
        self.location = ""
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def address(self) -> str:
        return f"http://{self.place}"


class Answers(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        body = self.server.body.encode()
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("location", self.server.location)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[StandIn]:
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("name", TESTABLE)
def test_each_service_gets_its_key_as_it_wants_it(name: str, service: StandIn) -> None:
    about = keys.SERVICES[name]
    keys.must_be_accepted(name, GOOD[name], bases={name: service.address})
    path, headers = service.asked[0]
    assert path == about.path
    assert headers[about.header] == f"{about.scheme}{GOOD[name]}"
    assert GOOD[name] not in path
    assert set(about.also.items()) <= set(headers.items())


@pytest.mark.parametrize("name", TESTABLE)
@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused_is_called_so(name: str, status: int, service: StandIn) -> None:
    service.status = status
    with pytest.raises(AccessDenied, match="does not accept this key") as refused:
        keys.must_be_accepted(name, GOOD[name], bases={name: service.address})
    assert GOOD[name] not in str(refused.value)


def test_googles_way_of_refusing_is_known(service: StandIn) -> None:
    service.status, service.body = 400, json.dumps({"error": {"details": [{"reason": "API_KEY_INVALID"}]}})
    with pytest.raises(AccessDenied):
        keys.must_be_accepted("GOOGLE_API_KEY", GOOD["GOOGLE_API_KEY"], bases={"GOOGLE_API_KEY": service.address})


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
def test_what_says_nothing_about_the_key_is_no_verdict(status: int, service: StandIn) -> None:
    service.status = status
    with pytest.raises(RemoteUnavailable, match="neither proved nor refused"):
        keys.must_be_accepted("HF_TOKEN", GOOD["HF_TOKEN"], bases={"HF_TOKEN": service.address})


def test_a_key_never_follows_a_redirection(service: StandIn) -> None:
    service.status, service.location = 302, f"{service.address}/elsewhere"
    with pytest.raises(RemoteUnavailable):
        keys.must_be_accepted("HF_TOKEN", GOOD["HF_TOKEN"], bases={"HF_TOKEN": service.address})
    assert [path for path, _ in service.asked] == ["/api/whoami-v2"]


def test_no_credit_is_told_apart_from_a_wrong_key(service: StandIn) -> None:
    service.status = 402
    with pytest.raises(AccessDenied, match="no credit"):
        keys.must_be_accepted("FAL_KEY", GOOD["FAL_KEY"], bases={"FAL_KEY": service.address})


def test_a_service_that_is_not_there_is_said_in_words(service: StandIn) -> None:
    address = service.address
    service.server_close()
    with pytest.raises(RemoteUnavailable, match="did not answer"):
        keys.must_be_accepted("HF_TOKEN", GOOD["HF_TOKEN"], bases={"HF_TOKEN": address})


def test_a_key_of_the_wrong_form_is_not_sent_anywhere(service: StandIn) -> None:
    with pytest.raises(InvalidInput):
        keys.must_be_accepted("HF_TOKEN", "sk" + "-nothing-of-hugging-face", bases={"HF_TOKEN": service.address})
    assert service.asked == []


def test_a_tunnels_token_is_tested_by_using_it() -> None:
    with pytest.raises(RemoteUnavailable, match="tested by using it"):
        keys.must_be_accepted("CLOUDFLARED_TOKEN", GOOD["CLOUDFLARED_TOKEN"])
    assert not keys.can_be_tested("CLOUDFLARED_TOKEN") and keys.can_be_tested("NGROK_AUTHTOKEN")


@pytest.fixture
def studio(settings: Settings, service: StandIn) -> Iterator[Studio]:
    """A studio whose environment allows the stand-in's address."""
    with Studio.open(replace(settings, local_addresses=(service.place,))) as studio:
        yield studio


def test_the_studio_tests_the_key_that_it_keeps(studio: Studio, service: StandIn) -> None:
    with pytest.raises(NotFound):
        studio.preferences.test_key("HF_TOKEN")
    studio.preferences.set_key("HF_TOKEN", GOOD["HF_TOKEN"])
    said = studio.preferences.test_key("HF_TOKEN", bases={"HF_TOKEN": service.address})
    assert said == "Hugging Face accepts the key."
    assert logs.redact(f"sent {GOOD['HF_TOKEN']}") == "sent [secret]"


def test_a_service_of_ones_own_is_asked_at_its_own_address(studio: Studio, service: StandIn) -> None:
    studio.preferences.set_key("OPENAI_API_KEY", "anything-goes", base_url=f"{service.address}/v1/")
    studio.preferences.test_key("OPENAI_API_KEY")
    assert service.asked[0][0] == "/v1/models"
    assert service.asked[0][1]["authorization"] == "Bearer anything-goes"


def test_a_key_of_the_environment_is_sent_to_no_other_address(settings: Settings, service: StandIn) -> None:
    name, given = "OPENAI_API_KEY", StandIn()
    thread = threading.Thread(target=given.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    settings = replace(settings, local_addresses=(service.place,))
    with Studio.open(settings) as studio:
        studio.preferences.set_key(name, "typed-for-this-address", base_url=f"{service.address}/v1")
    secret = {name: "of-the-environment"}
    with Studio.open(replace(settings, secrets=secret, openai_base_url=f"{given.address}/v1/")) as studio:
        with pytest.raises(InvalidInput, match="environment's address alone"):
            studio.preferences.set_key(name, "", base_url=f"{service.address}/v2")
        studio.preferences.set_key(name, "", base_url=f"{given.address}/v1/")
        studio.preferences.test_key(name)
    given.shutdown()
    given.server_close()
    thread.join()
    assert service.asked == []
    assert [(path, told["authorization"]) for path, told in given.asked] == [("/v1/models", "Bearer of-the-environment")]


def test_a_new_address_needs_its_key_again(studio: Studio, service: StandIn) -> None:
    studio.preferences.set_key("OPENAI_API_KEY", "for-another-address", base_url="https://llm.example.org/v1")
    studio.preferences.set_key("OPENAI_API_KEY", "", base_url=f"{service.address}/v1")
    with pytest.raises(NotFound):
        studio.preferences.test_key("OPENAI_API_KEY")
    assert service.asked == []


def test_a_key_of_any_owner_is_the_studios(studio: Studio, settings: Settings) -> None:
    second = users.add_user(studio.store, actor=studio.actor, username="second", role="owner")
    theirs = studio.acting_as(Actor(user_id=second.id, role="owner", name="second")).preferences
    theirs.set_key("NGROK_AUTHTOKEN", GOOD["NGROK_AUTHTOKEN"])
    theirs.set_key("OPENAI_API_KEY", "anything-goes", base_url="https://llm.example.org/v1")
    assert studio.preferences.keys()["NGROK_AUTHTOKEN"] == theirs.keys()["NGROK_AUTHTOKEN"] == "stored"
    assert studio.preferences.base_url() == "https://llm.example.org/v1"
    for user_id in (1, second.id):
        assert stored_secrets(studio.store, settings, user_id)["NGROK_AUTHTOKEN"] == GOOD["NGROK_AUTHTOKEN"]
    studio.preferences.set_key("NGROK_AUTHTOKEN", "")
    assert theirs.keys()["NGROK_AUTHTOKEN"] == ""


def test_only_the_owner_may_test_a_key(studio: Studio) -> None:
    from masuka.errors import NotAllowed

    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=2, role="editor")).preferences.test_key("HF_TOKEN")
    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=2, role="editor")).preferences.list_keys()


def test_the_list_shows_the_end_of_a_key_and_nothing_else(studio: Studio) -> None:
    studio.preferences.set_key("HF_TOKEN", GOOD["HF_TOKEN"])
    shown = {key.name: key for key in studio.preferences.list_keys()}
    assert (shown["HF_TOKEN"].source, shown["HF_TOKEN"].ending) == ("stored", GOOD["HF_TOKEN"][-4:])
    assert GOOD["HF_TOKEN"] not in repr(shown)
    assert shown["FAL_KEY"].source == shown["FAL_KEY"].ending == ""


def test_a_key_whose_lock_is_gone_is_to_be_entered_again(settings: Settings) -> None:
    with Studio.open(settings) as studio:
        studio.preferences.set_key("FAL_KEY", GOOD["FAL_KEY"])
    (settings.workspace.secrets / "settings.key").unlink()
    with Studio.open(settings) as studio:
        assert studio.preferences.keys()["FAL_KEY"] == "enter again"
        with pytest.raises(NotFound, match="can no longer be read"):
            studio.preferences.test_key("FAL_KEY")
