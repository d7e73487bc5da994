"""The queue's rules: which state may follow which, who is next, what a person may ask."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator

import pytest

from masuka.config import Settings
from masuka.errors import Conflict, NotAllowed, NotFound
from masuka.jobs import queue
from masuka.jobs.kinds import Kind
from masuka.requests.actor import Actor
from masuka.store import characters, runs, users
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

KINDS = {
    "draw": Kind("draw", "gpu", "nowhere:draw", "Drawing"),
    "train": Kind("train", "gpu", "nowhere:train", "Training", warm=False, resumes=True),
    "fetch": Kind("fetch", "net", "nowhere:fetch", "Fetching"),
}
OWNER = Actor(user_id=1)
WAYS = {
    "queued": (),
    "running": ("running",),
    "paused": ("paused",),
    "interrupted": ("running", "interrupted"),
    "uncertain": ("running", "uncertain"),
    "done": ("running", "done"),
    "failed": ("running", "failed"),
    "cancelled": ("cancelled",),
}


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.workspace) as store:
        yield store


@pytest.fixture
def guest(store: Store) -> Actor:
    return Actor(users.add_user(store, actor=OWNER, username="mira", role="editor").id, "editor", "mira")


def add(store: Store, kind: str = "draw", *, actor: Actor = OWNER, **about: object) -> Job:
    return queue.add_job(
        store,
        actor=actor,
        kind=kind,
        title=kind,
        request={"seed": 1},
        params={"a": [1]},
        kinds=KINDS,
        **about,
    )  # type: ignore[arg-type]


def brought_to(store: Store, state: str, kind: str = "draw") -> Job:
    """A job that came to the state by allowed steps."""
    job = add(store, kind)
    for step in WAYS[state]:
        moved = queue.claim(store, job_id=job.id) if step == "running" else queue.move(store, job.id, step)
        assert moved is not None
    return rows.get_job(store, actor=OWNER, id=job.id)


def test_a_job_comes_back_as_it_was_asked_for(store: Store) -> None:
    job = add(store)
    assert rows.get_job(store, actor=OWNER, id=job.id) == job
    assert (job.state, job.lane, job.request, job.params) == ("queued", "gpu", {"seed": 1}, {"a": [1]})
    assert queue.eta_s(job) is None


@pytest.mark.parametrize(("origin", "to"), list(itertools.product(WAYS, WAYS)))
def test_exactly_the_transitions_of_the_table_happen(store: Store, origin: str, to: str) -> None:
    job = brought_to(store, origin)
    moved = queue.move(store, job.id, to)
    after = rows.get_job(store, actor=OWNER, id=job.id)
    if to in queue.TRANSITIONS[origin]:
        assert moved is not None
        assert after.state == to
        assert (after.finished_at is not None) == (to in queue.ENDED)
    else:
        assert moved is None
        assert after == job


def test_done_never_replaces_cancelled(store: Store) -> None:
    job = brought_to(store, "running")
    assert queue.move(store, job.id, "cancelled") is not None
    assert queue.move(store, job.id, "done", result={"late": True}) is None
    after = rows.get_job(store, actor=OWNER, id=job.id)
    assert (after.state, after.result) == ("cancelled", None)


def test_a_move_of_an_old_attempt_changes_nothing(store: Store) -> None:
    job = brought_to(store, "running")
    assert queue.move(store, job.id, "done", fence=job.fence - 1) is None
    assert queue.move(store, job.id, "done", fence=job.fence) is not None
    assert queue.move(store, 4711, "done") is None


def test_every_transition_is_in_the_history(store: Store) -> None:
    job = brought_to(store, "running")
    queue.move(store, job.id, "failed", error={"message": "Broken."})
    events = rows.list_job_events(store, actor=OWNER, id=job.id)
    assert [event.type for event in events] == ["state"] * 3
    assert [event.data["to"] for event in events] == ["queued", "running", "failed"]
    assert events[2].data == {"from": "running", "to": "failed", "error": {"message": "Broken."}}


def test_the_same_key_gives_the_same_job(store: Store, guest: Actor) -> None:
    first = add(store, idempotency_key="click")
    assert add(store, idempotency_key="click") == rows.get_job(store, actor=OWNER, id=first.id)
    assert add(store, idempotency_key="click", actor=guest).id != first.id
    assert len(rows.list_jobs(store, actor=OWNER)) == 2


def test_jobs_are_taken_in_order_from_their_lane(store: Store) -> None:
    jobs = [add(store, kind) for kind in ("draw", "fetch", "train", "draw")]
    claimed = [queue.claim(store, lane=lane) for lane in ("gpu", "gpu", "net", "gpu", "gpu", "cpu")]
    assert [job and job.id for job in claimed] == [jobs[0].id, jobs[2].id, jobs[1].id, jobs[3].id, None, None]
    assert all(job.state == "running" and job.fence == 1 and job.attempt == 1 for job in claimed if job)


def test_people_take_turns_and_keep_their_own_order(store: Store, guest: Actor) -> None:
    mine = [add(store) for _ in range(3)]
    hers = [add(store, actor=guest) for _ in range(2)]
    order = [job.id for _ in range(5) if (job := queue.claim(store, lane="gpu"))]
    assert order == [mine[0].id, hers[0].id, mine[1].id, hers[1].id, mine[2].id]


def test_a_resumed_job_keeps_its_place(store: Store) -> None:
    first, second = add(store), add(store)
    queue.ask_pause(store, actor=OWNER, job_id=first.id, kinds=KINDS)
    assert queue.resume(store, actor=OWNER, job_id=first.id)
    assert [job.id for _ in range(2) if (job := queue.claim(store, lane="gpu"))] == [first.id, second.id]


def test_eight_claimants_get_every_job_once(store: Store) -> None:
    expected = {add(store, kind).id for kind in ["draw", "train"] * 20}
    got: list[int] = []

    def work() -> None:
        while (job := queue.claim(store, lane="gpu")) is not None:
            got.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == len(expected)
    assert set(got) == expected


@pytest.mark.parametrize("state", ["queued", "paused", "interrupted", "uncertain"])
def test_what_only_waits_is_cancelled_at_once(store: Store, state: str) -> None:
    job = brought_to(store, state)
    assert queue.ask_cancel(store, actor=OWNER, job_id=job.id)
    assert rows.get_job(store, actor=OWNER, id=job.id).state == "cancelled"


def test_what_runs_is_asked_to_stop_until_its_next_attempt(store: Store) -> None:
    job = brought_to(store, "running")
    assert queue.ask_cancel(store, actor=OWNER, job_id=job.id)
    asked = rows.get_job(store, actor=OWNER, id=job.id)
    assert (asked.state, asked.asked) == ("running", "cancel")
    moved = queue.move(store, job.id, "interrupted")
    assert moved is not None
    assert moved.asked == ""


@pytest.mark.parametrize("state", sorted(queue.ENDED))
def test_what_has_ended_cannot_be_stopped(store: Store, state: str) -> None:
    job = brought_to(store, state)
    assert not queue.ask_cancel(store, actor=OWNER, job_id=job.id)
    with pytest.raises(Conflict, match="not running"):
        queue.ask_pause(store, actor=OWNER, job_id=job.id, kinds=KINDS)
    with pytest.raises(Conflict, match="not paused"):
        queue.resume(store, actor=OWNER, job_id=job.id)


def test_a_running_training_is_asked_to_pause_others_refuse(store: Store) -> None:
    training, drawing = brought_to(store, "running", "train"), brought_to(store, "running")
    assert queue.ask_pause(store, actor=OWNER, job_id=training.id, kinds=KINDS)
    assert rows.get_job(store, actor=OWNER, id=training.id).asked == "pause"
    with pytest.raises(Conflict, match="cannot be paused"):
        queue.ask_pause(store, actor=OWNER, job_id=drawing.id, kinds=KINDS)
    assert queue.ask_cancel(store, actor=OWNER, job_id=training.id)
    with pytest.raises(Conflict, match="being cancelled"):
        queue.ask_pause(store, actor=OWNER, job_id=training.id, kinds=KINDS)


def test_retry_is_a_new_job_and_asking_twice_gives_one(store: Store) -> None:
    failed = brought_to(store, "failed")
    again = queue.retry(store, actor=OWNER, job_id=failed.id, kinds=KINDS)
    assert again.id != failed.id
    assert (again.state, again.kind, again.params, again.request) == (
        "queued",
        "draw",
        failed.params,
        failed.request,
    )
    assert queue.retry(store, actor=OWNER, job_id=failed.id, kinds=KINDS) == again
    queue.ask_cancel(store, actor=OWNER, job_id=again.id)
    third = queue.retry(store, actor=OWNER, job_id=failed.id, kinds=KINDS)
    assert third.id not in (failed.id, again.id)
    assert third.state == "queued"
    assert rows.get_job(store, actor=OWNER, id=failed.id).state == "failed"


@pytest.mark.parametrize("state", ["queued", "running", "paused", "done"])
def test_only_what_failed_or_was_stopped_is_retried(store: Store, state: str) -> None:
    with pytest.raises(Conflict, match="has not failed"):
        queue.retry(store, actor=OWNER, job_id=brought_to(store, state).id, kinds=KINDS)


def test_an_interrupted_job_is_resumed_instead_of_copied(store: Store) -> None:
    job = brought_to(store, "interrupted")
    again = queue.retry(store, actor=OWNER, job_id=job.id, kinds=KINDS)
    assert (again.id, again.state) == (job.id, "queued")


@pytest.mark.parametrize("state", sorted(set(WAYS) - {"running"}))
def test_everything_that_does_not_run_can_be_deleted(store: Store, state: str) -> None:
    job = brought_to(store, state)
    assert queue.delete(store, actor=OWNER, job_id=job.id)
    with pytest.raises(NotFound):
        rows.get_job(store, actor=OWNER, id=job.id)


def test_what_runs_is_not_deleted(store: Store) -> None:
    job = brought_to(store, "running")
    with pytest.raises(Conflict, match="still runs"):
        queue.delete(store, actor=OWNER, job_id=job.id)
    assert rows.get_job(store, actor=OWNER, id=job.id).state == "running"


def test_a_person_sees_and_stops_their_own_jobs_only(store: Store, guest: Actor) -> None:
    mine, hers = add(store), add(store, actor=guest)
    assert [job.id for job in rows.list_jobs(store, actor=guest)] == [hers.id]
    assert [job.id for job in rows.list_jobs(store, actor=OWNER)] == [hers.id, mine.id]
    assert rows.count_jobs(store, actor=guest) == {"queued": 1}
    for ask in (queue.ask_cancel, queue.resume, queue.delete, queue.retry):
        with pytest.raises(NotFound):
            ask(store, actor=guest, job_id=mine.id)
    viewer = Actor(guest.user_id, "viewer")
    with pytest.raises(NotAllowed):
        queue.ask_cancel(store, actor=viewer, job_id=hers.id)
    with pytest.raises(NotAllowed):
        add(store, actor=viewer)


def test_lists_are_paged_and_filtered(store: Store) -> None:
    jobs = [add(store, kind) for kind in ("draw", "train", "draw", "fetch")]
    queue.ask_cancel(store, actor=OWNER, job_id=jobs[0].id)
    page = rows.list_jobs(store, actor=OWNER, limit=2)
    assert [job.id for job in page] == [jobs[3].id, jobs[2].id]
    assert [job.id for job in rows.list_jobs(store, actor=OWNER, before_id=page[-1].id)] == [
        jobs[1].id,
        jobs[0].id,
    ]
    assert [job.id for job in rows.list_jobs(store, actor=OWNER, kind="draw", states=["queued"])] == [
        jobs[2].id
    ]
    assert rows.list_jobs(store, actor=OWNER, states=[]) == []
    assert rows.count_jobs(store, actor=OWNER) == {"queued": 3, "cancelled": 1}


def test_a_training_keeps_its_run_and_character_true(store: Store) -> None:
    who = characters.add_character(store, actor=OWNER, name="Mira", trigger_word="mra")

    def run_of(state: str) -> tuple[str, str]:
        run = runs.add_run(store, actor=OWNER, name="Mira 1", base="pocket", family="flux", config={})
        job = add(store, "train", run_id=run.id, character_id=who.id)
        assert runs.get_run(store, actor=OWNER, id=run.id).job_id == job.id
        queue.claim(store, job_id=job.id)
        assert characters.get_character(store, actor=OWNER, id=who.id).status == "training"
        queue.move(store, job.id, state)
        after = runs.get_run(store, actor=OWNER, id=run.id)
        assert after.finished_at is not None
        return after.status, characters.get_character(store, actor=OWNER, id=who.id).status

    assert run_of("failed") == ("failed", "failed")
    assert run_of("cancelled") == ("cancelled", "created")
    assert run_of("done") == ("done", "completed")
    assert run_of("failed") == ("failed", "completed"), "an earlier LoRA is still there"


def test_eta_is_what_is_left_at_the_measured_pace(store: Store) -> None:
    job = brought_to(store, "running")
    assert queue.eta_s(job) is None
    rows.set_job(store, id=job.id, step=30, total=100, seconds_per_step=0.5)
    assert queue.eta_s(rows.get_job(store, actor=OWNER, id=job.id)) == 35
    queue.move(store, job.id, "done")
    assert queue.eta_s(rows.get_job(store, actor=OWNER, id=job.id)) is None


def test_waiting_ends_with_a_sentence_when_time_is_up(store: Store) -> None:
    job = add(store)
    with pytest.raises(Conflict, match="still queued"):
        queue.wait(store, actor=OWNER, job_id=job.id, timeout_s=0)
    assert queue.wait(store, actor=OWNER, job_id=job.id, states=["queued"], timeout_s=0) == job
