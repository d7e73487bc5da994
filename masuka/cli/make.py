"""masuka train … and masuka generate …: the work itself."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.families import FAMILIES
from masuka.requests.images import DrawImages
from masuka.requests.presets import PRESETS as TRAIN_PRESETS
from masuka.requests.training import TrainImage
from masuka.studio import Studio

train_group = typer.Typer(help="Train a LoRA; list and delete trainings.", no_args_is_help=True)
generate_group = typer.Typer(help="Draw with a base or a LoRA.", no_args_is_help=True)
BASES = [entry for family in FAMILIES.values() for entry in family.entries]
BY_BASE_TRAINING = frozenset(name for entry in BASES for name in entry.train_limits)
BY_BASE_DRAWING = frozenset(name for entry in BASES for name in entry.draw_limits)
PRESETS = ", ".join(f"{preset.name} ({entry.id})" for entry in BASES for preset in entry.presets)
Later = Annotated[bool, typer.Option("--later", help="Only queue it; the app runs it.")]
Preset = Annotated[
    str, typer.Option(help=f"Settings to start from, by name: {', '.join(preset.name for preset in TRAIN_PRESETS)}.")
]


def settings_of(studio: Studio, values: dict[str, Any], preset: str) -> dict[str, Any]:
    """The given values, with a preset's for what was not given."""
    if not preset:
        return values
    base, dataset_id = str(values.get("base") or "pocket"), int(values["dataset_id"])
    return {**studio.training.preset(preset, base=base, dataset_id=dataset_id), **values}


@command(train_group, "image", request=TrainImage, argument="dataset_id", by_base=BY_BASE_TRAINING)
def train_image(
    studio: Studio,
    values: dict[str, object],
    preset: Preset = "",
    later: Later = False,
    as_json: bool = False,
) -> Answer:
    """Trains a LoRA from a data set; settings left out take the base's own defaults."""
    job = studio.training.start(settings_of(studio, values, preset))
    if later:
        return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
    job = show.run(studio, job, quiet=as_json)
    adapter = next((a for a in studio.models.adapters() if a.run_id == job.run_id), None)
    report = {} if job.run_id is None else studio.training.run(job.run_id).report
    said = [*report.get("sentences", []), *filter(None, [report.get("overfit")])]
    if adapter is None:  # a whole model is a base, which `masuka models list` shows
        return Answer({"job": job, "report": report}, "\n".join([f"Job {job.id}: {job.title} is {job.state}.", *said]))
    file = studio.workspace.resolve(adapter.path)
    text = "\n".join([f"LoRA {adapter.id}: {adapter.name}", str(file), *said])
    return Answer({"job": job, "adapter": adapter, "file": file, "report": report}, text)


@command(train_group, "list")
def list_trainings(
    studio: Studio,
    character: Annotated[int | None, typer.Option(help="Only trainings of this character.")] = None,
    limit: int = 50,
) -> Answer:
    """Lists the trainings, the newest first."""
    found = studio.training.runs(character_id=character, limit=limit)
    rows = [(r.id, r.name, r.base, r.status, r.created_at[:19]) for r in found]
    head = ("id", "training", "base", "state", "started (UTC)")
    return Answer(found, show.table(head, rows, empty="No trainings yet."))


@command(train_group, "repeat")
def repeat_training(studio: Studio, run_id: int, later: Later = False, as_json: bool = False) -> Answer:
    """Does a training again from the pictures and captions that it learnt from then."""
    job = studio.training.repeat(run_id)
    if not later:
        job = show.run(studio, job, quiet=as_json)
    return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")


@command(train_group, "content")
def content_of_training(studio: Studio, run_id: int) -> Answer:
    """Says how the data set differs now from what a training learnt from."""
    found = studio.training.content(run_id)
    lines = [*found.sentences, *([found.problem] if found.problem else [])]
    return Answer(found, "\n".join(lines) or "The data set is as it was.")


@command(train_group, "delete")
def delete_training(studio: Studio, run_id: int, yes: bool = False) -> Answer:
    """Deletes a training with its checkpoints and samples; a LoRA that it made stays."""
    training = studio.training.run(run_id)
    if not yes:
        typer.confirm(f"Delete the training {training.name} and its checkpoints?", abort=True, err=True)
    studio.training.delete(run_id)
    return Answer({"deleted": run_id}, f"Deleted {training.name}.")


@command(generate_group, "image", request=DrawImages, argument="prompt", by_base=BY_BASE_DRAWING)
def generate_image(
    studio: Studio,
    values: dict[str, object],
    preset: Annotated[str, typer.Option(help=f"Base and settings by name: {PRESETS}.")] = "",
    later: Later = False,
    as_json: bool = False,
) -> Answer:
    """Draws pictures; settings left out take the base's own defaults."""
    job = studio.images.draw(values, preset=preset)
    if later:
        return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
    job = show.run(studio, job, quiet=as_json)
    items = sorted(studio.library.items(job_id=job.id), key=lambda item: item.id)
    files = [studio.library.media("item", item.id) for item in items]
    return Answer({"job": job, "items": items, "files": files}, "\n".join(map(str, files)))
