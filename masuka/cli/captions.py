"""masuka dataset caption …: captions by a model, their tags, and going back."""

from __future__ import annotations

from typing import Any

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.requests.captions import CaptionPictures
from masuka.studio import Studio

group = typer.Typer(help="Captions: written by a model, their tags, and going back.", no_args_is_help=True)


@command(group, "captioners")
def captioners(studio: Studio) -> Answer:
    """Lists who can write captions, and what is missing where one cannot."""
    found = studio.captions.captioners()
    rows = [(c.name, c.title, "yes" if c.ready else "no", c.licence, c.why_not or c.about) for c in found]
    return Answer(found, show.table(("name", "title", "ready", "licence", "about"), rows))


@command(group, "download")
def download(studio: Studio, captioner: str, as_json: bool = False) -> Answer:
    """Fetches a captioner from Hugging Face."""
    job = show.run(studio, studio.captions.download(captioner), quiet=as_json)
    return Answer({"job_id": job.id, **(job.result or {})}, f"{captioner} is here.")


@command(group, "write", request=CaptionPictures)
def write(studio: Studio, dataset_id: int, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Has captions written; what people wrote is worked in."""
    values["picture_ids"] = tuple(int(str(id)) for id in _given(values, "picture_ids"))
    values["constant"] = tuple(str(trait) for trait in _given(values, "constant"))
    job = show.run(studio, studio.captions.start(dataset_id, **values), quiet=as_json)
    result = job.result or {}
    lines = [f"{result.get('captioned', 0)} captions written, {result.get('failed', 0)} pictures left out."]
    left_out = studio.captions.table(dataset_id, only="problem")
    lines += [f"{p.original_name}: {p.caption_problem}" for p in left_out]
    return Answer({"job_id": job.id, **result}, "\n".join(lines))


@command(group, "find")
def find(studio: Studio, dataset_id: int, text: str = "", only: str = "kept") -> Answer:
    """Lists captions that hold a text; --only empty, problem, aside or all."""
    found = studio.captions.table(dataset_id, search=text, only=only, limit=1000)
    rows = [(p.id, p.original_name, p.caption_from, p.caption_problem or p.caption) for p in found]
    return Answer(found, show.table(("id", "file", "from", "caption"), rows, empty="No such caption."))


@command(group, "tags")
def tags(studio: Studio, dataset_id: int) -> Answer:
    """Counts what stands between commas."""
    counts = studio.captions.statistics(dataset_id)
    return Answer(dict(counts), show.table(("tag", "captions"), counts, empty="No captions yet."))


@command(group, "always")
def always(studio: Studio, dataset_id: int) -> Answer:
    """Lists what nearly every caption says: the trigger word may stand for it."""
    found = studio.captions.always(dataset_id)
    return Answer(found, "\n".join(found) or "Nothing is the same in nearly all captions.")


@command(group, "rename-tag")
def rename_tag(studio: Studio, dataset_id: int, tag: str, to: str) -> Answer:
    """Gives a tag another name in every caption; an empty one removes it."""
    changed = studio.captions.rename_tag(dataset_id, tag, to)
    return Answer({"changed": changed}, f"{changed} captions changed.")


@command(group, "remove-tag")
def remove_tag(studio: Studio, dataset_id: int, tag: str) -> Answer:
    """Takes a tag out of every caption."""
    changed = studio.captions.remove_tag(dataset_id, tag)
    return Answer({"changed": changed}, f"{changed} captions changed.")


@command(group, "even-out")
def even_out(studio: Studio, dataset_id: int) -> Answer:
    """Uses one word for one thing in the whole set."""
    changed = studio.captions.even_out(dataset_id)
    return Answer({"changed": changed}, f"{changed} captions changed.")


@command(group, "undo")
def undo(studio: Studio, dataset_id: int) -> Answer:
    """Takes the last change of captions back."""
    told = studio.captions.undo(dataset_id)
    return Answer({"undone": told}, told)


def _given(values: dict[str, Any], name: str) -> list[Any]:
    given = values.get(name)
    return list(given) if isinstance(given, list) else []
