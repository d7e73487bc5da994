"""What must not happen: markup from addresses and files, older answers on newer views, double work."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, Request, Route, expect

from masuka.store import models
from masuka.studio import Studio
from tests.browser.conftest import ITEMS, PATIENCE_MS, App, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]
MARKUP = "<img src=x onerror='window.broken=1'>"


def asked_of(request: Request) -> str:
    """The text that a look or an action sends, '' for any other request."""
    if request.method != "POST" or "/gradio_api/" not in request.url:
        return ""
    data = (request.post_data_json or {}).get("data")
    return data[0] if isinstance(data, list) and data and isinstance(data[0], str) else ""


def test_an_address_chooses_by_number_only(full: App, visit: Visit) -> None:
    page = visit(full, tab="library", item="../../media/item/5", dataset="1%27%22", character="%3Cb%3E")
    expect(page.locator("#page-library .tile").first).to_be_visible()
    assert "item=" not in page.url and "dataset=" not in page.url and "character=" not in page.url
    assert page.locator("#viewer").count() == 0


def test_only_html_of_the_server_becomes_markup(full: App, visit: Visit) -> None:
    page = visit(full, tab="library")
    page.route(
        "**/fragment/**", lambda route: route.fulfill(status=200, content_type="image/png", body=MARKUP)
    )
    page.locator("#page-library .tile .open").first.click()
    expect(page.locator("#viewer aside")).to_have_text("This is gone.")
    page.keyboard.press("Escape")
    page.locator("#page-library .tile").last.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    assert page.evaluate("window.broken") is None and page.locator("#page-library .tile").count() == 40


def test_one_look_at_a_time_and_the_last_view_wins(full: App, visit: Visit) -> None:
    page = visit(full, tab="home")
    under_way, most, seen = 0, 0, 0

    def count(route: Route) -> None:
        nonlocal under_way, most, seen
        if '"look"' in asked_of(route.request):
            seen, under_way = seen + 1, under_way + 1
            most = max(most, under_way)
            answer = route.fetch()
            under_way -= 1
            route.fulfill(response=answer)
        else:
            route.continue_()

    page.route("**/gradio_api/**", count)
    for tab in ("Datasets", "Library", "Home", "Library", "Training", "Images"):
        page.get_by_role("navigation", name="Tabs").get_by_role("link", name=tab).click(no_wait_after=True)
        page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.locator("#images-form")).to_be_visible()
    page.wait_for_timeout(1500)
    assert seen > 1 and most == 1
    assert "tab=images" in page.url and page.title() == "Images · masuka"
    expect(page.locator("#images-form")).to_be_visible()


def test_what_is_chosen_and_gone_is_forgotten(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets", dataset=98765, character=98765)
    expect(page.get_by_role("heading", name="Datasets", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="Mira").first).to_be_visible()
    page.wait_for_function("() => !location.search.includes('98765')")
    assert page.evaluate("localStorage.getItem('masuka:character')") is None
    with Studio.open(full.settings) as studio:
        short = studio.datasets.create(name="Short lived", trigger_word="short1")
    page.goto(f"{full.address}?tab=datasets&dataset={short.id}")
    expect(page.get_by_role("heading", name="Short lived")).to_be_visible()
    with Studio.open(full.settings) as studio:
        studio.datasets.delete(short.id)
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(page.locator("#datasets-new-go")).to_be_visible()


def test_older_pages_follow_an_action(full: App, visit: Visit) -> None:
    page = visit(full, tab="library")
    tiles = page.locator("#page-library .tile")
    expect(tiles).to_have_count(40)
    for count in (80, ITEMS):
        page.mouse.wheel(0, 20_000)
        expect(tiles).to_have_count(count)
    star = tiles.nth(ITEMS - 2).locator(".star")
    star.click(force=True)
    expect(tiles.nth(ITEMS - 2).locator(".star")).to_have_attribute("aria-pressed", "true")
    ids = page.eval_on_selector_all("#page-library .tile", "tiles => tiles.map(t => Number(t.dataset.id))")
    assert len(ids) == ITEMS and ids == sorted(set(ids), reverse=True)
    tiles.nth(ITEMS - 2).locator(".star").click(force=True)
    expect(tiles.nth(ITEMS - 2).locator(".star")).to_have_attribute("aria-pressed", "false")
    tiles.nth(60).locator(".pick input").check(force=True)
    gone = tiles.nth(60).get_attribute("data-id")
    page.locator(".selection:visible").get_by_role("button", name="Delete").click()
    expect(page.locator(f"#page-library .tile[data-id='{gone}']")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".toast").last).to_contain_text("1 picture brought back.")


def test_no_lora_stays_chosen(full: App, visit: Visit) -> None:
    with Studio.open(full.settings) as studio:
        made = models.add_model(
            studio.store, actor=studio.actor, kind="adapter", name="Mira 1", base="pocket", family="flux",
            path="adapters/1/mira.safetensors", sha256="0" * 64, trigger_word="mira7x", class_word="robot",
            character_id=1, config={},
        )  # fmt: skip
    try:
        page = visit(full, tab="images", character=1)
        choice = page.locator("#images-form-adapter_id")
        expect(choice).to_have_value(str(made.id))
        choice.select_option("0")
        expect(page.locator("#images-form-base")).to_be_visible()
        page.reload()
        settled(page)
        expect(choice).to_have_value("0")
        choice.select_option(str(made.id))
        page.get_by_role("navigation", name="Tabs").get_by_role("link", name="Library").click()
        page.locator("#page-library .tile .open").first.click()
        page.locator("#viewer aside").get_by_role("button", name="Use again").click()
        expect(page.locator("#images-form-prompt")).to_have_value("on a beach")
        expect(choice).to_have_value("0")
    finally:
        with Studio.open(full.settings) as studio:
            models.delete_model(studio.store, actor=studio.actor, id=made.id)


def test_an_unanswered_action_frees_its_button_and_is_done_once(full: App, visit: Visit) -> None:
    page = visit(full, tab="datasets")
    sent: list[str] = []

    def hold(route: Route) -> None:
        asked = asked_of(route.request)
        if '"datasets-create"' not in asked:
            route.continue_()
            return
        sent.append(json.loads(asked)["key"])
        if len(sent) > 1:
            route.continue_()

    page.route("**/gradio_api/**", hold)
    page.locator("#datasets-new-name").fill("Once")
    page.locator("#datasets-new-trigger_word").fill("once01")
    button = page.locator("#datasets-new-go")
    button.click()
    expect(button).to_have_attribute("aria-busy", "true")
    expect(page.locator(".toast")).to_contain_text("has not answered", timeout=PATIENCE_MS)
    expect(button).not_to_have_attribute("aria-busy", "true")
    button.click()
    expect(page.get_by_role("heading", name="Once")).to_be_visible()
    assert len(sent) == 2 and sent[0] == sent[1] and len(sent[0]) == 32
