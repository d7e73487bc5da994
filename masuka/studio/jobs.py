"""The queue: what runs, what waits, what became of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from masuka.config import Workspace
from masuka.errors import Cancelled, Conflict, MasukaError, from_dict
from masuka.jobs import endings, queue
from masuka.jobs.executors.inline import run_inline
from masuka.jobs.executors.lent import borrows, run_lent
from masuka.jobs.files import log_tail
from masuka.store import jobs as rows
from masuka.store.jobs import Job
from masuka.studio.context import Context

ENDED = frozenset({"done", "failed", "cancelled"})
WAITING = frozenset({"queued", "running", "paused", "interrupted", "uncertain"})
SECONDS_BETWEEN_LOOKS = 0.1


class Jobs:
    """Look at jobs, wait for them, stop them, start them again."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def add(self, kind: str, **about: Any) -> Job:
        """The queued job; used by the other parts of the studio."""
        job = queue.add_job(self._context.store, actor=self._context.actor, kind=kind, **about)
        self._context.wake()
        return job

    def asked_before(self, key: str | None) -> Job | None:
        """The job that this person added with that key."""
        if key is None:
            return None
        return rows.find_job(self._context.store, actor=self._context.actor, idempotency_key=key)

    def list(
        self,
        *,
        character_id: int | None = None,
        dataset_id: int | None = None,
        run_id: int | None = None,
        states: Iterable[str] | None = None,
        kind: str | None = None,
        before_id: int | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        """Jobs, the newest first."""
        return rows.list_jobs(
            self._context.store,
            actor=self._context.actor,
            character_id=character_id,
            dataset_id=dataset_id,
            run_id=run_id,
            states=None if states is None else list(states),
            kind=kind,
            before_id=before_id,
            limit=limit,
        )

    def get(self, job_id: int) -> Job:
        """One job as it is now; raises NotFound."""
        return rows.get_job(self._context.store, actor=self._context.actor, id=job_id)

    def wait(self, job: Job | int, *, timeout_s: float | None = None) -> Job:
        """The job once it is done.

        Where jobs run inline, this runs it, and what was queued before it. Raises the
        job's own error if it failed, Cancelled if it was stopped, Conflict if it is
        paused or `timeout_s` passes first.
        """
        job_id = job if isinstance(job, int) else job.id
        deadline_s = time.monotonic() + (timeout_s if timeout_s is not None else float("inf"))
        now = self.get(job_id)
        while now.state not in ENDED:
            lying = ("paused",) if self._context.supervisor is None else ("paused", "interrupted")
            if now.state in lying:
                raise Conflict(f"The job '{now.title}' is {now.state}.", "Resume it first.")
            if time.monotonic() > deadline_s:
                raise Conflict(f"The job '{now.title}' still runs.", "Wait longer or cancel it.")
            if self._context.supervisor is None:
                self._run_next(now, deadline_s)
            else:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            now = self.get(job_id)
        return _outcome(now)

    def run_lent(self) -> None:
        """Runs this person's waiting jobs that borrow a GPU, in the event that calls it.

        It returns once they have ended, well or not; does nothing where no GPU is lent.
        """
        context = self._context
        if context.lend is None:
            return
        mine = [j for j in self.list(states=["queued"], limit=1000) if j.user_id == context.actor.user_id]
        for job in sorted(filter(borrows, mine), key=lambda j: j.position):
            run_lent(context.store, context.settings, job.id, context.lend)

    def cancel(self, job_ids: Sequence[int]) -> int:
        """How many jobs were asked to stop; those that had ended already do not count."""
        return self._each(job_ids, partial(endings.cancel, workspace=self._context.workspace))

    def pause(self, job_id: int) -> Job:
        """The job, asked to keep a checkpoint and leave; raises Conflict when it cannot."""
        self._each([job_id], queue.ask_pause)
        return self.get(job_id)

    def resume(self, job_id: int) -> Job:
        """The paused or interrupted job, queued again."""
        self._each([job_id], queue.resume)
        return self.get(job_id)

    def put_first(self, job_id: int) -> Job:
        """The waiting job, the next of its lane now; raises Conflict if it began."""
        queue.put_first(self._context.store, actor=self._context.actor, job_id=job_id)
        self._context.wake()
        return self.get(job_id)

    def retry(self, job_id: int) -> Job:
        """A new attempt of a job that failed or was cancelled."""
        self._context.actor.must_edit()
        job = queue.retry(self._context.store, actor=self._context.actor, job_id=job_id)
        self._context.wake()
        return job

    def delete(self, job_ids: Sequence[int], *, timeout_s: float = 30) -> int:
        """How many jobs were removed from the list; what still runs is stopped first.

        What a job made (pictures, LoRAs) stays. Raises Conflict when one does not stop.
        """
        self._context.actor.must_edit()
        self.stop(job_ids, timeout_s=timeout_s)
        for job_id in job_ids:
            job = self.get(job_id)
            queue.delete(self._context.store, actor=self._context.actor, job_id=job_id)
            folder = self._context.workspace.jobs / str(job.id)
            if folder.exists():
                shutil.rmtree(folder)
            preview_of(self._context.workspace, job.id).unlink(missing_ok=True)
        return len(job_ids)

    def stop(self, job_ids: Sequence[int], *, timeout_s: float = 30) -> None:
        """Cancels and waits until none runs; raises Conflict when one does not stop."""
        running = [i for i in job_ids if self.get(i).state in WAITING]
        self.cancel(running)
        deadline_s = time.monotonic() + timeout_s
        while any(self.get(i).state not in ENDED for i in running):
            if time.monotonic() > deadline_s:
                raise Conflict("A job does not stop.", "Wait a minute and try again.")
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def stop_all(self, **where: Any) -> None:
        """Stops every unfinished job of a character or data set."""
        self.stop([job.id for job in self.list(states=WAITING, limit=1000, **where)])

    def log(self, job_id: int, *, tail_bytes: int = 20_000) -> str:
        """The end of the job's log, '' while it has none."""
        return log_tail(self._context.workspace.jobs / str(self.get(job_id).id), tail_bytes=tail_bytes)

    def events(self, job_id: int) -> Sequence[rows.JobEvent]:
        """What happened to the job, in order."""
        return rows.list_job_events(self._context.store, actor=self._context.actor, id=job_id)

    def eta_s(self, job: Job) -> float | None:
        """Seconds left from measured steps; None while nothing was measured."""
        return queue.eta_s(job)

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return rows.count_jobs(self._context.store, actor=self._context.actor)

    def _each(self, job_ids: Sequence[int], ask: Any) -> int:
        self._context.actor.must_edit()
        count = 0
        for job_id in job_ids:
            count += bool(ask(self._context.store, actor=self._context.actor, job_id=job_id))
        self._context.wake()
        return count

    def _run_next(self, wanted: Job, deadline_s: float) -> None:
        """Runs the wanted job in this process, after the queued ones that stand before it.

        What another process runs, or an app will run, is waited for.
        """
        if wanted.state == "interrupted":
            self.resume(wanted.id)
        before = [j for j in self.list(states=["queued"], limit=1000) if j.position <= wanted.position]
        for job_id in [*(j.id for j in sorted(before, key=lambda j: j.position)), wanted.id]:
            left_s = deadline_s - time.monotonic()
            if left_s > 0:
                done = run_inline(self._context.store, self._context.settings, job_id, timeout_s=left_s)
                self._context.after_job(self._context, done)


def preview_of(workspace: Workspace, job_id: int) -> Path:
    """Where a drawing shows itself while it is made."""
    return workspace.items / "previews" / f"{job_id}.webp"


def _outcome(job: Job) -> Job:
    if job.state == "cancelled":
        raise Cancelled(f"The job '{job.title}' was cancelled.")
    if job.state == "failed":
        raise from_dict(job.error) if job.error else MasukaError(f"The job '{job.title}' failed.")
    return job
