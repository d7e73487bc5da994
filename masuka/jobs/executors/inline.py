"""Runs a job in the process that asks: a notebook cell, the command line, a test.

The same code, events and endings as in a worker; only the process is the caller's.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import psutil
from filelock import Timeout

from masuka.config import Settings, secrets_in_environment
from masuka.errors import NotFound, from_dict
from masuka.jobs.endings import Lost, fail_job, settle
from masuka.jobs.events import LAST_TYPES, apply_events
from masuka.jobs.files import AttemptFiles, stop_reason
from masuka.jobs.kinds import KINDS, Kind, Lane
from masuka.jobs.queue import SECONDS_BETWEEN_LOOKS, SYSTEM, claim
from masuka.jobs.recovery import lock_of, recover
from masuka.jobs.reporter import EventFile
from masuka.jobs.secrets import keys_for
from masuka.jobs.slots import SLOTS
from masuka.jobs.worker import perform
from masuka.logs import SafeFormatter, redact
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

SECONDS_BETWEEN_WRITES = 0.2

OnEvent = Callable[[dict[str, Any]], None]


def run_inline(
    store: Store,
    settings: Settings,
    job_id: int,
    on_event: OnEvent | None = None,
    *,
    kinds: Mapping[str, Kind] = KINDS,
    timeout_s: float = math.inf,
) -> Job:
    """The job after it was run here; `on_event` sees each event as it comes.

    A job is waited for instead while somebody else runs it, while the supervisor of an app
    works (which will run it), and while its lane is full: no device is shared. `timeout_s`
    ends that waiting, never a job that began here. One that does not wait to be run is
    returned as it is. An interrupt from the keyboard cancels the job and is raised again.
    """
    until_s = time.monotonic() + timeout_s
    while (job := rows.get_job(store, actor=SYSTEM, id=job_id)).state in ("queued", "running"):
        mine = _claimed(store, settings, job, kinds)
        if mine is not None:
            _begin(store, settings, mine, kinds, on_event)
            return rows.get_job(store, actor=SYSTEM, id=job_id)
        if time.monotonic() >= until_s:
            break
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return job


def _claimed(store: Store, settings: Settings, job: Job, kinds: Mapping[str, Kind]) -> Job | None:
    me = psutil.Process()
    try:
        with lock_of(settings.workspace).acquire(timeout=0):
            recover(store, settings, kinds=kinds, locked=True)
            running = sum(other.lane == job.lane for other in rows.list_running(store))
            if running >= SLOTS[cast(Lane, job.lane)]:
                return None
            return claim(store, job_id=job.id, pid=me.pid, pid_started=me.create_time())
    except Timeout:
        return None


def _begin(
    store: Store, settings: Settings, job: Job, kinds: Mapping[str, Kind], on_event: OnEvent | None
) -> None:
    files = AttemptFiles(settings.workspace.jobs / str(job.id), job.fence).prepare()
    kind = kinds.get(job.kind)
    if kind is None:
        told = NotFound(f"This MASUKA knows no job of the kind {job.kind!r}.", "Update MASUKA.")
        fail_job(store, settings.workspace, job.id, files, told)
    else:
        _run(store, settings, job, kind, files, on_event)


def _run(
    store: Store, settings: Settings, job: Job, kind: Kind, files: AttemptFiles, on_event: OnEvent | None
) -> None:
    recorder = _Recorder(store, settings, job, files, on_event)
    reporter = EventFile(files.events, files.scratch, recorder.stop_reason, recorder)
    try:
        # What was read from a .env file is in the settings only, not in the environment.
        secrets = keys_for(store, settings, job.user_id, kind)
        redact.learn(secrets.values())
        with secrets_in_environment(secrets), logged_to(files.log):
            perform(kind.run, {**job.params, "job_id": job.id}, reporter, nullcontext())
    finally:
        reporter.close()
        end = apply_events(store, settings.workspace, job.id, job.fence, files.events)
        settle(store, settings.workspace, job.id, files, end or Lost(), kind)


class _Recorder:
    """Writes events to the database as they come; measurements, which are many, a few at a time."""

    def __init__(
        self, store: Store, settings: Settings, job: Job, files: AttemptFiles, on_event: OnEvent | None
    ) -> None:
        self._store = store
        self._workspace = settings.workspace
        self._job = job
        self._files = files
        self._on_event = on_event
        self._written_s = self._looked_s = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        if self._on_event is not None:
            self._on_event(event)
        if event["type"] == "metric" and time.monotonic() - self._written_s < SECONDS_BETWEEN_WRITES:
            return
        job, fence = self._job.id, self._job.fence
        end = apply_events(self._store, self._workspace, job, fence, self._files.events)
        self._written_s = time.monotonic()
        if end is not None and event["type"] not in LAST_TYPES:
            # What the job made could not be recorded: there is no point in going on.
            raise from_dict(end.event["error"])

    def stop_reason(self) -> str | None:
        """What a person asked, in this process or another."""
        if time.monotonic() - self._looked_s < SECONDS_BETWEEN_WRITES:
            return None
        self._looked_s = time.monotonic()
        asked = rows.get_job(self._store, actor=SYSTEM, id=self._job.id).asked
        return asked or stop_reason(self._files.stop)


@contextmanager
def logged_to(log: Path) -> Iterator[None]:
    """While the job runs, what is logged here also goes to the job's log."""
    handler = logging.FileHandler(log, encoding="utf-8")
    handler.setFormatter(SafeFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
