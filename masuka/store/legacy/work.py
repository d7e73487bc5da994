"""Trainings, finished LoRAs and drawing jobs of MASUKA 2."""

from __future__ import annotations

import ast
import json
from functools import partial
from typing import Any

from masuka.requests.actor import Actor
from masuka.store import items, jobs, models, runs
from masuka.store.legacy.importing import Import
from masuka.store.legacy.old import OldRow
from masuka.store.legacy.people import OWNER

BASE, FAMILY = "flux1-dev", "flux"
"""What MASUKA 2 drew its characters with, whatever base had been chosen in its form."""

STATES = {"completed": "done", "failed": "failed", "cancelled": "cancelled", "canceled": "cancelled"}
STOPPED = {
    "running": ("failed", "MASUKA 2 stopped while this was running."),
    "pending": ("cancelled", "MASUKA 2 stopped before this began."),
}
"""Nothing of an old installation runs any more, so what says so is over."""

UNSAID = {"failed": "MASUKA 2 kept no reason for this failure.", "cancelled": "It was cancelled."}


def import_trainings(job: Import) -> None:
    """Each training becomes a run with its job; then the LoRAs they left."""
    for row in job.each("training_sessions"):
        job.once(row, ("character_id",), partial(_add_training, job, row))
    for row in job.old.rows["characters"]:
        _add_adapters(job, row)


def _add_training(job: Import, row: OldRow) -> int:
    actor, character_id = job.owner_of(row), _character(job, row)
    old_character = _old_character(job, row)
    state, error = _state(row)
    steps = row.integer("steps", 800)
    config: dict[str, Any] = {
        "steps": steps,
        "batch_size": row.integer("batch_size", 1),
        "learning_rate": row.number("learning_rate", 8e-4),
        "resolution_px": row.integer("train_dim", 512),
        "rank": row.integer("rank_dim", 8),
        "pulidflux_images": row.integer("pulidflux_images", 0),
        "imported_from": "MASUKA 2",
    }
    name = old_character.text("name") if old_character else f"Training {row.id}"
    dataset_id = job.ours("datasets", old_character.reference("dataset_id")) if old_character else None
    run = runs.add_run(
        job.store,
        actor=actor,
        name=name,
        base=BASE,
        family=FAMILY,
        config=config,
        folder=job.files.folder(name, old_character.text("work_dir")) if old_character else "",
        character_id=character_id,
        dataset_id=dataset_id,
        status=state,
        created_at=row.time("created_at") or row.time("started_at"),
        finished_at=row.time("completed_at"),
    )
    progress = min(row.number("progress", 0.0), 100.0) / 100
    made = _add_job(
        job, row, actor, kind="train_image", title=f"Training {name}", state=state, error=error,
        request={**config, "log_file": row.text("log_file")}, character_id=character_id,
        dataset_id=dataset_id, run_id=run.id, total=steps,
        step=steps if state == "done" else round(steps * progress),
    )  # fmt: skip
    runs.set_run(job.store, actor=actor, id=run.id, job_id=made)
    return run.id


def _add_adapters(job: Import, row: OldRow) -> None:
    """The LoRA files that a character left behind, each once."""
    character_id = job.ours("characters", row.id)
    actor = job.owner_of(row) if character_id else OWNER
    trainings = runs.list_runs(job.store, actor=OWNER, character_id=character_id) if character_id else []
    done = [run for run in trainings if run.status == "done"]
    for number, file in enumerate(job.files.adapters(row.text("name"), row.text("work_dir"))):
        fingerprint = f"adapter-{file.sha256}"
        if job.known(fingerprint) is not None:
            continue
        name = row.text("name") or f"LoRA {row.id}"
        model = models.add_model(
            job.store,
            actor=actor,
            kind="adapter",
            name=name if number == 0 else f"{name} ({file.path.rsplit('/', 1)[-1]})",
            base=BASE,
            family=FAMILY,
            task="text-to-image",
            strategy="lora",
            provider="local",
            path=file.path,
            sha256=file.sha256,
            trigger_word=row.text("trigger_word"),
            class_word="person",
            character_id=character_id,
            run_id=done[0].id if done else None,
            best_weight=0.73,
            config={**(done[0].config if done else {}), "imported_from": "MASUKA 2"},
            created_at=row.time("completed_at"),
        )
        job.note(fingerprint, row, model.id)


def import_drawings(job: Import) -> None:
    """Each drawing job, and an item for each of its pictures that is still there."""
    for row in job.each("inference_jobs"):
        new = job.once(row, ("prompt",), partial(_add_drawing, job, row))
        job_id = job.ours("inference_jobs", row.id)
        if job_id is not None:
            _add_items(job, row, job_id, tell=new)


