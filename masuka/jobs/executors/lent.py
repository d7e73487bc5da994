"""Runs a job on a GPU that is lent to one request: the ZeroGPU of a Hugging Face Space.

The job's row is there first. Then the event of the page that asked for it borrows the
GPU, because the time is taken from the quota of that very request. The job's own code
(`work`) runs in a process that the lender forks: it tells an events file, as a worker
does, and touches no database and no connection of its parent. The supervisor adopts the
job like any that runs without it, so progress and cancel work as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from pathlib import Path

import psutil

from masuka.config import Settings, secrets_in_environment
from masuka.errors import MasukaError
from masuka.jobs.endings import Lost, fail_job, settle
from masuka.jobs.events import apply_events
from masuka.jobs.executors.inline import logged_to
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import KINDS, Kind, where_lent
from masuka.jobs.queue import SYSTEM, claim
from masuka.jobs.reporter import EventFile, StopFlag
from masuka.jobs.secrets import keys_for
from masuka.jobs.worker import Assignment, perform
from masuka.logs import redact
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

Lend = Callable[[bytes, int], None]
"""Runs `work` with that line on a GPU, for so many seconds at most.

Raises a MasukaError that says why no GPU was lent, or that it was taken back.
"""


def borrows(job: Job, kinds: Mapping[str, Kind] = KINDS) -> bool:
    """Whether such a job runs on a lent GPU, where one is lent."""
    kind = kinds.get(job.kind)
    return kind is not None and kind.lent_s > 0


def run_lent(
    store: Store, settings: Settings, job_id: int, lend: Lend, *, kinds: Mapping[str, Kind] = KINDS
) -> Job | None:
    """The job after it was run on a lent GPU; None when it does not wait any more.

    Call it in the event of the request whose quota it is; it takes as long as the job.
    """
    me = psutil.Process()
    job = claim(store, job_id=job_id, pid=me.pid, pid_started=me.create_time())
    if job is None:
        return None
    kind = where_lent(kinds)[job.kind]
    files = AttemptFiles(settings.workspace.jobs / str(job.id), job.fence).prepare()
    refused: MasukaError | None = None
    try:
        # The GPU is there in the borrowing process alone, whatever this one was told.
        params = {**job.params, **({"device": "auto"} if "device" in job.params else {})}
        secrets = keys_for(store, settings, job.user_id, kind)
        lend(Assignment.of(kind, files, job_id=job.id, params=params, secrets=secrets).line(), kind.lent_s)
    except MasukaError as error:
        refused = error
    end = apply_events(store, settings.workspace, job.id, job.fence, files.events)
    began = rows.get_job(store, actor=SYSTEM, id=job_id).events_seen > 0
    if end is None and refused is not None and not (began and kind.resumes):
        fail_job(store, settings.workspace, job.id, files, refused)
    else:
        # What it has done is kept; it goes on when its person asks for the GPU again.
        settle(store, settings.workspace, job.id, files, end or Lost(why=refused), kind)
    return rows.get_job(store, actor=SYSTEM, id=job_id)


def work(line: bytes) -> None:
    """Runs the assignment to its last event, in the borrowing process.

    That one has no main thread of ours, so nothing here may listen to signals.
    """
    assignment = Assignment.parse(line)
    redact.learn(assignment.secrets.values())
    reporter = EventFile(Path(assignment.events), Path(assignment.scratch), StopFlag(Path(assignment.stop)))
    params = {**assignment.params, "job_id": assignment.job_id}
    with closing(reporter), secrets_in_environment(assignment.secrets), logged_to(Path(assignment.log)):
        perform(assignment.run, params, reporter, nullcontext())
