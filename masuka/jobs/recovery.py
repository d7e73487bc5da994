"""What a start finds: jobs whose process died with the app, and files nobody needs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Set

from filelock import FileLock, Timeout

from masuka.config import Settings, Workspace
from masuka.jobs.endings import Lost, settle
from masuka.jobs.events import apply_events
from masuka.jobs.executors.processes import is_alive
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import KINDS, Kind
from masuka.jobs.queue import ENDED
from masuka.store import jobs as rows
from masuka.store.connect import Store

log = logging.getLogger("masuka.jobs")


def recover(
    store: Store,
    settings: Settings,
    *,
    kinds: Mapping[str, Kind] = KINDS,
    locked: bool = False,
    mine: Set[int] = frozenset(),
) -> int:
    """How many running jobs without a process were settled, events applied first.

    A supervisor calls it with its lock held (`locked`) and the jobs it watches itself
    (`mine`); without the lock, nothing is done while a supervisor of another process works.
    """
    if not locked:
        try:
            with lock_of(settings.workspace).acquire(timeout=0):
                return recover(store, settings, kinds=kinds, locked=True, mine=mine)
        except Timeout:
            return 0
    settled = 0
    for job in rows.list_running(store):
        if job.id in mine or is_alive(job.pid, job.pid_started):
            continue
        files = AttemptFiles(settings.workspace.jobs / str(job.id), job.fence)
        end = apply_events(store, settings.workspace, job.id, job.fence, files.events)
        after = settle(store, settings.workspace, job.id, files, end or Lost(), kinds.get(job.kind))
        if after is not None:
            settled += 1
            log.info("job %d was left running; it is %s now", job.id, after.state)
    return settled


def sweep_left_files(store: Store, workspace: Workspace) -> None:
    """Deletes folders of jobs that are gone and leavings of jobs that have ended.

    Those of a waiting job go when its next attempt begins, perhaps this very moment.
    """
    for folder in workspace.jobs.iterdir():
        if not (folder.is_dir() and folder.name.isdigit()):
            continue
        job = rows.get_pulse(store, id=int(folder.name))
        if job is None:
            shutil.rmtree(folder, ignore_errors=True)
        elif job.state in ENDED:
            AttemptFiles(folder, 0).sweep()


def lock_of(workspace: Workspace) -> FileLock:
    """The lock of a workspace's one working supervisor; the system frees it."""
    workspace.jobs.mkdir(parents=True, exist_ok=True)
    return FileLock(workspace.jobs / "supervisor.lock")
