"""Settings, as the owner uses it: a key is refused, kept, tested; a link says why it is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import App
from tests.tunnel_stand_in import Server

Visit = Callable[..., Page]


class Answer(BaseHTTPRequestHandler):
    """A service that speaks OpenAI's language and knows one key."""

    def do_GET(self) -> None:
        known = self.headers.get("authorization") == "Bearer own-canary-key"
        self.send_response(200 if known and self.path == "/v1/models" else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def service() -> Iterator[Server]:
    server = Server(Answer)
    yield server
    server.end()


def enter(page: Page, name: str, value: str, address: str = "") -> None:
    page.locator("#settings-key-name").select_option(name)
    page.locator("#settings-key-value").fill(value)
    if address:
        page.locator("#settings-key-base_url").fill(address)
    page.locator("#settings-key-go").click()


def test_a_key_of_the_wrong_form_is_said_under_its_field(full: App, visit: Visit) -> None:
    page = visit(full, tab="settings")
    enter(page, "HF_TOKEN", "sk-not-of-hugging-face")
    error = page.locator("#settings-key-value-error")
    expect(error).to_contain_text("A key of Hugging Face begins with hf_.")
    expect(page.locator("#settings-key-value")).to_have_attribute("aria-invalid", "true")


def test_a_key_is_tested_at_its_own_service(full: App, visit: Visit, service: Server) -> None:
    page = visit(full, tab="settings")
    enter(page, "OPENAI_API_KEY", "own-canary-key", f"http://127.0.0.1:{service.port}/v1")
    page.get_by_role("button", name="Test the key of OpenAI or alike").click()
    expect(page.locator(".toast").last).to_have_text("OpenAI or alike accepts the key.×")
    enter(page, "OPENAI_API_KEY", "own-wrong-canary", f"http://127.0.0.1:{service.port}/v1")
    expect(page.locator(".toast").last).to_contain_text("key saved")
    page.get_by_role("button", name="Test the key of OpenAI or alike").click()
    expect(page.locator(".toast.bad").last).to_contain_text("does not accept this key")
    assert "canary" not in page.content()
    enter(page, "OPENAI_API_KEY", "")
    expect(page.get_by_role("button", name="Test the key of OpenAI or alike")).to_have_count(0)


def test_a_link_without_an_owners_password_stays_closed_and_says_why(full: App, visit: Visit) -> None:
    page = visit(full, tab="settings")
    page.locator("#settings-open-link").click()
    expect(page.locator(".toast.bad").last).to_contain_text("needs an owner's password first")
    card = page.locator("#settings-link")
    expect(card).to_contain_text("not open")
    expect(card).to_contain_text("Settings → You")
    expect(page.locator("#settings-open-link")).to_be_enabled()
