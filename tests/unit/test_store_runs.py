"""Figures of trainings: every step once, nothing that is no number, thinned without losing a spike."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.config import Workspace
from masuka.errors import InvalidInput, NotFound, TrainingError
from masuka.requests.actor import Actor
from masuka.store import runs
from masuka.store.connect import Store

OWNER = Actor(1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(Workspace(tmp_path_factory.mktemp("runs")).create()) as store:
        yield store


@pytest.fixture
def run(store: Store) -> runs.Run:
    return new_run(store)


def new_run(store: Store) -> runs.Run:
    return runs.add_run(store, actor=OWNER, name="Mira 1", base="pocket", family="flux", config={"steps": 9})


def steps(store: Store, run: runs.Run, max_points: int = 300) -> list[int]:
    return [m.step for m in runs.list_metrics(store, actor=OWNER, run_id=run.id, max_points=max_points)]


def test_figures_come_back_with_what_has_no_column_in_extra(store: Store, run: runs.Run) -> None:
    at = "2026-03-01T12:00:00.000000+00:00"
    rows = [
        {
            "step": 1,
            "epoch": 2,
            "at": at,
            "loss": 0.5,
            "learning_rate": 1e-4,
            "seconds_per_step": 0.25,
            "norm": 3.0,
        }
    ]
    assert runs.add_metrics(store, run_id=run.id, rows=rows) == 1
    [metric] = runs.list_metrics(store, actor=OWNER, run_id=run.id)
    assert metric == runs.Metric(run.id, 1, 2, at, 0.5, 1e-4, 0.25, {"norm": 3.0})
    assert runs.add_metrics(store, run_id=run.id, rows=[]) == 0


def test_a_step_that_is_repeated_after_a_resume_is_replaced(store: Store, run: runs.Run) -> None:
    runs.add_metrics(store, run_id=run.id, rows=[{"step": n, "loss": 1.0} for n in (1, 2, 3)])
    runs.add_metrics(store, run_id=run.id, rows=[{"step": n, "loss": 0.5} for n in (2, 3, 4)])
    assert [(m.step, m.loss) for m in runs.list_metrics(store, actor=OWNER, run_id=run.id)] == [
        (1, 1.0), (2, 0.5), (3, 0.5), (4, 0.5),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["loss", "learning_rate", "seconds_per_step", "norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_with_the_step(
    store: Store, run: runs.Run, name: str, value: float
) -> None:
    rows = [{"step": 6, "loss": 0.1}, {"step": 7, name: value}]
    with pytest.raises(TrainingError, match=rf"{name.replace('_', ' ')} is no longer a number at step 7"):
        runs.add_metrics(store, run_id=run.id, rows=rows)
    assert steps(store, run) == []


@pytest.mark.parametrize(
    "row",
    [{"step": -1}, {"step": 1, "epoch": -1}, {"step": 1, "loss": -0.1}, {"step": 1, "learning_rate": -1}],
)
def test_what_is_negative_is_refused(store: Store, run: runs.Run, row: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        runs.add_metrics(store, run_id=run.id, rows=[{"step": 0, "loss": 0.0}, row])
    assert steps(store, run) == []


def test_the_schema_itself_refuses_an_infinite_loss(store: Store, run: runs.Run) -> None:
    with pytest.raises(Exception, match="CHECK"), store.write() as db:
        db.execute("INSERT INTO metrics (run_id, step, at, loss) VALUES (?, 1, '', 9e999)", [run.id])


def test_figures_are_of_runs_that_one_may_see(store: Store, run: runs.Run) -> None:
    runs.add_metrics(store, run_id=run.id, rows=[{"step": 1}])
    stranger = Actor(55, "editor")
    for read in (runs.list_metrics, runs.list_samples):
        with pytest.raises(NotFound):
            read(store, actor=stranger, run_id=run.id)
    sample = runs.add_sample(store, actor=OWNER, run_id=run.id, step=1, prompt="p", seed=2, file="s.png")
    assert runs.get_sample(store, actor=OWNER, id=sample.id) == sample
    with pytest.raises(NotFound):
        runs.get_sample(store, actor=stranger, id=sample.id)


def test_samples_come_in_order_of_their_steps(store: Store, run: runs.Run) -> None:
    for step in (20, 10, 20):
        runs.add_sample(store, actor=OWNER, run_id=run.id, step=step, prompt="p", seed=2, file=f"{step}.png")
    assert [s.step for s in runs.list_samples(store, actor=OWNER, run_id=run.id)] == [10, 20, 20]


def test_runs_are_listed_by_dataset_newest_first(store: Store) -> None:
    first, second = new_run(store), new_run(store)
    assert [r.id for r in runs.list_runs(store, actor=OWNER, limit=2)] == [second.id, first.id]
    assert runs.list_runs(store, actor=OWNER, character_id=12345) == []


@given(
    losses=st.lists(st.floats(0, 100), min_size=1, max_size=400),
    max_points=st.integers(4, 60),
    first=st.integers(0, 1000),
)
def test_thinning_keeps_the_ends_the_extremes_and_the_order(
    store: Store, losses: list[float], max_points: int, first: int
) -> None:
    run = new_run(store)
    runs.add_metrics(
        store, run_id=run.id, rows=[{"step": first + n, "loss": loss} for n, loss in enumerate(losses)]
    )
    kept = runs.list_metrics(store, actor=OWNER, run_id=run.id, max_points=max_points)
    assert len(kept) <= max_points
    assert len(kept) == len(losses) or len(losses) > max_points
    assert [m.step for m in kept] == sorted({m.step for m in kept})
    assert (kept[0].step, kept[-1].step) == (first, first + len(losses) - 1)
    assert {min(losses), max(losses)} <= {m.loss for m in kept}
    assert all(m.loss == losses[m.step - first] for m in kept)


def test_steps_without_a_loss_are_thinned_too(store: Store, run: runs.Run) -> None:
    runs.add_metrics(store, run_id=run.id, rows=[{"step": n, "accuracy": 0.5} for n in range(1000)])
    assert len(steps(store, run, 50)) <= 50
