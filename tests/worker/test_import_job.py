"""Imports in real workers: killed in the middle they go on, cancelled they leave nothing running."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from masuka.config import Settings
from masuka.datasets import pool
from masuka.store.jobs import Job
from masuka.studio import Studio
from tests.unit.test_datasets_intake import picture, write

pytestmark = pytest.mark.slow
PATIENCE_S = 300
PICTURES = 100


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings, workers="processes") as opened:
        yield opened


def until(what: Callable[[], bool]) -> None:
    """Waits until it is so."""
    end_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end_s, "it never came to that"
        time.sleep(0.02)


def readers_of(job: Job) -> list[psutil.Process]:
    """The processes that decode for the job's worker."""
    assert job.pid is not None
    return [p for p in psutil.Process(job.pid).children(recursive=True) if pool.__name__ in p.cmdline()]


def begun(studio: Studio, tmp_path: Path) -> tuple[int, Job]:
    """A data set and an import that has taken the first pictures, not all."""
    folder = write(tmp_path / "in", {f"{i:03}.png": picture(i, size=(700, 500)) for i in range(PICTURES)})
    dataset = studio.datasets.create(name="Mira", trigger_word="mira7x")
    job = studio.datasets.add_pictures(dataset.id, folder)
    until(lambda: studio.datasets.get(dataset.id).picture_count >= 3)
    return dataset.id, studio.jobs.get(job.id)


def test_an_import_whose_worker_is_killed_goes_on_by_itself(studio: Studio, tmp_path: Path) -> None:
    dataset_id, job = begun(studio, tmp_path)
    assert job.state == "running" and job.pid is not None
    readers = readers_of(job)
    os.kill(job.pid, signal.SIGKILL)
    until(lambda: studio.jobs.get(job.id).state == "done")
    done = studio.jobs.get(job.id)
    assert done.attempt == 2 and done.result is not None
    assert (done.result["added"], done.result["duplicates"], done.result["refused"]) == (PICTURES, 0, [])
    names = [p.original_name for p in studio.datasets.every_picture(dataset_id)]
    assert sorted(names) == [f"{i:03}.png" for i in range(PICTURES)], "each once"
    assert studio.doctor.report(dataset_id).unmeasured == 0
    until(lambda: not any(reader.is_running() for reader in readers))


def test_a_cancelled_import_ends_with_its_readers(studio: Studio, tmp_path: Path) -> None:
    dataset_id, job = begun(studio, tmp_path)
    readers = readers_of(job)
    assert studio.jobs.cancel([job.id]) == 1
    until(lambda: studio.jobs.get(job.id).state == "cancelled")
    until(lambda: not any(reader.is_running() for reader in readers))
    count = studio.datasets.get(dataset_id).picture_count
    assert 3 <= count < PICTURES
    folder = studio.workspace.datasets / f"{dataset_id:05d}"
    assert len(list(folder.glob("*.png"))) in (count, count + 1), "what was stored last may not be told any more"


def test_whoever_follows_jobs_is_told_of_its_end_once(studio: Studio, tmp_path: Path) -> None:
    """So the studio queues a look after an import that was too large to compare."""
    ended: list[Job] = []
    assert studio._context.supervisor is not None and studio._context.supervisor.after_job is not None
    studio._context.supervisor.after_job = ended.append
    dataset = studio.datasets.create(name="Mira", trigger_word="mira7x")
    job = studio.datasets.add_pictures(dataset.id, write(tmp_path / "in", {"one.png": picture(1)}))
    second = studio.datasets.add_pictures(dataset.id, tmp_path / "in")
    until(lambda: len(ended) == 2)
    assert [(j.id, j.state) for j in ended] == [(job.id, "done"), (second.id, "done")]
    assert ended[0].result == studio.jobs.get(job.id).result and ended[0].dataset_id == dataset.id
