"""The whole way on the built-in model, as a newcomer walks it, with the interruptions of real life."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from masuka.pocket import FOLDER
from masuka.studio import Studio
from tests.browser.conftest import PATIENCE_MS, App, settled

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not (FOLDER / "model_index.json").exists(), reason="Pocket's weights are not built"),
]
TRAINING_MS = 2_700_000  # minutes where nothing else runs; this is for when everything does
Visit = Callable[..., Page]


def test_from_nothing_to_a_new_picture(fresh: App, visit: Visit) -> None:
    page = visit(fresh)
    expect(page.get_by_role("heading", name="Teach a model your character")).to_be_visible()
    page.get_by_role("button", name="Try it with a sample robot").click()
    expect(page.get_by_role("heading", name="20 pictures")).to_be_visible(timeout=PATIENCE_MS)

    page.get_by_role("button", name="Start training").click()
    card = page.locator("#page-home .job.running").first
    expect(card).to_be_visible(timeout=PATIENCE_MS)
    expect(card).to_contain_text("step", timeout=TRAINING_MS)  # a busy machine loads torch slowly

    page.reload()
    settled(page)
    expect(page.locator("#page-home .job.running").first).to_contain_text("step")
    progress = page.locator("#page-home .job.running progress").first
    expect(progress).to_have_attribute("value", re.compile(r"\d+"))

    other = visit(fresh, tab="training")
    expect(other.locator("#page-training .job.running")).to_be_visible(timeout=PATIENCE_MS)
    expect(other.locator("#page-training svg.chart path.mean")).to_be_visible(timeout=PATIENCE_MS)
    other.get_by_text("Log", exact=True).first.click()
    expect(other.locator("#page-training .log")).not_to_contain_text("Nothing yet.", timeout=PATIENCE_MS)
    expect(page.locator("#shell-header")).to_contain_text("1 running")

    draw = page.get_by_role("button", name="Draw 4 pictures")
    expect(draw).to_be_visible(timeout=TRAINING_MS)
    expect(other.locator("#page-training .title").get_by_role("link", name="Draw with it")).to_be_visible(
        timeout=PATIENCE_MS
    )
    draw.click()
    expect(page.locator("#home-recent .tile")).to_have_count(4, timeout=TRAINING_MS)

    page.locator("#home-recent .tile .open").first.click()
    side = page.locator("#viewer aside")
    expect(side).to_contain_text("applied to")
    side.get_by_role("button", name="Use again").click()
    expect(page.locator("#images-form-prompt")).to_have_value("{trigger} {class} wearing a crown on a beach")

    with Studio.open(fresh.settings) as studio:
        assert len(studio.library.items()) == 4
        assert {j.state for j in studio.jobs.list()} == {"done"}


def test_a_training_that_is_cancelled_leaves_nothing(fresh: App, visit: Visit) -> None:
    page = visit(fresh, tab="training")
    before = fresh_adapters(fresh)
    page.locator("#training-form-steps").fill("2000")
    page.locator("#training-start").click()
    running = page.locator("#page-training .job.running")
    expect(running).to_be_visible(timeout=PATIENCE_MS)
    expect(running).to_contain_text("step", timeout=TRAINING_MS)
    running.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel this training?")
    dialog.get_by_role("button", name="Keep").click()
    expect(running).to_be_visible()
    running.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the training").click()
    expect(page.locator("#page-training .job.cancelled")).to_be_visible(timeout=PATIENCE_MS)
    assert fresh_adapters(fresh) == before


def fresh_adapters(app: App) -> list[str]:
    return sorted(p.name for p in app.settings.workspace.adapters.iterdir())
