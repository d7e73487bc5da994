"""Reports of trainings: scores, checkpoints, comparison, recipes, and the best weight in use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.models import judges
from masuka.models.catalogue import FINISHED
from masuka.requests import Actor, recipes
from masuka.requests.training import TrainImage
from masuka.store import checkpoints, models, runs, scores
from masuka.store.models import Model
from masuka.store.runs import Run
from masuka.ui import images, lines, report
from masuka.ui.charts import Point
from masuka.ui.view import View


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"))) as opened:
        yield opened


def trained(studio: Studio, name: str = "Mira 1", **settings: Any) -> Run:
    """A finished training of two checkpoints, of which the first is best."""
    config = TrainImage.parse({"dataset_id": 1, "name": name, "steps": 200, **settings}).as_dict()
    run = runs.add_run(studio.store, actor=studio.actor, name=name, base="pocket", family="flux", config=config)
    for step, likeness, validation in ((100, 0.9, 0.2), (200, 0.7, 0.3)):
        folder = studio.workspace.runs / f"{run.id:05d}" / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True)
        checkpoints.put_checkpoint(studio.store, run_id=run.id, step=step, folder=studio.workspace.relative(folder))
        for score, value in (("likeness", likeness), ("validation", validation)):
            scores.put_score(studio.store, run_id=run.id, step=step, name=score, value=value)
    scores.put_score(studio.store, run_id=run.id, step=0, name="likeness", value=0.4, weight=0.0)
    scores.put_score(studio.store, run_id=run.id, step=100, name="likeness", value=0.95, weight=0.8)
    found = {"best_step": 100, "best_weight": 0.8, "stopped_early": False, "overfit": "", "sentences": ["It <b>is</b> good."]}
    runs.set_run(studio.store, actor=studio.actor, id=run.id, report=found, status="done")
    runs.add_metrics(studio.store, run_id=run.id, rows=[{"step": n, "loss": 1 / n} for n in range(1, 50)])
    return studio.training.run(run.id)


def a_lora(studio: Studio, run: Run, **about: Any) -> Model:
    folder = studio.workspace.adapters / f"{run.id:05d}-mira"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Mira.safetensors").write_bytes(b"lora")
    told = {"device": "cpu", "precision": "bfloat16", "versions": {"torch": "2.13"}}
    (folder / "masuka.json").write_text(json.dumps(told))
    return models.add_model(
        studio.store, actor=studio.actor, kind="adapter", name=run.name, base="pocket", family="flux", run_id=run.id,
        path=studio.workspace.relative(folder / "Mira.safetensors"), **about,
    )  # fmt: skip


def test_checkpoints_come_with_their_scores_and_what_was_made_of_them(studio: Studio) -> None:
    run = trained(studio)
    lora = a_lora(studio, run)
    first, second = studio.reports.checkpoints(run.id)
    assert (first.step, first.best, first.adapter, first.scores["likeness"]) == (100, True, lora, 0.9)
    assert (second.best, second.adapter, second.scores["validation"]) == (False, None, 0.3)
    studio.workspace.resolve("runs").joinpath(f"{run.id:05d}", "checkpoints", "step-00000200").rmdir()
    assert [kept.step for kept in studio.reports.checkpoints(run.id)] == [100]
    with pytest.raises(NotFound, match="step 200 is gone"):
        studio.reports.export(run.id, 200)
    assert studio.reports.environment(run.id) == {"device": "cpu", "precision": "bfloat16", "torch": "2.13"}


def test_a_recipe_is_the_same_training_again(studio: Studio) -> None:
    run = trained(studio, rank=8, learning_rate=3e-4, sample_prompts=("a robot: {trigger}",), character_id=7)
    for form in ("yaml", "json"):
        text = studio.reports.recipe(run.id, form)
        settings = recipes.settings_in(text)
        assert not recipes.OF_THE_WORKSPACE & set(settings)
        again = TrainImage.parse({**settings, "dataset_id": 1, "name": "Mira 1", "character_id": 7})
        assert again.as_dict() == run.config
    about = json.loads(studio.reports.recipe(run.id, "json"))["about"]
    assert about["report"] == {"best_step": 100, "best_weight": 0.8}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no recipe"),
        ("just words", "no recipe"),
        ("settings: [1]", "no recipe"),
        ("recipe: 9\nsettings: {}", "another version"),
        ("recipe: 1\nsettings: {steps: 20, colour: red}", "no setting 'colour'"),
        ("recipe: 1\nsettings: {rank: 100000}", "Rank is 100,000"),
        ("settings: !!python/object/apply:os.system ['true']", "cannot be read"),
        ("[" * 20_000, "cannot be read"),
        ("a" * 200_000, "too long"),
    ],
)
def test_what_is_no_recipe_is_refused(studio: Studio, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        studio.reports.train_by(text, dataset_id=1)


def test_a_recipe_cannot_reach_into_this_workspace(studio: Studio) -> None:
    settings = recipes.settings_in("recipe: 1\nsettings: {dataset_id: 4, prior_dataset_id: 5, character_id: 6, rank: 8}")
    assert settings == {"rank": 8}


def test_a_recipe_trains_the_chosen_set(studio: Studio) -> None:
    run = trained(studio, rank=8, steps=150)
    made = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(made.id, seed=3, count=4))
    job = studio.reports.train_by(studio.reports.recipe(run.id), dataset_id=made.id, steps=20, resolution_px=128)
    assert (job.request["rank"], job.request["steps"], job.request["dataset_id"]) == (8, 20, made.id)
    assert job.params["judges"] == {"likeness": None, "prompt": None}


def test_trainings_differ_where_their_settings_do(studio: Studio) -> None:
    one, two = trained(studio), trained(studio, "Mira 2", rank=8, optimizer="prodigy")
    found = {row.name: row.values for row in studio.reports.differences([one.id, two.id])}
    assert found == {"rank": (16, 8), "optimizer": ("adamw", "prodigy")}
    assert studio.reports.differences([one.id, one.id]) == []


def test_pictures_are_drawn_at_the_best_weight_unless_asked(studio: Studio) -> None:
    lora = a_lora(studio, trained(studio), best_weight=0.6)
    assert studio.images.draw(prompt="a robot", adapter_id=lora.id).request["adapter_weight"] == 0.6
    asked = studio.images.draw(prompt="a robot", adapter_id=lora.id, adapter_weight=1.1)
    assert asked.request["adapter_weight"] == 1.1
    form = images.draw_form(studio, View(tab="images", adapter=lora.id))
    [weight] = re.findall(r'<input[^>]*name="adapter_weight"[^>]*>', form)
    assert 'value="0.6"' in weight and "The best weight that its training measured." in form


def test_the_models_that_judge_are_fetched_by_the_owner(studio: Studio) -> None:
    assert set(studio.reports.missing_judges()) == {"likeness", "prompt"}
    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=1, role="editor")).reports.download_judges()
    first, second = studio.reports.download_judges()
    assert first.params["repo"] == "facebook/dinov2-small" and second.params["repo"] == judges.REPO
    folder = judges.folder_in(studio.workspace.models)
    folder.mkdir(parents=True)
    (folder / FINISHED).write_text("{}")
    assert judges.folders(studio.workspace.models)["prompt"] == str(folder)
    assert set(studio.reports.missing_judges()) == {"likeness"}


def test_export_waits_for_the_end_of_the_training(studio: Studio) -> None:
    run = trained(studio)
    with pytest.raises(NotFound, match="asked for is gone"):
        studio.reports.export(run.id, 100)
    made = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_samples(made.id, seed=3, count=4))
    job = studio.training.start(dataset_id=made.id, steps=20)
    assert job.run_id is not None
    folder = studio.workspace.runs / "x"
    folder.mkdir(parents=True)
    checkpoints.put_checkpoint(studio.store, run_id=job.run_id, step=10, folder=studio.workspace.relative(folder))
    with pytest.raises(Conflict, match="still runs"):
        studio.reports.export(job.run_id, 10)
    studio.jobs.cancel([job.id])
    asked = studio.reports.export(job.run_id, 10)
    assert (asked.kind, asked.params["step"], asked.params["name"]) == ("export_checkpoint", 10, "Bolt 1 step 10")


# The page


def test_the_report_is_drawn_and_escapes_what_it_says(studio: Studio) -> None:
    run = trained(studio, "<script>x</script>")
    other = trained(studio, "Other <i>", rank=4)
    a_lora(studio, run)
    drawn = report.draw_report(studio, View(tab="training", run=run.id))
    assert "It &lt;b&gt;is&lt;/b&gt; good." in drawn and "<script>" not in drawn
    assert drawn.count("<article") == 2 and 'data-do="training-export"' in drawn
    beside = report.draw_compare(studio, View(tab="training", run=run.id, only=f"{other.id},999,x"))
    assert "Other &lt;i&gt;" in beside and "<th scope=row>rank</th><td>16</td><td>4</td>" in beside
    assert report.draw_compare(studio, View(tab="training", run=run.id)).count("<svg") == 0


def test_lines_are_told_to_those_who_do_not_see_them() -> None:
    chart = lines.lines_chart(
        [lines.Line("Mira <1>", [Point(10, 0.5), Point(20, 0.25), Point(30, float("nan"))]), lines.Line("none", [])],
        label="Loss", last_step=20, best_step=10, level=0.4,
    )  # fmt: skip
    assert 'aria-label="Loss: Mira &lt;1&gt; from 0.5 at step 10 to 0.25 at step 20"' in chart
    assert chart.count('class="dot') == 2 and 'class="best"' in chart and 'class="level"' in chart
    assert lines.lines_chart([lines.Line("a", [])], label="Loss", last_step=5) == ""
    assert "nan" not in chart
