"""How pictures are varied is set and looked at; a training says what it learnt from."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from masuka.store import runs
from masuka.studio import Studio, content
from tests.browser.conftest import PHONE, App

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]


def dataset_of(app: App) -> int:
    with Studio.open(app.settings) as studio:
        return studio.datasets.list()[-1].id


@pytest.mark.parametrize("size", [None, PHONE], ids=["desk", "phone"])
def test_variations_are_chosen_and_seen(visit: Visit, full: App, size: dict[str, int] | None) -> None:
    dataset = dataset_of(full)
    with Studio.open(full.settings) as studio:
        studio.edits.set_augment(dataset, {})
    page = visit(full, tab="datasets", dataset=dataset, part="trainer", size=size)
    page.get_by_text("Pictures are learnt from as they are").click()
    page.get_by_label("Brightness").fill("0.7")
    page.locator("#varying-save").click()
    expect(page.get_by_text("Brightness must be 0 to 0.5.")).to_be_visible()
    page.get_by_label("Brightness").fill("0.25")
    page.get_by_label("Flip").check()
    page.locator("#varying-save").click()
    expect(page.get_by_text("Pictures are varied")).to_be_visible()
    expect(page.get_by_alt_text("Variant 6")).to_be_visible()
    with Studio.open(full.settings) as studio:
        augment = studio.edits.augment(dataset).augment
        assert (augment.flip, augment.brightness) == (True, 0.25)
        studio.edits.set_augment(dataset, {})


def test_a_training_says_how_its_set_has_changed(visit: Visit, full: App) -> None:
    with Studio.open(full.settings) as studio:
        dataset = studio.datasets.list()[-1]
        kept = studio.datasets.every_picture(dataset.id)
        run = runs.add_run(
            studio.store, actor=studio.actor, name="Mira 1", base="pocket", family="flux", dataset_id=dataset.id,
            config={"dataset_id": dataset.id, "base": "pocket", "steps": 10}, content=content.of(dataset, kept).as_row(),
        )  # fmt: skip
    page = visit(full, tab="training", run=run.id)
    expect(page.get_by_text("Its data set is as it was.")).to_be_visible()
    with Studio.open(full.settings) as studio:
        studio.edits.set(kept[0].id, flip=True)
    page = visit(full, tab="training", run=run.id)
    expect(page.get_by_text("1 picture has another recipe")).to_be_visible()
    page.locator("#training-repeat").click()
    expect(page.get_by_role("heading", name="Mira 2", exact=True, level=1)).to_be_visible()
    with Studio.open(full.settings) as studio:
        assert studio.training.runs(limit=1)[0].content == run.content
        studio.edits.reset([kept[0].id])
    page.get_by_role("button", name="Cancel").first.click()


def test_chosen_pictures_are_cut_out_and_taken_back(visit: Visit, full: App) -> None:
    dataset = dataset_of(full)
    page = visit(full, tab="datasets", dataset=dataset)
    tiles = page.locator("#page-datasets .tile")
    expect(tiles.first).to_be_visible()
    before = tiles.first.locator("img").get_attribute("src")
    page.locator("#page-datasets .pick input").first.check(force=True)
    bar = page.locator(".selection:visible")
    bar.locator("summary", has_text="Crop").click()
    bar.get_by_role("button", name="Cut out of the background").click()
    page.get_by_role("dialog").get_by_role("button", name="Cut out").click()
    expect(tiles.first.locator("img")).not_to_have_attribute("src", before or "")
    with Studio.open(full.settings) as studio:
        first = studio.datasets.every_picture(dataset)[0]
        assert studio.edits.recipe(first.id).background == "removed"
        assert studio.edits.matte(first.id) is not None
    page.locator("#page-datasets .pick input").first.check(force=True)
    bar.locator("summary", has_text="Crop").click()
    bar.get_by_role("button", name="Back to the original").click()
    expect(tiles.first.locator("img")).to_have_attribute("src", before or "")
