"""What becomes of jobs when a share is taken back, or their person is locked out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from masuka.config import Settings
from masuka.errors import Conflict, NotAllowed, NotFound
from masuka.jobs import events, queue
from masuka.requests import Actor
from masuka.store import models, pictures, users
from masuka.store.jobs import Job
from masuka.studio import Studio

OWNER = Actor(1)


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


class World:
    """The owner's character with a set and a LoRA, shared with the editor Eda."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.mira = studio.characters.create(name="Mira", trigger_word="mira7x").id
        self.dataset = studio.datasets.create(name="Set", trigger_word="mira7x", character_id=self.mira).id
        self.adapter = models.add_model(
            studio.store, actor=OWNER, kind="adapter", name="L", base="pocket", character_id=self.mira
        ).id
        self.eda = users.add_user(studio.store, actor=OWNER, username="eda", role="editor").id
        studio.people.share(self.eda, "character", self.mira)
        self.theirs = studio.acting_as(Actor(self.eda, "editor", "eda"))

    def job(self, on: str = "dataset") -> Job:
        about: dict[str, Any] = {
            "dataset": {"kind": "sample_pictures", "dataset_id": self.dataset, "params": {"dataset_id": self.dataset}},
            "only named": {"kind": "sample_pictures", "params": {"dataset_id": self.dataset}},
            "character": {"kind": "draw_images", "character_id": self.mira, "params": {}},
            "adapter": {"kind": "draw_images", "params": {"adapter": {"id": self.adapter}}},
            "nothing": {"kind": "draw_images", "params": {"adapter": None}},
        }[on]
        return queue.add_job(
            self.studio.store, actor=Actor(self.eda, "editor"), title=on, request={}, **about
        )

    def state(self, job: Job) -> str:
        return self.studio.jobs.get(job.id).state

    def take_back(self) -> None:
        self.studio.people.unshare(self.eda, "character", self.mira)


@pytest.fixture
def world(studio: Studio) -> World:
    return World(studio)


SHARED = ["dataset", "only named", "character", "adapter"]


@pytest.mark.parametrize("on", SHARED)
def test_what_was_taken_back_is_not_tried_again(world: World, on: str) -> None:
    job, own = world.job(on), world.job("nothing")
    world.theirs.jobs.cancel([job.id, own.id])
    world.take_back()
    for jobs in (world.theirs.jobs, world.studio.jobs):
        with pytest.raises(NotFound):
            jobs.retry(job.id)
    assert world.theirs.jobs.retry(own.id).state == "queued"


@pytest.mark.parametrize("on", SHARED)
def test_what_waits_is_cancelled_when_it_is_taken_back(world: World, on: str) -> None:
    waits, own = world.job(on), world.job("nothing")
    paused = queue.add_job(
        world.studio.store, actor=Actor(world.eda, "editor"), kind=waits.kind, title="p", request={},
        params=waits.params, character_id=waits.character_id, dataset_id=waits.dataset_id,
    )  # fmt: skip
    world.theirs.jobs.pause(paused.id)
    world.take_back()
    assert [world.state(j) for j in (waits, paused, own)] == ["cancelled", "cancelled", "queued"]


def test_what_runs_is_asked_to_stop_when_it_is_taken_back(world: World) -> None:
    job = world.job()
    assert queue.claim(world.studio.store, lane=job.lane) is not None
    world.take_back()
    assert world.studio.jobs.get(job.id).asked == "cancel"


def test_a_paused_job_does_not_go_on_without_its_share(world: World) -> None:
    from masuka.store import shares

    job = world.job()
    world.theirs.jobs.pause(job.id)
    shares.delete_share(world.studio.store, actor=OWNER, user_id=world.eda, kind="character", object_id=world.mira)
    with pytest.raises(NotFound):
        world.studio.jobs.resume(job.id)
    assert world.state(job) == "paused"


def test_a_job_that_may_not_be_done_any_more_fails_instead_of_starting(world: World) -> None:
    from masuka.store import shares

    lost, own = world.job(), world.job("nothing")
    shares.delete_share(world.studio.store, actor=OWNER, user_id=world.eda, kind="character", object_id=world.mira)
    assert queue.claim(world.studio.store, lane=lost.lane) is None
    assert world.state(lost) == "failed"
    claimed = queue.claim(world.studio.store, lane=own.lane)
    assert claimed is not None and claimed.id == own.id


def test_a_viewers_old_jobs_do_not_start(world: World) -> None:
    job = world.job("nothing")
    world.studio.people.set_role(world.eda, "viewer")
    assert queue.claim(world.studio.store, lane=job.lane) is None
    assert world.state(job) == "failed"


def test_a_share_that_ends_while_a_job_runs_ends_its_writing(world: World) -> None:
    from masuka.store import shares

    job = world.job()
    found = {"original_name": "a", "sha256": "a" * 64, "width": 1, "height": 1, "bytes": 1, "caption": ""}
    assert events._picture(world.studio.store, job, "a.png", found)["id"]
    shares.delete_share(world.studio.store, actor=OWNER, user_id=world.eda, kind="character", object_id=world.mira)
    with pytest.raises(NotFound):
        events._picture(world.studio.store, job, "b.png", {**found, "sha256": "b" * 64})
    assert pictures.count_pictures(world.studio.store, actor=OWNER, dataset_id=world.dataset) == 1


def test_what_a_locked_person_left_waits_until_they_are_let_in(world: World) -> None:
    waits = world.job("nothing")
    world.studio.people.set_active(world.eda, False)
    assert world.state(waits) == "paused" and queue.claim(world.studio.store, lane=waits.lane) is None
    with pytest.raises(NotAllowed):
        world.studio.jobs.resume(waits.id)
    world.studio.people.set_active(world.eda, True)
    world.theirs.jobs.resume(waits.id)
    assert queue.claim(world.studio.store, lane=waits.lane) is not None


def test_locking_asks_what_runs_to_stop(world: World) -> None:
    training = queue.add_job(
        world.studio.store, actor=Actor(world.eda, "editor"), kind="train_image", title="t", request={}, params={}
    )
    drawing = world.job("nothing")
    for job in (training, drawing):
        assert queue.claim(world.studio.store, job_id=job.id) is not None
    world.studio.people.set_active(world.eda, False)
    assert world.studio.jobs.get(training.id).asked == "pause"
    assert world.studio.jobs.get(drawing.id).asked == "cancel"


def test_a_job_of_somebody_locked_by_other_means_keeps_nobody_waiting(world: World) -> None:
    from masuka.store import jobs

    theirs = world.job("nothing")
    users.set_user(world.studio.store, actor=OWNER, id=world.eda, active=False)
    assert not jobs.has_queued_job(world.studio.store, lane=theirs.lane)
    assert queue.claim(world.studio.store, lane=theirs.lane) is None and world.state(theirs) == "queued"
    with pytest.raises(Conflict):
        world.studio.jobs.wait(theirs.id, timeout_s=5)
    assert world.state(theirs) == "paused"
