"""A desk to try jobs at: a real database, real workers, nothing left running."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from masuka.config import Settings
from masuka.jobs import queue
from masuka.jobs.executors.processes import MODULE
from masuka.jobs.supervisor import Supervisor
from masuka.requests.actor import Actor
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job
from tests.worker.jobs_for_tests import KINDS

PATIENCE_S = 240.0
"""Two starved cores: a test waits long for what must come, and never fails by the clock."""


class Desk:
    """A workspace with its store, and supervisors on it that are stopped at the end."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.actor = Actor(user_id=1)
        self.supervisors: list[Supervisor] = []

    def supervise(self, **options: Any) -> Supervisor:
        """A running supervisor that knows the test jobs."""
        supervisor = Supervisor(self.store, self.settings, kinds=KINDS, **options)
        supervisor.start()
        self.supervisors.append(supervisor)
        return supervisor

    def add(self, kind: str, *, actor: Actor | None = None, **params: Any) -> Job:
        """A queued job of that kind."""
        job = queue.add_job(
            self.store,
            actor=actor or self.actor,
            kind=kind,
            title=kind,
            request={},
            params=params,
            kinds=KINDS,
        )
        self.wake()
        return job

    def training(self, kind: str = "train", **params: Any) -> Job:
        """A queued training with its folders."""
        number = str(time.monotonic_ns())
        folders = {
            "output": str(self.settings.workspace.adapters / number),
            "run_folder": str(self.settings.workspace.runs / number),
        }
        return self.add(kind, **{**folders, **params})

    def wake(self) -> None:
        for supervisor in self.supervisors:
            supervisor.wake()

    def get(self, job: Job) -> Job:
        return rows.get_job(self.store, actor=self.actor, id=job.id)

    def wait(self, job: Job, *states: str) -> Job:
        """The job once it is in one of the states, by default once it has ended."""
        return queue.wait(self.store, actor=self.actor, job_id=job.id, states=states, timeout_s=PATIENCE_S)

    def until(self, job: Job, true: Callable[[Job], Any]) -> Job:
        """The job once that is so; fails when it has ended before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not true(now := self.get(job)):
            assert now.state not in queue.ENDED, f"it is {now.state}: {now.error}"
            assert time.monotonic() < deadline_s, f"still {now}"
            time.sleep(0.02)
        return now

    def cancel(self, job: Job) -> Job:
        """The job, after it was cancelled and has stopped."""
        assert queue.ask_cancel(self.store, actor=self.actor, job_id=job.id)
        self.wake()
        return self.wait(job)

    def states(self, job: Job) -> list[str]:
        """Every state the job has been in, in order."""
        events = rows.list_job_events(self.store, actor=self.actor, id=job.id, type="state")
        return [event.data["to"] for event in events]

    def folder(self, job: Job) -> Path:
        return self.settings.workspace.jobs / str(job.id)

    def left(self, job: Job) -> list[str]:
        """What the job's folder holds besides its log; events go right after the end is written."""
        deadline_s = time.monotonic() + PATIENCE_S
        while (names := self._names(job)) and time.monotonic() < deadline_s:
            assert self.get(job).state not in queue.ENDED or not any("scratch" in name for name in names)
            if self.get(job).state not in queue.ENDED:
                break
            time.sleep(0.02)
        return names

    def _names(self, job: Job) -> list[str]:
        return sorted(f.name for f in self.folder(job).iterdir() if not f.name.startswith("log"))


def until_true(true: Callable[[], bool]) -> None:
    """Returns once that is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline_s, "it has not come"
        time.sleep(0.02)


def wait_until_no_worker(settings: Settings) -> None:
    """Returns once no worker serves this workspace."""
    deadline_s = time.monotonic() + PATIENCE_S
    while left := workers_of(settings):
        assert time.monotonic() < deadline_s, f"still running: {left}"
        time.sleep(0.05)


def workers_of(settings: Settings) -> list[psutil.Process]:
    """The worker processes that serve this workspace."""
    found = []
    for process in psutil.process_iter():
        try:
            if MODULE in process.cmdline() and process.cwd() == str(settings.workspace.empty):
                found.append(process)
        except psutil.Error:
            continue
    return found
