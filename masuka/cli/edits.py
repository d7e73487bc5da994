"""masuka dataset edit, cut-out, …: single pictures, and what a trainer sees of a set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.datasets.crops import Part
from masuka.errors import InvalidInput
from masuka.requests.edits import Augment, PictureEdits
from masuka.studio import Studio

PARTS = ", ".join(get_args(Part))
Ids = Annotated[list[int], typer.Argument(help="The numbers of the pictures.")]


def add_to(group: typer.Typer) -> None:
    """Adds these commands to the group of data sets."""
    command(group, "edit", request=PictureEdits)(edit)
    command(group, "convert")(convert)
    command(group, "cut-out")(cut_out)
    command(group, "faces")(faces)
    command(group, "augment", request=Augment)(augment)
    command(group, "sheet")(sheet)


def edit(
    studio: Studio,
    picture_ids: Ids,
    values: dict[str, object],
    to: Annotated[str, typer.Option(help=f"Crop to one of: {PARTS}.")] = "",
    mask_file: Annotated[Path | None, typer.Option(help="A PNG, white where the picture counts.")] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Show them as they came; a painted mask stays.")] = False,
) -> Answer:
    """Changes how pictures are shown and learnt from; their files stay as they are."""
    if not (values or to or mask_file or reset):
        raise InvalidInput("Nothing was asked for.", "Give --turn, --crop, --to or another change.")
    if reset:
        studio.edits.reset(picture_ids)
    for picture_id in picture_ids if values else ():
        studio.edits.set(picture_id, **values)
    if mask_file is not None:
        png = mask_file.expanduser().read_bytes()
        for picture_id in picture_ids:
            studio.edits.set_mask(picture_id, png)
    changed = studio.edits.crop_to(picture_ids, to) if to else len(picture_ids)  # type: ignore[arg-type]
    recipes = {picture_id: studio.datasets.picture(picture_id).edits for picture_id in picture_ids}
    return Answer({"changed": changed, "edits": recipes}, f"{_pictures(changed)} changed.")


def convert(studio: Studio, picture_id: int, to: Path) -> Answer:
    """Writes a picture as edited to a file; the ending says how: png, jpg or webp."""
    file = studio.edits.convert(picture_id, to.expanduser().resolve())
    return Answer({"file": str(file)}, str(file))


def cut_out(
    studio: Studio,
    picture_ids: Ids,
    background: Annotated[str, typer.Option(help="What is behind then: removed, white or grey.")] = "removed",
    as_json: bool = False,
) -> Answer:
    """Cuts the characters of pictures out of their backgrounds, by colour."""
    job = show.run(studio, studio.edits.cut_out(picture_ids, background), quiet=as_json)  # type: ignore[arg-type]
    result = job.result or {}
    refused = [f"{r['name']}: {r['message']} {r['hint']}" for r in result.get("refused", [])]
    lines = [f"{_pictures(result.get('cut_out', 0))} cut out.", *refused]
    return Answer({"job_id": job.id, **result}, "\n".join(lines))


def faces(
    studio: Studio,
    picture_ids: Ids,
    download: Annotated[bool, typer.Option("--download", help="Fetch YuNet first, 0.2 MB.")] = False,
    as_json: bool = False,
) -> Answer:
    """Looks for the faces of pictures again, thoroughly."""
    if download and studio.edits.detector().can_download:
        show.run(studio, studio.edits.download_detector(), quiet=as_json)
    job = show.run(studio, studio.edits.find_faces(picture_ids), quiet=as_json)
    result = job.result or {}
    text = f"A face in {_pictures(result.get('with_face', 0))}, by {studio.edits.detector().title}."
    return Answer({"job_id": job.id, **result}, text)


def augment(studio: Studio, dataset_id: int, values: dict[str, object]) -> Answer:
    """Shows or changes how a training varies the pictures of a data set."""
    varied = studio.edits.set_augment(dataset_id, **values) if values else studio.edits.augment(dataset_id)
    told = [f"{name.replace('_', ' ')}: {value}" for name, value in varied.augment.as_dict().items()]
    head = "The pictures are varied." if varied.augment.is_on else "The pictures are taken as they are."
    data = {**varied.augment.as_dict(), "warning": varied.warning}
    return Answer(data, "\n".join([head, *told, *([varied.warning] if varied.warning else [])]))


def sheet(
    studio: Studio,
    dataset_id: int,
    base: Annotated[str, typer.Option(help="The base that will learn.")] = "pocket",
    resolution_px: Annotated[int, typer.Option(help="The resolution of the training.")] = 128,
) -> Answer:
    """Lists what a trainer sees: bucket, scale and caption of each picture."""
    rows = studio.edits.sheet(dataset_id, base, resolution_px)
    lines = [(r.picture_id, f"{r.width} × {r.height}", f"{r.scale:.2f}", r.caption) for r in rows]
    return Answer(rows, show.table(("id", "bucket", "scale", "caption"), lines, empty="No pictures yet."))


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
