"""What goes with time, so that a workspace does not grow for ever.

Only what was made by the way and can be done without: logs of jobs that ended long ago,
and caches that a training makes again when it goes on; what is cached of a picture goes
with the picture. Never a picture, a LoRA, a
checkpoint, a sample, or a row.
"""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from masuka.config import Workspace
from masuka.jobs.queue import SYSTEM
from masuka.jobs.reporter import CACHES, LATENTS, NAME_OF_PICTURE
from masuka.store import jobs as rows
from masuka.store import pictures
from masuka.store.connect import Store

KEPT_DAYS = 30
"""So long after its end a job's folder stays, with its log."""
CACHES_BYTES = 20 * 2**30
"""The caches of all trainings may take this much together; those left longest go first."""
WORKING = ("queued", "running")

log = logging.getLogger("masuka.jobs")


def thin(
    store: Store, workspace: Workspace, *, now: datetime | None = None, caches_bytes: int = CACHES_BYTES
) -> list[Path]:
    """The folders that went."""
    moment = (now or datetime.now(UTC)) - timedelta(days=KEPT_DAYS)
    gone = [
        *_folders_of_old_jobs(store, workspace, moment),
        *_caches_beyond(store, workspace, caches_bytes),
    ]
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    unused = _unused_caches(store, workspace, moment)
    for file in unused:
        file.unlink(missing_ok=True)
    if gone or unused:
        log.info("%d folders and %d files that nobody needs any more were deleted", len(gone), len(unused))
    return gone


def _folders_of_old_jobs(store: Store, workspace: Workspace, moment: datetime) -> list[Path]:
    ended = rows.ended_before(store, at=moment.isoformat(timespec="microseconds"))
    return [folder for job_id in sorted(ended) if (folder := workspace.jobs / str(job_id)).is_dir()]


def _caches_beyond(store: Store, workspace: Workspace, most_bytes: int) -> list[Path]:
    """The caches that are too much; what runs or is about to run keeps its own."""
    working = rows.list_jobs(store, actor=SYSTEM, states=WORKING, limit=1000)
    in_use = {workspace.resolve(job.params["run_folder"]) for job in working if "run_folder" in job.params}
    total, beyond = 0, []
    found = [folder for folder in workspace.runs.glob(f"*/{CACHES}") if folder.is_dir()]
    for folder in sorted(found, key=_last_used, reverse=True):
        total += sum(file.stat().st_size for file in _files(folder))
        if total > most_bytes and folder.parent.resolve() not in in_use:
            beyond.append(folder)
    return beyond


def _unused_caches(store: Store, workspace: Workspace, moment: datetime) -> list[Path]:
    """Shared caches that no training asked for since then, or whose picture is in no data set."""
    files = _files(workspace.caches) if workspace.caches.is_dir() else []
    latents = [file for file in files if file.parent.name == LATENTS and "-" in file.name]
    there = {sha256[:NAME_OF_PICTURE] for sha256 in pictures.every_sha256(store)} if latents else set()
    nobodys = {file for file in latents if file.name.partition("-")[0] not in there}
    old = {file for file in files if file.stat().st_mtime < moment.timestamp()}
    return sorted(nobodys | old)


def _last_used(folder: Path) -> float:
    return max((file.stat().st_mtime for file in _files(folder)), default=0.0)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
