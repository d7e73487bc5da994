"""What goes with time, and above all what does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from masuka.config import Settings
from masuka.jobs import queue
from masuka.jobs.kinds import KINDS
from masuka.jobs.thinning import KEPT_DAYS, thin
from masuka.requests.actor import Actor
from masuka.store import datasets, pictures
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

OWNER = Actor(user_id=1)
LATER = datetime.now(UTC) + timedelta(days=KEPT_DAYS, hours=1)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.workspace) as opened:
        yield opened


def add(store: Store, settings: Settings, state: str, **params: str) -> tuple[Job, Path]:
    """A job in that state, with a folder and a log."""
    job = queue.add_job(
        store, actor=OWNER, kind="train_image", title="x", request={}, params=params, kinds=KINDS
    )
    if state != "queued":
        queue.claim(store, job_id=job.id)
    for step in {"queued": (), "running": ()}.get(state, (state,)):
        assert queue.move(store, job.id, step) is not None
    folder = settings.workspace.jobs / str(job.id)
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("what it said")
    return job, folder


def test_logs_of_long_ended_jobs_go_and_their_rows_stay(store: Store, settings: Settings) -> None:
    made = {s: add(store, settings, s) for s in ("queued", "running", "paused", "done", "failed", "cancelled")}
    assert thin(store, settings.workspace) == []
    gone = thin(store, settings.workspace, now=LATER)
    assert set(gone) == {made[state][1] for state in ("done", "failed", "cancelled")}
    assert [folder.exists() for _, folder in made.values()] == [True, True, True, False, False, False]
    assert [rows.get_job(store, actor=OWNER, id=job.id).state for job, _ in made.values()] == list(made)


def caches(settings: Settings, number: int, *, age_s: int) -> Path:
    """A run's folder with 1,000 bytes of caches and things that a person wants."""
    run = settings.workspace.runs / f"{number:05d}"
    for name in ("caches/texts/a.safetensors", "checkpoints/step-5/b.safetensors", "samples/c.png"):
        (run / name).parent.mkdir(parents=True)
        (run / name).write_bytes(b"x" * 1000)
        moment = datetime.now(UTC).timestamp() - age_s
        os.utime(run / name, (moment, moment))
    return run / "caches"


def test_caches_beyond_the_budget_go_the_longest_left_first(store: Store, settings: Settings) -> None:
    new, middle, old = (caches(settings, number, age_s=100 * number) for number in (1, 2, 3))
    add(store, settings, "paused", run_folder=str(old.parent))
    assert thin(store, settings.workspace, caches_bytes=3000) == []
    assert thin(store, settings.workspace, caches_bytes=2000) == [old]
    assert thin(store, settings.workspace, caches_bytes=0) == [new, middle]
    kept = sorted(file.name for file in settings.workspace.runs.rglob("*") if file.is_file())
    assert kept == ["b.safetensors"] * 3 + ["c.png"] * 3


def test_shared_caches_go_with_their_picture_and_with_time(store: Store, settings: Settings) -> None:
    dataset = datasets.add_dataset(store, actor=OWNER, name="Mira", trigger_word="mira7x")
    here, gone = "a" * 64, "b" * 64
    assert pictures.add_picture(
        store, actor=OWNER, dataset_id=dataset.id, file="a.png", original_name="a.png", sha256=here,
        width=8, height=8, bytes=9, caption="",
    )  # fmt: skip
    shared, old = settings.workspace.caches, LATER.timestamp() - (2 * KEPT_DAYS + 1) * 86400
    names = [f"latents/{here[:16]}-1.safetensors", f"latents/{gone[:16]}-1.safetensors",
             "latents/c0ffee.json", "texts/new.safetensors", "texts/old.safetensors"]  # fmt: skip
    for name in names:
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_bytes(b"x")
    os.utime(shared / names[-1], (old, old))
    thin(store, settings.workspace)
    left = sorted(file.relative_to(shared).as_posix() for file in shared.rglob("*") if file.is_file())
    assert left == sorted([names[0], names[2], names[3]])


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_training_that_works_or_will_keeps_its_caches(
    store: Store, settings: Settings, state: str
) -> None:
    folder = caches(settings, 1, age_s=10_000)
    add(store, settings, state, run_folder=str(folder.parent))
    assert thin(store, settings.workspace, caches_bytes=0) == []
    assert folder.is_dir()
