"""The report of a training: scores, checkpoints, others beside it, its recipe."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from masuka.pocket.world import draw, sample_scene
from masuka.requests.training import TrainImage
from masuka.store import checkpoints, runs, scores
from masuka.studio import Studio
from tests.browser.conftest import PHONE, App
from tests.browser.test_accessible import findings

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Visit = Callable[..., Page]


def trained(studio: Studio, name: str, **settings: object) -> int:
    config = TrainImage.parse({"dataset_id": 1, "steps": 30, "resolution_px": 128, **settings}).as_dict()
    run = runs.add_run(studio.store, actor=studio.actor, name=name, base="pocket", family="flux", config=config)
    folder = studio.workspace.runs / f"{run.id:05d}"
    (folder / "samples").mkdir(parents=True)
    rng = random.Random(run.id)
    for step in (10, 20, 30):
        file = folder / "samples" / f"{step}.png"
        draw(sample_scene(rng)).save(file)
        runs.add_sample(
            studio.store, actor=studio.actor, run_id=run.id, step=step, prompt="mira7x on a beach", seed=1,
            file=studio.workspace.relative(file),
        )  # fmt: skip
        kept = folder / "checkpoints" / f"step-{step:08d}"
        kept.mkdir(parents=True)
        checkpoints.put_checkpoint(studio.store, run_id=run.id, step=step, folder=studio.workspace.relative(kept))
        for score, value in (("likeness", 0.5 + rng.random() / 3), ("validation", 0.3 - step / 200)):
            scores.put_score(studio.store, run_id=run.id, step=step, name=score, value=value)
    report = {"best_step": 20, "best_weight": 0.8, "overfit": "By step 30 it learnt too much.", "sentences": ["Best of 3."]}
    runs.set_run(studio.store, actor=studio.actor, id=run.id, report=report, status="done")
    runs.add_metrics(studio.store, run_id=run.id, rows=[{"step": n, "loss": 1 / n} for n in range(1, 31)])
    return run.id


@pytest.fixture(scope="module")
def pair(full: App) -> tuple[int, int]:
    with Studio.open(full.settings) as studio:
        return trained(studio, "Mira one", rank=8), trained(studio, "Mira two", rank=16)


def test_a_report_is_read_compared_and_its_recipe_run_again(
    full: App, visit: Visit, pair: tuple[int, int], tmp_path: Path
) -> None:
    page = visit(full, tab="training", run=pair[0])
    shown = page.locator("[data-region='training-report']")
    expect(shown.get_by_role("heading", name="How good is it?")).to_be_visible()
    expect(shown.get_by_text("By step 30 it learnt too much.")).to_be_visible()
    expect(shown.locator(".checkpoints article.best")).to_contain_text("Step 20")
    expect(shown.get_by_role("img", name="Likeness")).to_be_visible()

    beside = page.locator("[data-region='training-compare']")
    beside.get_by_text("Compare with others").click()
    beside.get_by_role("link", name="Mira two").click()
    expect(beside.get_by_role("row", name="rank 8 16")).to_be_visible()
    assert f"only={pair[1]}" in page.url
    expect(beside.get_by_role("img", name="Loss")).to_be_visible()

    with page.expect_download() as waiting:
        shown.get_by_role("link", name="Recipe (YAML)").click()
    saved = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(saved)
    assert saved.name == "Mira one recipe.yaml" and "rank: 8" in saved.read_text()

    shown.get_by_text("Train by a recipe", exact=True).click()
    shown.locator("input[data-into]").set_input_files(saved)
    field = page.locator("#training-recipe-recipe")
    expect(field).to_have_value(saved.read_text())
    field.fill("rank: 8")
    page.locator("#training-recipe-go").click()
    expect(page.locator("#training-recipe-recipe-error")).to_contain_text("no recipe")
    shown.locator("input[data-into]").set_input_files(saved)
    expect(field).to_have_value(saved.read_text())
    page.locator("#training-recipe-go").click()
    expect(page.get_by_text("Training is on its way, by that recipe.")).to_be_visible()
    with Studio.open(full.settings) as studio:
        job = studio.jobs.list(kind="train_image", limit=1)[0]
        studio.jobs.cancel([job.id])
    assert (job.request["rank"], job.request["steps"]) == (8, 30)


def test_the_report_is_accessible_and_fits_a_phone(full: App, visit: Visit, pair: tuple[int, int]) -> None:
    for size, scheme in ((None, "light"), (PHONE, "dark")):
        page = visit(full, tab="training", run=pair[0], only=str(pair[1]), size=size, scheme=scheme)
        expect(page.locator("[data-region='training-compare'] .figures")).to_be_visible()
        assert findings(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
