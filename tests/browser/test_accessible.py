"""axe finds nothing serious on any tab, in light and dark, empty and full."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from playwright.sync_api import Page

from masuka.ui.view import PARTS
from tests.browser.conftest import App, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TABS = ("home", "datasets", "training", "images", "library", "models", "settings")
Visit = Callable[..., Page]


def findings(page: Page) -> list[str]:
    """Serious and critical findings of axe-core, one line each."""
    script = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)
    result: dict[str, Any] = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{v['id']}: {v['help']} at {v['nodes'][0]['target']} {v['nodes'][0]['html'][:200]}"
        for v in result["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_full_tab(full: App, visit: Visit, scheme: str) -> None:
    page = visit(full, scheme=scheme)
    found = []
    for tab in TABS:
        page.evaluate("tab => document.querySelector(`#shell-nav a[href='?tab=${tab}']`).click()", tab)
        page.wait_for_selector(f"#page-{tab} [data-region]")
        for box in page.locator(f"#page-{tab} details").all():
            box.evaluate("box => { box.open = true }")
        found += [f"{tab}: {line}" for line in findings(page)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_viewer_and_the_question(full: App, visit: Visit, scheme: str) -> None:
    page = visit(full, scheme=scheme, tab="library")
    page.locator("#page-library .tile .open").first.click()
    page.wait_for_selector("#viewer aside .prompt")
    assert not findings(page)
    page.keyboard.press("Escape")
    page.locator("#page-library .pick input").first.check(force=True)
    assert not findings(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_start(fresh: App, visit: Visit, scheme: str) -> None:
    assert not findings(visit(fresh, scheme=scheme))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page(fresh: App, browser: Any, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(fresh.address + "login")
    assert not findings(page)
    context.close()


def test_ids_are_unique_on_every_tab(full: App, visit: Visit) -> None:
    page = visit(full, tab="home")
    inside = [f"datasets&dataset=1&part={part}" for part in PARTS]
    for tab in (*TABS, *inside):
        page.goto(f"{full.address}?tab={tab}")
        settled(page)
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map(e => e.id).filter(Boolean)")
        assert sorted(set(ids)) == sorted(ids), sorted({i for i in ids if ids.count(i) > 1})
