"""The same training with several settings: queued together, compared by their scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.errors import InvalidInput, NotFound
from masuka.requests.sweeps import SweepTraining
from masuka.store import runs, scores
from masuka.ui.sweeps import draw_sweep, on_sweep
from masuka.ui.view import View


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"), device="cpu")) as opened:
        yield opened


@pytest.fixture
def dataset_id(studio: Studio, tmp_path: Path) -> int:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (140, 130), "red").save(folder / "1.png")
    made = studio.datasets.create(name="Mira", trigger_word="mira7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_pictures(made.id, folder))
    return made.id


def test_every_combination_once_in_a_stated_order() -> None:
    wanted = SweepTraining.parse({"learning_rates": ["0.001", "0.002", "0.001"], "ranks": [4, 8]})
    assert wanted.combinations() == [
        {"learning_rate": 0.001, "rank": 4},
        {"learning_rate": 0.001, "rank": 8},
        {"learning_rate": 0.002, "rank": 4},
        {"learning_rate": 0.002, "rank": 8},
    ]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, "nothing to compare"),
        ({"ranks": [8]}, "nothing to compare"),
        ({"ranks": [4, 8, 16], "learning_rates": [1e-3, 2e-3, 3e-3]}, "That is 9 trainings"),
    ],
)
def test_too_few_and_too_many_are_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        SweepTraining.parse(choices)


def test_all_trainings_are_queued_or_none(studio: Studio, dataset_id: int) -> None:
    settings = {"dataset_id": dataset_id, "base": "pocket", "steps": 20}
    with pytest.raises(InvalidInput, match="Rank is 128"):
        studio.sweeps.start({"ranks": [4, 128]}, settings)
    assert (studio.training.runs(), list(studio.sweeps.list())) == ([], [])
    sweep = studio.sweeps.start({"ranks": [4, 8]}, settings, key="a press")
    assert studio.sweeps.start({"ranks": [4, 8]}, settings, key="a press").id == sweep.id
    rows = studio.sweeps.table(sweep.id)
    assert [(row.run.config["rank"], row.run.config["steps"], row.run.status) for row in rows] == [
        (4, 20, "queued"),
        (8, 20, "queued"),
    ]
    assert [dict(row.settings) for row in rows] == [{"rank": 4}, {"rank": 8}]
    assert studio.sweeps.cancel(sweep.id) == 2
    with pytest.raises(NotFound):
        studio.sweeps.table(99)


def test_the_best_is_the_one_that_is_most_alike(studio: Studio, dataset_id: int) -> None:
    sweep = studio.sweeps.start({"ranks": [4, 8, 16]}, {"dataset_id": dataset_id, "steps": 20})
    rows = studio.sweeps.table(sweep.id)
    assert not any(row.best for row in rows)
    ids = [row.run.id for row in rows]
    for run_id, loss in zip(ids, (0.3, 0.1, 0.2), strict=True):
        scores.put_score(studio.store, run_id=run_id, step=20, name="validation", value=loss)
    assert [row.best for row in studio.sweeps.table(sweep.id)] == [False, True, False]
    scores.put_score(studio.store, run_id=ids[0], step=20, name="likeness", value=0.6)
    scores.put_score(studio.store, run_id=ids[2], step=10, name="likeness", value=0.9)
    scores.put_score(studio.store, run_id=ids[2], step=20, name="likeness", value=0.7)
    runs.set_run(studio.store, actor=studio.actor, id=ids[2], report={"best_step": 10})
    shown = studio.sweeps.table(sweep.id)
    assert [row.best for row in shown] == [False, False, True]
    assert shown[2].scores == {"likeness": 0.9}


def test_the_page_starts_a_sweep_and_shows_its_table(studio: Studio, dataset_id: int) -> None:
    values = {"dataset_id": str(dataset_id), "base": "pocket", "steps": "20", "sweep_ranks": ["4", "8"]}
    outcome = on_sweep(studio, {"values": values, "key": "0" * 32}, View())
    assert outcome.say == "2 trainings are on their way."
    table = draw_sweep(studio, View(run=outcome.go["run"]))
    assert table.count("<tr") == 3
    assert "Mira 1" in table
    assert "Mira 2" in table
    assert draw_sweep(studio, View(run=None)).count("<table") == 1
