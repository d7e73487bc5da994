"""masuka train … and masuka generate …: the work itself."""

from __future__ import annotations

from typing import Annotated

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.families import FAMILIES
from masuka.requests.images import DrawImages
from masuka.requests.training import TrainImage
from masuka.studio import Studio

train_group = typer.Typer(help="Train a LoRA.", no_args_is_help=True)
generate_group = typer.Typer(help="Draw with a base or a LoRA.", no_args_is_help=True)
BASES = [entry for family in FAMILIES.values() for entry in family.entries]
BY_BASE_TRAINING = frozenset(name for entry in BASES for name in entry.train_limits)
BY_BASE_DRAWING = frozenset(name for entry in BASES for name in entry.draw_limits)
Later = Annotated[bool, typer.Option("--later", help="Only queue it; the app runs it.")]


@command(train_group, "image", request=TrainImage, argument="dataset_id", by_base=BY_BASE_TRAINING)
def train_image(
    studio: Studio, values: dict[str, object], later: Later = False, as_json: bool = False
) -> Answer:
    """Trains a LoRA from a data set; settings left out take the base's own defaults."""
    job = studio.training.start(**values)
    if later:
        return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
    job = show.run(studio, job, quiet=as_json)
    adapter = next(a for a in studio.models.adapters() if a.run_id == job.run_id)
    file = studio.workspace.resolve(adapter.path)
    return Answer(
        {"job": job, "adapter": adapter, "file": file}, f"LoRA {adapter.id}: {adapter.name}\n{file}"
    )


@command(generate_group, "image", request=DrawImages, argument="prompt", by_base=BY_BASE_DRAWING)
def generate_image(
    studio: Studio, values: dict[str, object], later: Later = False, as_json: bool = False
) -> Answer:
    """Draws pictures; settings left out take the base's own defaults."""
    job = studio.images.draw(**values)
    if later:
        return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
    job = show.run(studio, job, quiet=as_json)
    items = sorted(studio.library.items(job_id=job.id), key=lambda item: item.id)
    files = [studio.library.media("item", item.id) for item in items]
    return Answer({"job": job, "items": items, "files": files}, "\n".join(map(str, files)))
