"""An invite from the owner's page to a guest's phone, and what the guest sees there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from tests.browser.conftest import PATIENCE_MS, PHONE, App, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
PASSWORD = "several good words"


@pytest.fixture
def stranger(browser: Browser) -> Iterator[Page]:
    """A phone that was never here; its console must stay quiet."""
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark")
    context.set_default_timeout(PATIENCE_MS)
    page, wrong = context.new_page(), []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert not wrong, "\n".join(wrong)


def test_an_invited_guest_comes_in_looks_and_leaves(full: App, visit: Visit, stranger: Page) -> None:
    owner = visit(full, tab="settings")
    owner.get_by_label("For whom").fill("Kim")
    owner.get_by_role("button", name="Make an invite").click()
    shown = owner.get_by_role("dialog", name="The invite").get_by_role("textbox")
    link = shown.input_value()
    assert link.startswith(f"{full.address}invite?token=")
    owner.get_by_role("dialog").get_by_role("button", name="Close").click()

    stranger.goto(link)
    stranger.get_by_label("Name").fill("Kim")
    stranger.get_by_label("Password").fill(PASSWORD)
    stranger.get_by_role("button", name="Come in").click()
    settled(stranger)
    assert "token" not in stranger.url

    stranger.goto(f"{full.address}?tab=library")
    expect(stranger.locator("#page-library .tile").first).to_be_visible()  # everything was shared
    for tab in ("datasets", "training", "images", "settings"):
        stranger.goto(f"{full.address}?tab={tab}")
        settled(stranger)
        expect(stranger.locator(f"#page-{tab} .button.primary:visible")).to_have_count(0)
        assert stranger.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(stranger.get_by_text("Sign out everywhere")).to_be_visible()
    expect(stranger.get_by_role("heading", name="Storage")).to_have_count(0)

    stranger.get_by_role("button", name="Sign out here").click()
    stranger.get_by_label("Name").fill("kim")
    stranger.get_by_label("Password").fill(PASSWORD)
    stranger.get_by_role("button", name="Sign in").click()
    settled(stranger)

    stranger.goto("about:blank")  # a page that is open would say in its console that it was refused
    owner.reload()
    settled(owner)
    person = owner.locator("#settings-people .list > div").filter(has_text="Kim")
    person.get_by_text("Change").click()
    person.get_by_role("button", name="Lock out").click()
    expect(person.get_by_text("Locked out")).to_be_visible()
    stranger.goto(full.address)
    expect(stranger.get_by_role("heading", name="Open masuka")).to_be_visible()


def test_the_owner_sets_a_password_and_signs_out_everywhere(fresh: App, visit: Visit) -> None:
    page = visit(fresh, tab="settings")
    page.get_by_text("Set a password").click()
    page.get_by_label("New password").fill("short")
    page.get_by_role("button", name="Save password").click()
    expect(page.get_by_text("The password has 5 characters.")).to_be_visible()
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_role("button", name="Save password").click()
    expect(page.get_by_text("Saved.")).to_be_visible()


def test_the_page_waits_when_it_was_too_much(fresh: App, visit: Visit) -> None:
    page = visit(fresh, tab="library", refused=True)
    refusals: list[str] = []

    def refuse_twice(route: Route) -> None:
        if len(refusals) < 2:
            refusals.append(route.request.url)
            route.fulfill(status=429, headers={"retry-after": "1"}, json={"message": "too much"})
        else:
            route.continue_()

    page.route("**/gradio_api/run/**", refuse_twice)
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="Invite somebody")).to_be_visible()
    assert len(refusals) == 2
