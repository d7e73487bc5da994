"""Uploads are forgotten after a day, but never while a job may still need them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from masuka.config import Settings
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui import uploads


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def upload(studio: Studio, letter: str) -> Path:
    folder = uploads.batch_folder(studio, letter * 24)
    (folder / "0000").mkdir(parents=True)
    Image.new("RGB", (300, 300), "teal").save(folder / "0000" / f"{letter}.png")
    return folder


def import_of(studio: Studio, folder: Path) -> Job:
    dataset = studio.datasets.create(name=folder.name, trigger_word="mira7x")
    return studio.datasets.add_pictures(dataset.id, [folder], forget_sources=True)


def aged(folder: Path) -> None:
    then = time.time() - uploads.STALE_S - 60
    os.utime(folder, (then, then))


def test_only_old_uploads_that_no_job_needs_are_forgotten(studio: Studio) -> None:
    lost, waiting, cancelled, fresh = (upload(studio, letter) for letter in "abcd")
    import_of(studio, waiting)
    studio.jobs.cancel([import_of(studio, cancelled).id])
    for folder in (lost, waiting, cancelled):
        aged(folder)
    assert uploads.sweep(studio) == 1
    assert [f.exists() for f in (lost, waiting, cancelled, fresh)] == [False, True, True, True]


def test_what_was_written_down_for_a_job_waits_with_it(studio: Studio) -> None:
    dataset = studio.datasets.create(name="Bolt", trigger_word="mira7x")
    studio.jobs.wait(studio.datasets.add_samples(dataset.id, count=2))
    packing, fetching = studio.datasets.export_job(dataset.id), studio.datasets.add_links(dataset.id, "https://a.example/b.png")
    for job in (packing, fetching):
        aged(Path(job.params["asked"]))
    assert uploads.sweep(studio) == 0
    assert (studio.jobs.wait(packing).result or {})["pictures"] == 2


def test_a_finished_import_leaves_no_folder_and_what_it_left_is_swept(studio: Studio) -> None:
    folder = upload(studio, "a")
    done = studio.jobs.wait(import_of(studio, folder))
    assert (done.result or {})["added"] == 1 and not folder.exists()
    again = upload(studio, "a")
    aged(again)
    assert uploads.sweep(studio) == 1 and not again.exists()


def test_a_deleted_job_needs_nothing(studio: Studio) -> None:
    folder = upload(studio, "a")
    job = import_of(studio, folder)
    studio.jobs.delete([job.id])
    aged(folder)
    assert uploads.sweep(studio) == 1 and not folder.exists()
