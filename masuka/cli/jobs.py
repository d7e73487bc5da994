"""masuka jobs …: what runs, what waits, what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.studio import Studio

group = typer.Typer(help="Jobs: list, watch, cancel, try again.", no_args_is_help=True)
Ids = Annotated[list[int], typer.Argument(help="Job numbers.")]


@command(group, "list")
def list_all(
    studio: Studio,
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    character: Annotated[int | None, typer.Option(help="Only jobs of this character.")] = None,
    limit: int = 50,
) -> Answer:
    """Lists jobs, the newest first."""
    found = studio.jobs.list(states=state or None, character_id=character, limit=limit)
    rows = [(j.id, j.state, j.title, _progress(j.step, j.total), j.stage, j.created_at[:19]) for j in found]
    head = ("id", "state", "job", "done", "stage", "added (UTC)")
    return Answer(found, show.table(head, rows, empty="No jobs yet."))


@command(group, "show")
def show_one(studio: Studio, job_id: int) -> Answer:
    """Shows a job and what happened to it."""
    job = studio.jobs.get(job_id)
    lines = [f"Job {job.id}: {show.state_line(studio, job)}", f"State: {job.state}"]
    if job.error:
        lines.append(f"Error: {job.error['message']} {job.error['hint']}".rstrip())
    events = studio.jobs.events(job_id)
    lines += [f"{e.at[:19]}  {_told(e.type, e.data)}" for e in events]
    return Answer({"job": job, "events": events}, "\n".join(lines))


@command(group, "watch")
def watch(studio: Studio, job_id: int, as_json: bool = False) -> Answer:
    """Follows a job that the app runs, until it ends."""
    job = show.watch(studio, job_id, quiet=as_json)
    return Answer(job, f"{job.title}: {job.state}", code=1 if job.state == "failed" else 0)


@command(group, "run")
def run(studio: Studio, job_id: int, as_json: bool = False) -> Answer:
    """Runs a waiting job here; while the app works, it waits for the app to run it."""
    job = show.run(studio, studio.jobs.get(job_id), quiet=as_json)
    return Answer(job, f"{job.title}: {job.state}")


@command(group, "cancel")
def cancel(studio: Studio, job_ids: Ids) -> Answer:
    """Stops jobs."""
    count = studio.jobs.cancel(job_ids)
    return Answer({"asked": count}, f"{count} of {len(job_ids)} asked to stop.")


@command(group, "pause")
def pause(studio: Studio, job_id: int) -> Answer:
    """Pauses a job; a training keeps a checkpoint first."""
    job = studio.jobs.pause(job_id)
    return Answer(job, f"{job.title}: asked to pause.")


@command(group, "resume")
def resume(studio: Studio, job_id: int) -> Answer:
    """Queues a paused or interrupted job again."""
    job = studio.jobs.resume(job_id)
    return Answer(job, f"{job.title}: {job.state}")


@command(group, "retry")
def retry(studio: Studio, job_id: int) -> Answer:
    """Queues a failed or cancelled job again."""
    job = studio.jobs.retry(job_id)
    return Answer(job, f"Job {job.id}: {job.title} is {job.state}.")


@command(group, "delete")
def delete(studio: Studio, job_ids: Ids, yes: bool = False) -> Answer:
    """Deletes jobs from the list; what runs is stopped first, what was made stays."""
    if not yes:
        typer.confirm(f"Delete {len(job_ids)} jobs?", abort=True, err=True)
    count = studio.jobs.delete(job_ids)
    return Answer({"deleted": count}, f"{count} jobs deleted.")


@command(group, "log")
def log(studio: Studio, job_id: int, tail_bytes: int = 20_000) -> Answer:
    """Prints the end of a job's log."""
    text = studio.jobs.log(job_id, tail_bytes=tail_bytes)
    return Answer({"log": text}, text.rstrip() or "The log is empty.")


def _told(type: str, data: Mapping[str, Any]) -> str:
    """One event in words."""
    if type == "state":
        return f"{data.get('from', 'new')} → {data.get('to', '')}"
    if type == "artefact":
        return f"made {data.get('kind', '')} {data.get('path', '')}"
    return f"{type} {data.get('text') or data.get('name') or ''}".rstrip()


def _progress(step: int, total: int) -> str:
    return f"{step:,}/{total:,}" if total else ""
