"""What follows when a job is done: a set too large to be compared by its import is looked at."""

from __future__ import annotations

from dataclasses import replace

from masuka.requests.actor import Actor
from masuka.store import users
from masuka.store.jobs import Job
from masuka.studio.context import Context
from masuka.studio.doctor import Doctor


def follow_up(context: Context, job: Job) -> None:
    """Queues the doctor's job after an import that left the set unlooked at.

    In the name of whoever imported. One that waits already takes its place, so that
    several imports are followed by one look.
    """
    if job.state != "done" or job.dataset_id is None or not (job.result or {}).get("unlooked"):
        return
    person = users.get_user(context.store, actor=context.actor, id=job.user_id)
    asking = replace(context, actor=Actor(person.id, person.role, person.username))
    Doctor(asking).look(job.dataset_id)
