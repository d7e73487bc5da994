"""The queue of jobs: which state may follow which, and what a person may ask of a job.

Each change of state goes through `move`, inside one transaction, with a line in the job's
history. It knows no process and no file: stopping what runs is the executor's part.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from masuka.errors import Conflict, NotAllowed, NotFound
from masuka.jobs.kinds import KINDS, Kind, kind_named
from masuka.requests.actor import Actor
from masuka.store import characters, datasets, models, runs, users
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job
from masuka.store.rows import now_at

TRANSITIONS: Mapping[str, frozenset[str]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"done", "failed", "cancelled", "paused", "interrupted", "uncertain"}),
    "paused": frozenset({"queued", "cancelled"}),
    "interrupted": frozenset({"queued", "cancelled"}),
    "uncertain": frozenset({"done", "failed", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""What may follow each state. Nothing follows the last three: `done` never replaces
`cancelled`, and trying again is a new job."""

ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)
STANDING = frozenset(s for s, following in TRANSITIONS.items() if "cancelled" in following) - {"running"}
"""Unfinished, but nothing runs: a cancel takes effect at once."""

SYSTEM = Actor(user_id=0, role="owner", name="supervisor")
"""Sees every person's jobs; owns none."""

MOST_LOSSES = 3
"""So many attempts may be lost one after the other without a new checkpoint."""
SECONDS_BETWEEN_LOOKS = 0.1


def add_job(
    store: Store,
    *,
    actor: Actor,
    kind: str,
    title: str,
    request: Mapping[str, Any],
    params: Mapping[str, Any],
    character_id: int | None = None,
    dataset_id: int | None = None,
    run_id: int | None = None,
    idempotency_key: str | None = None,
    kinds: Mapping[str, Kind] = KINDS,
) -> Job:
    """The queued job; once it is returned, nothing loses it.

    With an `idempotency_key` that this person used before, the job of that time.
    Raises NotFound for an unknown kind, NotAllowed for a viewer.
    """
    actor.must_edit()
    with store.write():
        job = rows.add_job(
            store,
            actor=actor,
            kind=kind,
            lane=kind_named(kind, kinds).lane,
            title=title,
            request=request,
            params=params,
            character_id=character_id,
            dataset_id=dataset_id,
            run_id=run_id,
            idempotency_key=idempotency_key,
        )
        if run_id is not None:
            runs.set_run(store, actor=actor, id=run_id, job_id=job.id)
            _tell_run(store, job)
    return job


def claim(
    store: Store,
    *,
    lane: str | None = None,
    but: Sequence[str] = (),
    job_id: int | None = None,
    pid: int | None = None,
    pid_started: float | None = None,
) -> Job | None:
    """The lane's next job (or `job_id`), now running and the caller's, or None.

    Jobs of the kinds in `but` are left in the lane.

    One whose person may no longer see what it works with fails here, and one that a locked
    person left behind is put aside: much may have changed since it was asked for.
    """
    wanted: dict[str, Any] = {"lane": lane, "but": but, "id": job_id, "pid": pid, "pid_started": pid_started}
    with store.write():
        while (job := rows.claim_job(store, **wanted)) is not None:
            try:
                must_still_be_allowed(store, job)
            except (NotAllowed, NotFound) as error:
                move(store, job.id, "failed", error=error.as_dict(), message=error.message)
            else:
                data = {"from": "queued", "to": "running", "attempt": job.attempt}
                rows.add_job_event(store, id=job.id, type="state", data=data)
                _tell_run(store, job)
                return job
        if job_id is not None and rows.is_of_locked(store, id=job_id):
            move(store, job_id, "paused", message="Paused: this person is locked out.")
    return None


