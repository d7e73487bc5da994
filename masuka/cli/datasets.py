"""masuka dataset …: pictures with captions, from files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from masuka.cli import captions as caption_commands
from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.datasets.sidecars import read_text
from masuka.requests.datasets import CreateDataset, EditCaptions
from masuka.requests.exchange import PushDataset
from masuka.store.jobs import Job
from masuka.studio import Studio

group = typer.Typer(help="Data sets: pictures and their captions.", no_args_is_help=True)
group.add_typer(caption_commands.group, name="caption")


@command(group, "create", request=CreateDataset, argument="name")
def create(studio: Studio, values: dict[str, object]) -> Answer:
    """Creates an empty data set."""
    dataset = studio.datasets.create(**values)
    return Answer(dataset, f"Data set {dataset.id}: {dataset.name}.")


@command(group, "add")
def add(
    studio: Studio,
    dataset_id: int,
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, zip or tar archives.")],
    as_json: bool = False,
) -> Answer:
    """Takes pictures in, with the captions that lie beside them."""
    absolute = [str(path.expanduser().resolve()) for path in paths]
    job = show.run(studio, studio.datasets.add_pictures(dataset_id, absolute), quiet=as_json)
    return _added(job)


@command(group, "add-links")
def add_links(
    studio: Studio,
    dataset_id: int,
    file: Annotated[Path, typer.Argument(help="A text file with one link a line.")],
    as_json: bool = False,
) -> Answer:
    """Fetches the pictures behind a list of links of the public web."""
    links = read_text(file.expanduser().read_bytes())
    return _added(show.run(studio, studio.datasets.add_links(dataset_id, links), quiet=as_json))


@command(group, "add-hub")
def add_hub(
    studio: Studio,
    dataset_id: int,
    repo: Annotated[str, typer.Argument(help="The data set on Hugging Face, owner/name.")],
    revision: str = "",
    as_json: bool = False,
) -> Answer:
    """Takes in the pictures of a data set of Hugging Face, with their captions."""
    job = studio.datasets.add_from_hub(dataset_id, repo, revision or None)
    return _added(show.run(studio, job, quiet=as_json))


@command(group, "samples")
def samples(
    studio: Studio, dataset_id: int, seed: int = 7, count: int = 20, as_json: bool = False
) -> Answer:
    """Adds pictures of a little robot, to try things with."""
    job = show.run(studio, studio.datasets.add_samples(dataset_id, seed=seed, count=count), quiet=as_json)
    return _added(job)


@command(group, "list")
def list_all(studio: Studio) -> Answer:
    """Lists the data sets."""
    found = studio.datasets.list()
    rows = [(d.id, d.name, d.trigger_word, d.class_word, d.picture_count) for d in found]
    return Answer(found, show.table(("id", "name", "trigger", "class", "pictures"), rows, empty="No data sets yet."))


@command(group, "captions")
def captions(studio: Studio, dataset_id: int) -> Answer:
    """Lists the pictures of a data set with their captions."""
    pictures = studio.datasets.every_picture(studio.datasets.get(dataset_id).id)
    rows = [(p.id, p.original_name, f"{p.width} × {p.height}", p.caption) for p in pictures]
    return Answer(pictures, show.table(("id", "file", "size", "caption"), rows, empty="No pictures yet."))


@command(group, "edit-captions", request=EditCaptions, omit=("picture_ids",))
def edit_captions(studio: Studio, dataset_id: int, values: dict[str, object]) -> Answer:
    """Changes every caption of a data set at once."""
    chosen = tuple(p.id for p in studio.datasets.every_picture(studio.datasets.get(dataset_id).id))
    changed = studio.datasets.edit_captions(picture_ids=chosen, **values) if chosen else 0
    return Answer({"changed": changed}, f"{changed} captions changed.")


@command(group, "export")
def export(
    studio: Studio,
    dataset_id: int,
    to: Path,
    layout: Annotated[str, typer.Option(help="zip, kohya or imagefolder.")] = "zip",
) -> Answer:
    """Writes a zip with the pictures that are not set aside, and their captions."""
    file = studio.datasets.export(dataset_id, to.expanduser().resolve(), layout=layout)
    return Answer({"file": str(file)}, str(file))


@command(group, "push", request=PushDataset, omit=("dataset_id",))
def push(studio: Studio, dataset_id: int, values: dict[str, object], as_json: bool = False) -> Answer:
    """Puts the pictures on Hugging Face, private unless you say otherwise."""
    given = PushDataset.parse({**values, "dataset_id": dataset_id})
    job = show.run(
        studio,
        studio.datasets.push(
            dataset_id, given.repo, given.private, licence=given.licence, consent=given.consent
        ),
        quiet=as_json,
    )
    result = job.result or {}
    return Answer({"job_id": job.id, **result}, f"{result.get('pictures', 0)} pictures are at {result.get('url', '')}.")


@command(group, "delete")
def delete(studio: Studio, dataset_id: int, yes: bool = False) -> Answer:
    """Deletes a data set with its pictures; LoRAs that learnt from it stay."""
    dataset = studio.datasets.get(dataset_id)
    if not yes:
        typer.confirm(f"Delete {dataset.name} and its {dataset.picture_count} pictures?", abort=True, err=True)
    studio.datasets.delete(dataset_id)
    return Answer({"deleted": dataset_id}, f"Deleted {dataset.name}.")


def _added(job: Job) -> Answer:
    result = job.result or {}
    refused = result.get("refused", [])
    lines = [f"{result.get('added', 0)} pictures added, {result.get('duplicates', 0)} were there already."]
    lines += [f"Refused {r['name']}: {r['message']} {r['hint']}".rstrip() for r in refused]
    return Answer({"job_id": job.id, **result}, "\n".join(lines))
