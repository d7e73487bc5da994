"""Figures that go to TensorBoard or trackio as well, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from masuka.errors import InvalidInput
from masuka.models import programs
from masuka.training.logging import logged
from masuka.training.plan import plan_of
from tests.tiny_training import Job, train_params

SCRIPT = """
import json, sys
from pathlib import Path
from masuka.jobs.reporter import EventFile
from masuka.training.logging import logged
from masuka.training.plan import plan_of
root = Path(sys.argv[1])
plan = plan_of(json.loads((root / "params.json").read_text()))
with logged(plan, EventFile(root / "events.jsonl", root / "scratch")) as reporter:
    reporter.metric(step=1, epoch=0, loss=0.5)
    reporter.metric(step=2, epoch=0, loss=0.25)
    reporter.tell("score", step=2, name="likeness", value=0.75, weight=1.0, about={})
"""


def test_figures_and_scores_reach_tensorboard_and_the_studio(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = Job(tmp_path)
    with logged(plan_of(train_params(tmp_path, metrics_to="tensorboard")), job) as reporter:
        reporter.metric(step=1, epoch=0, loss=0.5)
        reporter.metric(step=2, epoch=0, loss=0.25)
        reporter.tell("score", step=2, name="likeness", value=0.75, weight=1.0, about={})
        reporter.tell("score", step=2, name="likeness", value=0.5, weight=0.6, about={})
    job.close()
    assert job.losses() == {1: 0.5, 2: 0.25} and len(job.events("told")) == 2
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in read.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [(event.step, event.value) for event in read.Scalars("likeness")] == [(2, 0.75)]
    assert [event.value for event in read.Scalars("likeness at 0.6")] == [0.5]


@pytest.mark.slow
def test_trackio_writes_into_the_runs_folder_whatever_the_environment_says(tmp_path: Path) -> None:
    """In a process of its own, as a worker: trackio reads where to write when it is imported."""
    pytest.importorskip("trackio")
    (tmp_path / "params.json").write_text(json.dumps(train_params(tmp_path, metrics_to="trackio")))
    elsewhere = {"TRACKIO_SPACE_ID": "someone/space", "TRACKIO_DIR": str(tmp_path / "elsewhere"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env={**os.environ, **elsewhere}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "trackio" / "masuka.db").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_a_program_that_is_missing_is_said_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match="TensorBoard is not installed"):
        Job(tmp_path).run(train_params(tmp_path, metrics_to="tensorboard"))
    programs.must_be_installed("none")
