"""Training on the page: what it will take, presets, a refusal, a start, and more steps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from masuka.studio import Studio
from tests.browser.conftest import PHONE, App

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]


def test_the_plan_stands_beside_the_button_and_follows_the_form(full: App, visit: Visit) -> None:
    page = visit(full, tab="training")
    plan = page.locator("#training-plan")
    expect(plan).to_contain_text("It fits")
    expect(plan).to_contain_text("of main memory")
    expect(plan).to_contain_text("400 steps on 8 pictures")
    page.locator("#training-form-steps").fill("450")
    expect(plan).to_contain_text("450 steps on 8 pictures")
    assert page.locator("#training-form-quantize").count() == 0
    assert page.locator("#training-form-min_snr_gamma").count() == 0
    page.locator("#training-form-steps").fill("5")
    expect(plan).to_contain_text("Steps is 5.")


def test_a_setting_shows_only_where_it_has_an_effect(full: App, visit: Visit) -> None:
    page = visit(full, tab="training")
    page.locator("#training-form-advanced > summary").click()
    rank, factor = page.locator("#training-form-rank"), page.locator("#training-form-lokr_factor")
    expect(rank).to_be_visible()
    expect(factor).to_be_hidden()
    page.locator("#training-form-method").select_option(label="LoKr")
    expect(factor).to_be_visible()
    page.locator("#training-form-method").select_option("full")
    expect(factor).to_be_hidden()
    expect(rank).to_be_hidden()
    expect(page.locator("#training-form-prior_weight")).to_be_hidden()
    page.locator("#training-form-sweep_ranks").fill("4\nbanana")
    page.get_by_role("button", name="Train all combinations").click()
    expect(page.locator("#training-form-sweep_ranks-error")).to_contain_text("Ranks: 'banana' is no number.")


def test_a_base_that_cannot_fit_says_so_before_and_a_preset_fills_the_form(full: App, visit: Visit) -> None:
    page = visit(full, tab="training", base="flux1-dev")
    plan = page.locator("#training-plan")
    expect(plan).to_contain_text("of main memory: more than there is")
    expect(page.get_by_role("button", name="Start training")).to_have_count(0)
    page.get_by_role("button", name="CharForge").click()
    expect(page.locator("#training-form-steps")).to_have_value("800")
    expect(page.locator("#training-form-rank")).to_have_value("8")
    expect(plan).to_contain_text("800 steps")
    page.get_by_role("button", name="Recommended").click()
    expect(page.locator("#training-form-steps")).to_have_value("1500")
    expect(page.locator("#training-form-rank")).to_have_value("16")


def test_a_training_is_started_and_goes_on_for_more_steps(full: App, visit: Visit) -> None:
    page = visit(full, tab="training", size=PHONE)
    page.locator("#training-form-name").fill("Mira short " + "W" * 60)
    page.locator("#training-form-steps").fill("12")
    page.locator("#training-form-advanced > summary").click()
    for name, value in {"batch_size": "1", "rank": "4", "checkpoint_every": "6", "sample_every": "0"}.items():
        page.locator(f"#training-form-{name}").fill(value)
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("#page-training h1", has_text="Mira short")).to_be_visible()
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0  # a long name is wrapped
    expect(page.get_by_role("heading", name="Go on from here")).to_be_visible()
    page.locator("#training-extend-form-more").fill("4")
    page.get_by_role("button", name="Train more").click()
    expect(page.locator("#page-training .job").filter(has_text="to 16")).to_be_visible()
    page.wait_for_function("() => /Mira short W+ to 16/.test(document.body.innerText) && !/Cancel/.test(document.querySelector('#page-training .run').innerText)")
    with Studio.open(full.settings) as studio:
        run = next(r for r in studio.training.runs() if r.name.startswith("Mira short"))
        assert run.config["steps"] == 16
        assert run.measured["peak_ram_bytes"] > 0
        assert [m.step for m in studio.training.metrics(run.id)] == list(range(1, 17))
    folder = os.environ.get("SHOTS")
    if folder:
        shots(full, visit, Path(folder))


def shots(app: App, visit: Visit, folder: Path) -> None:
    from tests.browser.conftest import DESK

    for width, size in (("desk", DESK), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page = visit(app, tab="training", size=size, scheme=scheme)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"{width}-{scheme}.png", full_page=True)
            if width == "desk":
                page = visit(app, tab="training", base="flux1-dev", size=size, scheme=scheme)
                page.wait_for_timeout(1500)
                page.screenshot(path=folder / f"{width}-{scheme}-dev.png", full_page=True)
