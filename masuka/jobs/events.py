"""Events of a worker become rows: each exactly once, whoever reads them, whatever dies.

How far a file was read is written in the same transaction as what was read from it, so
two readers, or a reader that died, never apply an event twice. A torn last line waits for
its rest; it is gone with the process that wrote it.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.config import Workspace
from masuka.errors import MasukaError, NotFound, OutOfDisk, StoreError
from masuka.jobs import failures, told
from masuka.jobs.queue import SYSTEM
from masuka.requests.actor import Actor
from masuka.store import characters, checkpoints, items, models, pictures, runs, users
from masuka.store import jobs as rows
from masuka.store.connect import Store
from masuka.store.jobs import Job

CHUNK_BYTES = 1024 * 1024
LAST_TYPES = frozenset({"done", "failed", "stopped"})

log = logging.getLogger("masuka.jobs")


@dataclass(frozen=True)
class End:
    """The last word about an attempt: 'done', 'failed' or 'stopped', and its event.

    `said` is False where it is ours, about an event that could not be recorded: the job's
    code may still be running.
    """

    type: str
    event: dict[str, Any]
    said: bool = True


def apply_events(store: Store, workspace: Workspace, job_id: int, fence: int, file: Path) -> End | None:
    """The attempt's last word, once all before it is in the database; None until then.

    The last event itself is left to whoever settles the job. An event that cannot be
    recorded ends the attempt as failed. Raises StoreError or OutOfDisk, with nothing
    changed, when the database cannot be written now.
    """
    while True:
        end, more = _apply_chunk(store, workspace, job_id, fence, file)
        if end is not None or not more:
            return end


def _apply_chunk(
    store: Store, workspace: Workspace, job_id: int, fence: int, file: Path
) -> tuple[End | None, bool]:
    seen = rows.get_pulse(store, id=job_id)
    if seen is None or not file.exists() or file.stat().st_size <= seen.events_offset:
        return None, False
    with store.write():
        job = rows.get_job(store, actor=SYSTEM, id=job_id)
        if job.state != "running" or job.fence != fence:
            return None, False
        lines = _complete_lines(file, job.events_offset)
        offset, number, end = job.events_offset, job.events_seen, None
        changed: dict[str, Any] = {}
        for line in lines:
            event = _parse(line, job_id)
            if event is not None:
                end = _apply(store, workspace, job, event, changed)
                if end is not None:
                    break
                number = int(event.get("n", number))
            offset += len(line)
        if end is None or offset > job.events_offset:
            rows.set_job(store, id=job_id, fence=fence, events_offset=offset, events_seen=number, **changed)
    return end, bool(lines)


def _apply(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> End | None:
    """The end, if this event is one or cannot be recorded; else it was applied."""
    try:
        if event["type"] in LAST_TYPES:
            return End(event["type"], event)
        with store.write():
            EVENTS.get(event["type"], _unknown)(store, workspace, job, event, changed)
        return None
    except (StoreError, OutOfDisk):
        raise
    except MasukaError as error:
        log.warning("job %d: an event could not be recorded: %s", job.id, error)
        return End("failed", {"error": error.as_dict()}, said=False)
    except (LookupError, TypeError, ValueError, AttributeError):
        reference = secrets.token_hex(4)
        log.exception("job %d, reference %s: an event could not be understood", job.id, reference)
        told = {**failures.bug(reference).as_dict(), "reference": reference}
        return End("failed", {"error": told}, said=False)


def _complete_lines(file: Path, offset: int) -> list[bytes]:
    with file.open("rb") as source:
        source.seek(offset)
        data = source.read(CHUNK_BYTES)
        while b"\n" not in data and (more := source.read(CHUNK_BYTES)):
            data += more
    return data[: data.rfind(b"\n") + 1].splitlines(keepends=True) if b"\n" in data else []


def _parse(line: bytes, job_id: int) -> dict[str, Any] | None:
    """The event of a line; None for what a full disk or a kill left of one."""
    if not line.strip():
        return None
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "type" not in event:
        log.warning("job %d: passed over a damaged line of %d bytes in its events", job_id, len(line))
        return None
    return event


def _started(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    rows.add_job_event(store, id=job.id, type="started", data={"attempt": job.attempt}, at=event["at"])


def _stage(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    changed.update(stage=event["name"], step=0, total=0, seconds_per_step=None)


def _progress(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    changed.update(step=int(event["step"]), total=int(event["total"]))
    if event.get("seconds_per_step") is not None:
        changed["seconds_per_step"] = float(event["seconds_per_step"])


def _metric(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    if job.run_id is None:
        raise NotFound("The record of this training is gone.", "Start the training again.")
    row = {"step": event["step"], "epoch": event["epoch"], "at": event["at"], **event["values"]}
    runs.add_metrics(store, run_id=job.run_id, rows=[row])


def _note(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    changed["message"] = str(event["text"])
    rows.add_job_event(store, id=job.id, type="note", data={"text": str(event["text"])}, at=event["at"])


def _artefact(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    kind, about = event["kind"], dict(event["about"])
    path = workspace.relative(Path(event["path"]))
    if kind == "preview":
        # One picture that is drawn over again and again; the change of the row tells the page.
        return
    if kind == "checkpoint":
        changed["failures_without_checkpoint"] = 0
    recorded = ARTEFACTS[kind](store, job, path, about) if kind in ARTEFACTS else {}
    data = {"kind": kind, "path": path, "about": about, **recorded}
    rows.add_job_event(store, id=job.id, type="artefact", data=data, at=event["at"])


def _told(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    told.APPLIERS[event["noun"]](store, behalf(store, job), job, event["about"])


def _unknown(
    store: Store, workspace: Workspace, job: Job, event: dict[str, Any], changed: dict[str, Any]
) -> None:
    raise ValueError(f"an event of type {event['type']!r}")


def _picture(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    added = pictures.add_picture(
        store,
        actor=behalf(store, job),
        dataset_id=job.params["dataset_id"],
        file=path,
        original_name=about["original_name"],
        sha256=about["sha256"],
        width=about["width"],
        height=about["height"],
        bytes=about["bytes"],
        caption=about["caption"],
        caption_from=about.get("caption_from", ""),
        scores=about.get("scores"),
    )
    return {"id": None if added is None else added.id}


def _sample(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    if job.run_id is None:
        raise NotFound("The record of this training is gone.", "Start the training again.")
    known = runs.list_samples(store, actor=SYSTEM, run_id=job.run_id)
    # A training that went on from its checkpoint draws the samples after it again.
    same = [sample for sample in known if sample.file == path]
    sample = (
        same[0]
        if same
        else runs.add_sample(
            store,
            actor=behalf(store, job),
            run_id=job.run_id,
            step=about["step"],
            prompt=about["prompt"],
            seed=about["seed"],
            file=path,
        )
    )
    return {"id": sample.id}


def _checkpoint(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    if job.run_id is not None:
        checkpoints.put_checkpoint(store, run_id=job.run_id, step=about["step"], folder=path)
    return {}


def _item(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    same = [i for i in items.list_items(store, actor=SYSTEM, job_id=job.id, limit=None) if i.file == path]
    if same:
        return {"id": same[0].id}
    adapter = job.params.get("adapter") or {}
    added = items.add_item(
        store,
        actor=behalf(store, job),
        job_id=job.id,
        character_id=job.character_id,
        adapter_id=_still_there(store, adapter.get("id")),
        kind=about.get("kind", "image"),
        file=path,
        width=about["width"],
        height=about["height"],
        prompt=about["prompt"],
        seed=about["seed"],
        settings=about["settings"],
    )
    return {"id": added.id}


def _adapter(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    params = job.params
    values: dict[str, Any] = {
        "name": about.get("name", params["name"]),
        "base": about.get("base", params["base"]["id"]),
        "family": about.get("family", params["family"]),
        "task": "image",
        "strategy": "lora",
        "provider": "local",
        "path": path,
        "sha256": about["sha256"],
        "trigger_word": about.get("trigger_word", params["trigger_word"]),
        "class_word": about.get("class_word", params["class_word"]),
        "character_id": job.character_id,
        "run_id": job.run_id,
        "config": about.get("config", params["request"]),
        "best_weight": about.get("best_weight"),
    }
    known = models.list_models(store, actor=SYSTEM, kind="adapter", active=None)
    same = [model for model in known if model.path == path]
    if same:
        model = models.set_model(store, actor=behalf(store, job), id=same[0].id, **values)
    else:
        model = models.add_model(store, actor=behalf(store, job), kind="adapter", **values)
    if job.character_id is not None:
        characters.set_character(store, actor=behalf(store, job), id=job.character_id, base=model.base)
    return {"id": model.id}


def _base(store: Store, job: Job, path: str, about: dict[str, Any]) -> dict[str, Any]:
    """A base that was made here; of all people's, as every base is."""
    said = f"trained here as {about['name']}"
    values: dict[str, Any] = {
        "name": about["name"],
        "base": about["id"],
        "family": job.params["family"],
        "path": path,
        "run_id": job.run_id,
        "config": {
            "kind": "", "params": {}, "licence": about["licence"], "size_gib": about["size_gib"],
            "said": said, "about": f"Made from {job.params['base'].get('title', about['parent'])}; {said}.",
        },
    }  # fmt: skip
    known = models.list_models(store, actor=SYSTEM, kind="base", active=None)
    same = [model for model in known if model.base == about["id"]]
    if same:
        return {"id": models.set_model(store, actor=behalf(store, job), id=same[0].id, **values).id}
    return {"id": models.add_model(store, actor=behalf(store, job), kind="base", **values).id}


def behalf(store: Store, job: Job) -> Actor:
    """Whose the new rows are, and who changes what is there.

    What was shared may not be any more. Whoever became a viewer while the job ran still gets what it makes.
    """
    person = users.get_user(store, actor=SYSTEM, id=job.user_id)
    return Actor(user_id=person.id, role="owner" if person.role == "owner" else "editor", name="worker")


def _still_there(store: Store, adapter_id: int | None) -> int | None:
    known = [model.id for model in models.list_models(store, actor=SYSTEM, kind="adapter", active=None)]
    return adapter_id if adapter_id in known else None


Applier = Callable[[Store, Workspace, Job, dict[str, Any], dict[str, Any]], None]
EVENTS: dict[str, Applier] = {
    "started": _started,
    "stage": _stage,
    "progress": _progress,
    "metric": _metric,
    "note": _note,
    "artefact": _artefact,
    "told": _told,
}
ARTEFACTS: dict[str, Callable[[Store, Job, str, dict[str, Any]], dict[str, Any]]] = {
    "picture": _picture,
    "sample": _sample,
    "checkpoint": _checkpoint,
    "item": _item,
    "adapter": _adapter,
    "base": _base,
}