def _add_drawing(job: Import, row: OldRow) -> int:
    state, error = _state(row)
    prompt = row.text("prompt")
    return _add_job(
        job, row, job.owner_of(row), kind="draw_images", title=f"Drawing {prompt[:60]}".strip(), state=state,
        error=error, request={"prompt": prompt, **_settings(row)}, character_id=_character(job, row),
        result={"items": 0, "files": outputs(row)} if state == "done" else None,
    )  # fmt: skip


def _add_items(job: Import, row: OldRow, job_id: int, *, tell: bool) -> None:
    character_id = job.ours("characters", row.reference("character_id"))
    adapters = models.list_models(job.store, actor=OWNER, kind="adapter", character_id=character_id)
    for path in outputs(row, tell=tell):
        fingerprint = f"item-{row.fingerprint('prompt')}-{path}"
        if job.known(fingerprint) is not None:
            continue
        found = job.files.result(path)
        if found is None:
            if tell:
                row.odd(f"its picture {path} is not there any more")
            continue
        item = items.add_item(
            job.store,
            actor=job.owner_of(row),
            file=found.path,
            width=found.width,
            height=found.height,
            prompt=row.text("prompt"),
            seed=0,
            settings=_settings(row),
            job_id=job_id,
            character_id=character_id,
            adapter_id=adapters[-1].id if character_id and adapters else None,
            created_at=row.time("completed_at") or row.time("created_at"),
        )
        job.note(fingerprint, row, item.id)


def _settings(row: OldRow) -> dict[str, Any]:
    return {
        "optimized_prompt": row.text("optimized_prompt"),
        "lora_weight": row.number("lora_weight", 0.73),
        "size_px": row.integer("test_dim", 1024),
        "batch_size": row.integer("batch_size", 4),
        "num_inference_steps": row.integer("num_inference_steps", 30),
        "do_optimize_prompt": row.flag("do_optimize_prompt", True),
        "fix_outfit": row.flag("fix_outfit", False),
        "safety_check": row.flag("safety_check", True),
        "face_enhance": row.flag("face_enhance", False),
        "base": BASE,
        "imported_from": "MASUKA 2",
    }


def outputs(row: OldRow, *, tell: bool = False) -> list[str]:
    """The paths of the finished pictures, also from a list that is no JSON."""
    text = row.text("output_paths")
    if not text:
        return []
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple):
            return list(dict.fromkeys(str(path) for path in value if path))
    if tell:
        row.odd("its list of pictures was no JSON; each line was taken for a path")
    return list(
        dict.fromkeys(part.strip(" []\"'") for part in text.replace(",", "\n").split("\n") if part.strip())
    )


def _state(row: OldRow) -> tuple[str, str]:
    """Our state and, where it did not end well, the sentence that says why."""
    status = row.text("status", "pending").lower()
    if status in STOPPED:
        return STOPPED[status]
    if status not in STATES:
        row.odd(f"its status was {status!r}; it counts as failed")
    state = STATES.get(status, "failed")
    return state, row.text("error_message") or UNSAID.get(state, "")


def _add_job(
    job: Import,
    row: OldRow,
    actor: Actor,
    *,
    kind: str,
    title: str,
    state: str,
    error: str,
    request: dict[str, Any],
    character_id: int | None,
    **columns: Any,
) -> int:
    """A job that is over; `columns` are further columns of the jobs table."""
    added = jobs.add_job(
        job.store, actor=actor, kind=kind, lane="gpu", title=title, request=request, params={},
        character_id=character_id,
    )  # fmt: skip
    created_at = row.time("created_at") or added.created_at
    jobs.set_job(
        job.store,
        id=added.id,
        state=state,
        created_at=created_at,
        started_at=row.time("started_at"),
        finished_at=row.time("completed_at") or created_at,
        error={"type": "MasukaError", "message": error, "hint": "Start it again here."}
        if state == "failed"
        else None,
        message=error if state != "failed" else "",
        **columns,
    )
    jobs.add_job_event(job.store, id=added.id, type="note", data={"text": "Copied from MASUKA 2."})
    return added.id


def _character(job: Import, row: OldRow) -> int | None:
    old_id = row.reference("character_id")
    new_id = job.ours("characters", old_id)
    if new_id is None:
        row.odd(f"its character {old_id if old_id is not None else ''} is gone".replace("  ", " "))
    return new_id


def _old_character(job: Import, row: OldRow) -> OldRow | None:
    old_id = row.reference("character_id")
    return next((c for c in job.old.rows["characters"] if c.id == old_id), None)
