"""masuka models …: bases on this machine and the LoRAs trained here."""

from __future__ import annotations

from typing import Annotated

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.pocket import MODEL_ID
from masuka.requests.base import Param, show_number
from masuka.studio import Studio

group = typer.Typer(help="Models: bases and trained LoRAs.", no_args_is_help=True)


@command(group, "list")
def list_all(studio: Studio) -> Answer:
    """Lists the bases and the LoRAs."""
    bases, adapters = studio.models.bases(), studio.models.adapters()
    base_rows = [
        (b.id, b.title, "here" if b.folder else f"{b.size_gib:.3g} GiB to download", b.licence) for b in bases
    ]
    adapter_rows = [(a.id, a.name, a.base, a.trigger_word, a.path) for a in adapters]
    text = show.table(("base", "title", "where", "licence"), base_rows)
    text += "\n\n" + show.table(("id", "LoRA", "base", "trigger", "file"), adapter_rows, empty="No LoRAs yet.")
    return Answer({"bases": bases, "adapters": adapters}, text)


@command(group, "show")
def show_one(
    studio: Studio, base: Annotated[str, typer.Argument(help="A base model.")] = MODEL_ID
) -> Answer:
    """Shows a base with the settings it trains and draws with."""
    about = studio.models.base(base)
    settings = {"train image": studio.training.defaults(base), "generate image": studio.images.defaults(base)}
    lines = [f"{about.title}: {about.about}", f"Licence: {about.licence}"]
    for task, known in settings.items():
        rows = [(p.name, _default(p), p.range_sentence) for p in known.values()]
        lines += ["", f"masuka {task}", show.table(("setting", "default", "range"), rows)]
    return Answer({"base": about, "settings": settings}, "\n".join(lines))


@command(group, "download")
def download(
    studio: Studio,
    base: str,
    later: Annotated[bool, typer.Option("--later", help="Only queue it; the app runs it.")] = False,
    as_json: bool = False,
) -> Answer:
    """Downloads a base model."""
    job = studio.models.download(base)
    if later:
        return Answer(job, f"Job {job.id} is queued: {job.title}.")
    job = show.run(studio, job, quiet=as_json)
    return Answer(job, f"{studio.models.base(base).title} is here.")


@command(group, "rename")
def rename(studio: Studio, adapter_id: int, name: str) -> Answer:
    """Gives a LoRA another name."""
    adapter = studio.models.rename(adapter_id, name)
    return Answer(adapter, f"LoRA {adapter.id} is called {adapter.name}.")


@command(group, "delete")
def delete(studio: Studio, adapter_id: int, yes: bool = False) -> Answer:
    """Deletes a LoRA with its files; pictures drawn with it stay."""
    adapter = studio.models.adapter(adapter_id)
    if not yes:
        typer.confirm(f"Delete {adapter.name} and its files?", abort=True, err=True)
    studio.models.delete(adapter_id)
    return Answer({"deleted": adapter_id}, f"Deleted {adapter.name}.")


def _default(param: Param) -> str:
    value = param.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return show_number(value)
    return "" if value is None or value == () else str(value)