def must_still_be_allowed(store: Store, job: Job) -> None:
    """Raises NotAllowed or NotFound when the job's person could not ask for it now.

    A share may have been taken back since, or the person be locked out or a viewer.
    """
    person = users.get_user(store, actor=SYSTEM, id=job.user_id)
    if not person.active:
        raise NotAllowed(f"{person.username} is locked out.", "Let them in again first.")
    actor = Actor(user_id=person.id, role=person.role, name=person.username)
    if actor.role == "owner":
        return
    actor.must_edit()
    if job.character_id is not None:
        characters.get_character(store, actor=actor, id=job.character_id)
    for dataset_id in (job.dataset_id, job.params.get("dataset_id")):
        if dataset_id is not None:
            datasets.get_dataset(store, actor=actor, id=dataset_id)
    if job.run_id is not None:
        runs.get_run(store, actor=actor, id=job.run_id)
    adapter = job.params.get("adapter")
    if adapter:
        models.get_model(store, actor=actor, id=adapter["id"])


def move(store: Store, job_id: int, to: str, *, fence: int | None = None, **changed: Any) -> Job | None:
    """The job in its new state; None when its present state (or fence) forbids that."""
    origins = [state for state, following in TRANSITIONS.items() if to in following]
    if to in ENDED:
        changed["finished_at"] = now_at()
    if to != "running":
        changed.update(asked="", pid=None, pid_started=None)
    with store.write():
        before = rows.get_pulse(store, id=job_id)
        if before is None:
            return None
        if not rows.set_job(store, id=job_id, states=origins, fence=fence, state=to, **changed):
            return None
        after = rows.get_job(store, actor=SYSTEM, id=job_id)
        data: dict[str, Any] = {"from": before.state, "to": to}
        if changed.get("error"):
            data["error"] = changed["error"]
        rows.add_job_event(store, id=job_id, type="state", data=data)
        _tell_run(store, after)
        return after


def ask_cancel(store: Store, *, actor: Actor, job_id: int) -> bool:
    """Whether the job will stop: at once if it waits, soon if it runs."""
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        if job.state in STANDING:
            return move(store, job.id, "cancelled", message="Cancelled.") is not None
        return rows.set_job(store, id=job.id, states=["running"], asked="cancel", message="Cancelling.")


def ask_pause(store: Store, *, actor: Actor, job_id: int, kinds: Mapping[str, Kind] = KINDS) -> bool:
    """True: the job waits, or will as soon as it has kept a checkpoint.

    Raises Conflict for a job that has ended or runs and cannot go on from a checkpoint.
    """
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        if job.state == "paused":
            return True
        if job.state == "queued":
            return move(store, job.id, "paused", message="Paused.") is not None
        if job.state != "running":
            raise Conflict(f"The job '{job.title}' is not running.", "Only what runs or waits can be paused.")
        if not kind_named(job.kind, kinds).resumes:
            raise Conflict(f"The job '{job.title}' cannot be paused.", "Let it finish or cancel it.")
        if job.asked == "cancel":
            raise Conflict(f"The job '{job.title}' is being cancelled.")
        rows.set_job(store, id=job.id, states=["running"], asked="pause", message="Pausing.")
        return True


def put_first(store: Store, *, actor: Actor, job_id: int) -> None:
    """Puts a waiting job before all others of its person and lane; raises Conflict."""
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        waiting = rows.list_jobs(store, actor=actor, states=["queued"], limit=1000)
        before = [other.position for other in waiting if other.lane == job.lane and other.id != job.id]
        position = min([job.position, *(place - 1 for place in before)])
        if not rows.set_job(store, id=job.id, states=["queued"], position=position):
            raise Conflict(f"The job '{job.title}' does not wait any more.")


def set_aside(store: Store, *, user_id: int, kinds: Mapping[str, Kind] = KINDS) -> None:
    """Pauses what a person has waiting or running; what cannot be paused is cancelled."""
    with store.write():
        for job in rows.list_unfinished(store, user_id=user_id):
            if job.state not in ("queued", "running"):
                continue
            try:
                ask_pause(store, actor=SYSTEM, job_id=job.id, kinds=kinds)
            except (Conflict, NotFound):
                ask_cancel(store, actor=SYSTEM, job_id=job.id)


