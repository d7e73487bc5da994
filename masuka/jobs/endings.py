"""How an attempt at a job ends: the next state, its sentence, and what is swept away.

Files go before the state is written, and the events last: whoever is killed in between
finds the job still running at the next start, reads the same end and does the same again.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.config import Workspace
from masuka.errors import MasukaError
from masuka.jobs import failures
from masuka.jobs.events import End
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import Kind
from masuka.jobs.queue import ENDED, MOST_LOSSES, SYSTEM, ask_cancel, move
from masuka.jobs.reporter import CACHES, PARTIAL
from masuka.requests.actor import Actor
from masuka.store import jobs as rows
from masuka.store import models
from masuka.store.connect import Store
from masuka.store.jobs import Job

KEPT_ARTEFACTS = frozenset({"checkpoint", "adapter", "base"})
"""While one of these is on disk, the output folder of a job that failed is of use."""


log = logging.getLogger("masuka.jobs")


@dataclass(frozen=True)
class Lost:
    """The process is gone without a last word; None: nobody of ours saw its exit code.

    `why` is what is known of it otherwise.
    """

    exit_code: int | None = None
    why: MasukaError | None = None


@dataclass(frozen=True)
class _Next:
    """The states to pass through, and the columns to write with the first of them."""

    states: tuple[str, ...]
    columns: dict[str, Any]


def settle(
    store: Store,
    workspace: Workspace,
    job_id: int,
    files: AttemptFiles,
    ending: End | Lost,
    kind: Kind | None,
) -> Job | None:
    """The job after its attempt; None when somebody else has settled it.

    The process must be gone, or be done with this job.
    """
    while True:
        job = rows.get_job(store, actor=SYSTEM, id=job_id)
        if job.state != "running" or job.fence != files.fence:
            return None
        following = _after(job, ending, kind)
        for folder in _leavings(store, workspace, job, following.states[0]):
            _delete(job, folder)
        files.sweep_scratch()
        with store.write():
            now = rows.get_pulse(store, id=job_id)
            if now is not None and now.asked != job.asked:
                # Somebody asked for something while the files went: that counts too.
                continue
            settled = move(store, job_id, following.states[0], fence=files.fence, **following.columns)
            for state in following.states[1:]:
                settled = move(store, job_id, state) if settled else None
        if settled is not None:
            files.sweep()
        return settled


def cancel(store: Store, *, workspace: Workspace, actor: Actor, job_id: int) -> bool:
    """Whether the job will stop; one that waited ends at once, its leavings gone.

    One that runs is told here and now: it may have outlived its app, and no other process
    may be there to tell it.
    """
    with store.write():
        will_stop = ask_cancel(store, actor=actor, job_id=job_id)
        job = rows.get_job(store, actor=actor, id=job_id)
        ended = will_stop and job.state in ENDED
        # Out of the way before anybody can try it again; deleting may take longer than others wait.
        moved = [_moved(job, folder) for folder in _leavings(store, workspace, job, job.state)] if ended else []
    files = AttemptFiles(workspace.jobs / str(job.id), job.fence)
    if ended:
        files.sweep()
    elif will_stop:
        files.ask("cancel")
    for folder in moved:
        _delete(job, folder)
    return will_stop


def fail_job(
    store: Store, workspace: Workspace, job_id: int, files: AttemptFiles, error: MasukaError
) -> None:
    """Ends a running job with an error that is not of its own making."""
    settle(store, workspace, job_id, files, End("failed", {"error": error.as_dict()}), None)


def _after(job: Job, ending: End | Lost, kind: Kind | None) -> _Next:
    if job.asked == "cancel":
        return _Next(("cancelled",), {"message": "Cancelled."})
    if isinstance(ending, Lost):
        return _after_loss(job, ending, kind)
    if ending.type == "done":
        return _Next(("done",), {"result": ending.event["result"], "message": "", "step": job.total})
    if ending.type == "failed":
        error = ending.event["error"]
        return _Next(("failed",), {"error": error, "message": error["message"]})
    if ending.event["why"] == "cancel":
        return _Next(("cancelled",), {"message": "Cancelled."})
    if job.asked == "pause":
        return _Next(("paused",), {"message": "Paused.", "failures_without_checkpoint": 0})
    return _interrupted(kind, job.failures_without_checkpoint)


def _after_loss(job: Job, loss: Lost, kind: Kind | None) -> _Next:
    began = job.events_seen > 0
    # Where its code never ran and nobody saw the process end, the job is not to blame.
    blameless = not began and loss.exit_code is None
    losses = job.failures_without_checkpoint + (0 if blameless else 1)
    why = loss.why or failures.from_exit(loss.exit_code)
    resumes = kind is not None and kind.resumes
    if losses >= MOST_LOSSES:
        why = failures.lost_too_often(losses, why)
        return _Next(("failed",), {"error": why.as_dict(), "message": why.message})
    if job.asked == "pause" and resumes:
        return _Next(("paused",), {"message": "Paused.", "failures_without_checkpoint": losses})
    if resumes or not began or loss.exit_code is None:
        return _interrupted(kind, losses, never_began=not began, why=loss.why)
    return _Next(("failed",), {"error": why.as_dict(), "message": why.message})


def _interrupted(
    kind: Kind | None, losses: int, *, never_began: bool = False, why: MasukaError | None = None
) -> _Next:
    again = (never_began or (kind is not None and kind.resumes)) and (kind is None or kind.by_itself)
    message = why.message if why else "Interrupted when MASUKA stopped."
    message = "Interrupted; it goes on by itself." if again else message
    states = ("interrupted", "queued") if again else ("interrupted",)
    return _Next(states, {"message": message, "failures_without_checkpoint": losses})


def _leavings(store: Store, workspace: Workspace, job: Job, state: str) -> list[Path]:
    """The folders that a job in that state has no more use for; checkpoints are never among them."""
    if state in ("done", "paused"):
        return []
    found: list[Path] = []
    if job.params.get("output"):
        output = workspace.resolve(job.params["output"])
        found.append(Path(f"{output}{PARTIAL}"))
        if not _is_of_use(store, workspace, job, output):
            found.append(output)
    if state in ENDED and job.params.get("run_folder"):
        found.append(workspace.resolve(job.params["run_folder"]) / CACHES)
    return [folder for folder in found if folder.is_dir() and _may_go(workspace, folder)]


def _is_of_use(store: Store, workspace: Workspace, job: Job, output: Path) -> bool:
    made = rows.list_job_events(store, actor=SYSTEM, id=job.id, type="artefact")
    kept = [event for event in made if event.data["kind"] in KEPT_ARTEFACTS]
    if any(workspace.resolve(Path(event.data["path"])).exists() for event in kept):
        return True
    # An earlier attempt, a job of its own, may have finished the LoRA.
    known = models.list_models(store, actor=SYSTEM, kind="adapter", active=None) if output.exists() else []
    return any(workspace.resolve(model.path).is_relative_to(output) for model in known if model.path)


def _may_go(workspace: Workspace, folder: Path) -> bool:
    root = workspace.root.resolve()
    # Two levels below the root at least, so that no folder of the workspace itself can go.
    return folder.is_relative_to(root) and len(folder.relative_to(root).parts) >= 2


def _moved(job: Job, folder: Path) -> Path:
    """The folder under a name that no other attempt looks for; where it was if it cannot move."""
    aside = folder.with_name(f"{folder.name}.gone-{job.id}")
    try:
        return folder.rename(aside)
    except OSError as error:
        log.warning("job %d: %s cannot be moved: %s", job.id, folder, error)
        return folder


def _delete(job: Job, folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("job %d: what it left stays at %s: %s", job.id, folder, error)
