"""masuka models …: bases on this machine, more of them from elsewhere, and the LoRAs trained here."""

from __future__ import annotations

from typing import Annotated

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.models import licences
from masuka.models.civitai import HOSTS
from masuka.models.tiers import TASKS
from masuka.pocket import MODEL_ID
from masuka.requests.base import Param, show_number
from masuka.store.jobs import Job
from masuka.studio import Studio

group = typer.Typer(help="Models: bases and trained LoRAs.", no_args_is_help=True)
Later = Annotated[bool, typer.Option("--later", help="Only queue it; the app runs it.")]
GIB = 2**30


@command(group, "list")
def list_all(studio: Studio) -> Answer:
    """Lists the bases and the LoRAs."""
    bases, adapters = studio.models.bases(), studio.models.adapters()
    base_rows = [
        (b.id, b.title, "here" if b.folder else f"{b.size_gib:.3g} GiB to download",
         licences.sentence(b.licence, b.commercial)) for b in bases
    ]  # fmt: skip
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
    lines = [f"{about.title}: {about.about}", f"Licence: {licences.sentence(about.licence, about.commercial)}"]
    lines += [studio.advice.fit(base, task).sentence for task in TASKS]
    for task, known in settings.items():
        rows = [(p.name, _default(p), p.range_sentence) for p in known.values()]
        lines += ["", f"masuka {task}", show.table(("setting", "default", "range"), rows)]
    return Answer({"base": about, "settings": settings}, "\n".join(lines))


@command(group, "recommend")
def recommend(studio: Studio) -> Answer:
    """Names the bases that suit this machine, each with how it fits."""
    machine = studio.advice.machine()
    found = studio.advice.recommended(machine)
    rows = [(TASKS[a.task], a.entry.id, a.entry.title, a.fit.sentence) for a in found]
    data = [{"task": a.task, "base": a.entry.id, "sentence": a.fit.sentence, "need_bytes": a.fit.need_bytes} for a in found]
    tier = studio.advice.tier(machine)
    return Answer({"tier": tier, "recommended": data}, f"{tier}\n{show.table(('for', 'base', 'title', 'fits'), rows)}")


@command(group, "search")
def search(
    studio: Studio,
    query: Annotated[str, typer.Argument(help="What to look for.")],
    civitai: Annotated[bool, typer.Option("--civitai", help="At CivitAI instead of Hugging Face.")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="LoRAs instead of bases.")] = False,
    nsfw: Annotated[bool, typer.Option("--nsfw", help="Also what is not for all eyes.")] = False,
) -> Answer:
    """Looks for models on Hugging Face or CivitAI."""
    found = studio.sources.search(
        query, where="civitai" if civitai else "hub", kind="lora" if lora else "base", nsfw=nsfw
    )
    rows = [(o.id, o.title, o.author, o.fits or f"({o.made_for})", o.downloads, licences.sentence(o.licence, o.commercial)) for o in found]
    table = show.table(("id", "title", "by", "for", "downloads", "licence"), rows, empty="Nothing was found.")
    return Answer(found, table)


@command(group, "add")
def add(
    studio: Studio,
    source: Annotated[str, typer.Argument(help="A repository of Hugging Face, a folder, a safetensors file, or a version of CivitAI.")],
    name: Annotated[str, typer.Option(help="What it is called here.")] = "",
    revision: Annotated[str, typer.Option(help="The version of a repository.")] = "",
    link: Annotated[bool, typer.Option("--link", help="Leave a folder where it is.")] = False,
    later: Later = False,
    as_json: bool = False,
) -> Answer:
    """Brings a base of your own."""
    sources = studio.sources
    if studio.workspace.resolve(source).exists():
        job = sources.add_path(source, name=name, link=link)
    elif source.isdigit() or any(f"//{host}/" in source for host in HOSTS):
        job = sources.add_civitai(source, name=name)
    else:
        job = sources.add_repo(source, revision or None, name=name)
    return _brought(studio, job, later=later, as_json=as_json)


@command(group, "download")
def download(studio: Studio, base: str, later: Later = False, as_json: bool = False) -> Answer:
    """Downloads a base model."""
    return _brought(studio, studio.models.download(base), later=later, as_json=as_json)


@command(group, "rename")
def rename(studio: Studio, adapter_id: int, name: str) -> Answer:
    """Gives a LoRA another name."""
    adapter = studio.models.rename(adapter_id, name)
    return Answer(adapter, f"LoRA {adapter.id} is called {adapter.name}.")


@command(group, "delete")
def delete(
    studio: Studio,
    model: Annotated[str, typer.Argument(help="The number of a LoRA, or a base.")],
    yes: bool = False,
) -> Answer:
    """Deletes a LoRA or a base with its files; pictures drawn with it stay."""
    if model.isdigit():
        adapter = studio.models.adapter(int(model))
        if not yes:
            typer.confirm(f"Delete {adapter.name} and its files?", abort=True, err=True)
        studio.models.delete(adapter.id)
        return Answer({"deleted": adapter.id}, f"Deleted {adapter.name}.")
    base = studio.models.base(model)
    use = studio.models.uses().get(model)
    if not yes:
        kept = f" {len(use.adapters)} LoRAs of it stay but cannot draw without it." if use and use.adapters else ""
        typer.confirm(f"Delete {base.title} and its files?{kept}", abort=True, err=True)
    freed = studio.models.delete_base(model)
    return Answer({"deleted": model, "freed_bytes": freed}, f"Deleted {base.title}; {freed / GIB:.1f} GiB are free again.")


def _brought(studio: Studio, job: Job, *, later: bool, as_json: bool) -> Answer:
    """The job that brings a base, at its end unless it is left for later."""
    if later:
        return Answer(job, f"Job {job.id} is queued: {job.title}.")
    job = show.run(studio, job, quiet=as_json)
    base = studio.models.base(str(job.request["base"]))
    return Answer(job, f"{base.title} is here, as {base.id}.")


def _default(param: Param) -> str:
    value = param.default
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return show_number(value)
    return "" if value is None or value == () else str(value)