def resume(store: Store, *, actor: Actor, job_id: int) -> bool:
    """True: the paused or interrupted job is queued again, in its old place.

    Raises Conflict when it is neither, NotAllowed or NotFound when its person could not
    ask for it now.
    """
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        if job.state == "queued":
            return True
        if job.state not in ("paused", "interrupted"):
            raise Conflict(f"The job '{job.title}' is not paused.", "Only a paused job can go on.")
        must_still_be_allowed(store, job)
        return move(store, job.id, "queued", message="", failures_without_checkpoint=0) is not None


def retry(store: Store, *, actor: Actor, job_id: int, kinds: Mapping[str, Kind] = KINDS) -> Job:
    """A new job that does what a failed or cancelled one should have done.

    Asking twice gives the same new job; a training goes on from its last checkpoint. An
    interrupted job is resumed instead. Raises Conflict for a job in another state, and for
    one that another program made, NotAllowed or NotFound when its person could not ask for
    it now.
    """
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        if job.state == "interrupted":
            resume(store, actor=actor, job_id=job_id)
            return rows.get_job(store, actor=actor, id=job_id)
        if job.state not in ("failed", "cancelled"):
            raise Conflict(
                f"The job '{job.title}' has not failed.", "Only a failed or cancelled job can be retried."
            )
        if "imported_from" in job.request:
            raise Conflict(
                f"The job '{job.title}' comes from {job.request['imported_from']}.",
                "Start a new one instead.",
            )
        must_still_be_allowed(store, job)
        again = add_job(
            store,
            actor=actor if job.user_id == actor.user_id else Actor(user_id=job.user_id, role=actor.role),
            kind=job.kind,
            title=job.title,
            request=job.request,
            params=job.params,
            character_id=job.character_id,
            dataset_id=job.dataset_id,
            run_id=job.run_id,
            idempotency_key=f"retry of {job.id}",
            kinds=kinds,
        )
        if again.state in ("failed", "cancelled"):
            return retry(store, actor=actor, job_id=again.id, kinds=kinds)
        return again


def delete(store: Store, *, actor: Actor, job_id: int) -> bool:
    """Whether the job was removed from the list; one that waits is cancelled first.

    What it made stays. Raises Conflict while it runs: cancel it and wait.
    """
    actor.must_edit()
    with store.write():
        job = rows.get_job(store, actor=actor, id=job_id)
        if job.state in STANDING:
            move(store, job.id, "cancelled", message="Cancelled.")
        if rows.delete_job(store, actor=actor, id=job.id, states=ENDED):
            return True
    raise Conflict(f"The job '{job.title}' still runs.", "Cancel it first.")


def wait(store: Store, *, actor: Actor, job_id: int, states: Sequence[str] = (), timeout_s: float) -> Job:
    """The job once it is in one of the states; raises Conflict at the timeout."""
    wanted = frozenset(states) or ENDED
    deadline_s = time.monotonic() + timeout_s
    while (job := rows.get_job(store, actor=actor, id=job_id)).state not in wanted:
        if time.monotonic() > deadline_s:
            raise Conflict(f"The job '{job.title}' is still {job.state}.", "Wait longer or cancel it.")
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return job


def eta_s(job: Job) -> float | None:
    """Seconds left of the present stage from measured steps; None without any."""
    if job.state != "running" or job.seconds_per_step is None or not job.total:
        return None
    return max(0, job.total - job.step) * job.seconds_per_step


def _tell_run(store: Store, job: Job) -> None:
    """Keeps the run and the character of a training true to its job."""
    if job.run_id is None:
        return
    runs.set_run(store, actor=SYSTEM, id=job.run_id, status=job.state, finished_at=job.finished_at)
    if job.character_id is None:
        return
    character = characters.get_character(store, actor=SYSTEM, id=job.character_id)
    if job.state == "done":
        characters.set_character(
            store, actor=SYSTEM, id=character.id, status="completed", completed_at=job.finished_at
        )
    elif job.state in ENDED:
        # An earlier training of this character still counts.
        left = "completed" if character.completed_at else "failed" if job.state == "failed" else "created"
        characters.set_character(store, actor=SYSTEM, id=character.id, status=left)
    elif character.status != "training":
        characters.set_character(store, actor=SYSTEM, id=character.id, status="training")
