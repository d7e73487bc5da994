"""masuka adapter …: LoRA files, other forms of them, versions, from elsewhere and to the Hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.requests.adapters import (
    BakeAdapter,
    BringAdapter,
    ConvertAdapter,
    ExtractAdapter,
    MergeAdapters,
    PushAdapter,
    ResizeAdapter,
)
from masuka.store.jobs import Job
from masuka.studio import Studio

group = typer.Typer(help="LoRA files: inspect, convert, merge, resize, bake, versions, push.", no_args_is_help=True)
_BLOCKS_SHOWN = 100


@command(group, "list")
def list_all(studio: Studio, character_id: int | None = None) -> Answer:
    """Lists the LoRAs with their versions, hidden ones too."""
    found = studio.adapters.versions(character_id=character_id)
    rows = [
        (v.adapter.id, v.adapter.name, v.adapter.base, v.run_name, v.step or "",
         "" if v.likeness is None else f"{v.likeness:.3f}", "used" if v.used else "hidden" if v.hidden else "")
        for v in found
    ]  # fmt: skip
    heads = ("id", "LoRA", "base", "training", "step", "likeness", "")
    return Answer(found, show.table(heads, rows, empty="No LoRAs yet."))


@command(group, "inspect")
def inspect(studio: Studio, adapter_id: int) -> Answer:
    """Says what a LoRA's file is, who reads it, and where it changes most."""
    found = studio.adapters.inspect(adapter_id, measure=True)
    lines = [
        f"{found.title}: {found.kind} for {found.base}, {found.layers} layers, "
        f"rank {', '.join(map(str, found.ranks)) or 'of its own'}, {', '.join(found.dtypes)}.",
        *(reading.sentence for reading in found.readers),
    ]
    if found.trigger:
        lines.insert(1, f"Called by: {found.trigger}.")
    largest = sorted(found.norms.items(), key=lambda pair: -pair[1])[:_BLOCKS_SHOWN]
    rows = [(block, f"{value:.4g}") for block, value in largest]
    if rows:
        lines += ["", show.table(("block", "length of its change"), rows)]
    return Answer(found, "\n".join(lines))


@command(group, "convert", request=ConvertAdapter, omit=("adapter_id",))
def convert(studio: Studio, adapter_id: int, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Writes a LoRA with the names that other tools read, beside its own file."""
    job = show.run(studio, studio.adapters.convert({**values, "adapter_id": adapter_id}), quiet=as_json)
    result = job.result or {}
    return Answer({"job_id": job.id, **result}, "\n".join([str(result.get("file")), *_told(result)]))


@command(group, "resize", request=ResizeAdapter, omit=("adapter_id",))
def resize(studio: Studio, adapter_id: int, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Makes a LoRA of another rank and says what it lost."""
    return _made(show.run(studio, studio.adapters.resize({**values, "adapter_id": adapter_id}), quiet=as_json))


@command(group, "merge", request=MergeAdapters, omit=("adapter_ids", "weights"))
def merge(
    studio: Studio,
    adapters: Annotated[list[str], typer.Argument(help="LoRAs by id, each with its weight: 3:0.8 5:1.")],
    values: dict[str, Any],
    as_json: bool = False,
) -> Answer:
    """Makes one LoRA of several, each as much as it counts."""
    pairs = [part.partition(":") for part in adapters]
    given = {
        "adapter_ids": [identifier for identifier, _, _ in pairs],
        "weights": [weight or 1.0 for _, _, weight in pairs],
    }
    return _made(show.run(studio, studio.adapters.merge({**values, **given}), quiet=as_json))


@command(group, "extract", request=ExtractAdapter)
def extract(studio: Studio, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Makes a LoRA of what one base knows beyond another."""
    return _made(show.run(studio, studio.adapters.extract(values), quiet=as_json))


@command(group, "bake", request=BakeAdapter, omit=("adapter_id",))
def bake(studio: Studio, adapter_id: int, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Makes a base of your own that has the LoRA inside."""
    job = show.run(studio, studio.adapters.bake({**values, "adapter_id": adapter_id}), quiet=as_json)
    base = str(job.request.get("base", ""))
    return Answer({"job_id": job.id, "base": base, **(job.result or {})}, f"The base {base} is here.")


@command(group, "import", request=BringAdapter, argument="path")
def bring(studio: Studio, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Takes in a LoRA file from elsewhere, for the base that it fits."""
    return _made(show.run(studio, studio.adapters.bring(values), quiet=as_json))


@command(group, "push", request=PushAdapter, omit=("adapter_id",))
def push(studio: Studio, adapter_id: int, values: dict[str, Any], as_json: bool = False) -> Answer:
    """Puts a LoRA on Hugging Face with a card, private unless you say otherwise."""
    job = show.run(studio, studio.adapters.push({**values, "adapter_id": adapter_id}), quiet=as_json)
    result = job.result or {}
    return Answer({"job_id": job.id, **result}, f"It is at {result.get('url', '')}.")


@command(group, "use")
def use(studio: Studio, adapter_id: int) -> Answer:
    """Makes this version the one that is used."""
    adapter = studio.adapters.use(adapter_id)
    return Answer(adapter, f"{adapter.name} is the one that is used.")


@command(group, "hide")
def hide(studio: Studio, adapter_id: int) -> Answer:
    """Takes a version out of the lists; its files stay."""
    adapter = studio.adapters.hide(adapter_id)
    return Answer(adapter, f"{adapter.name} is hidden. masuka adapter show {adapter.id} brings it back.")


@command(group, "show")
def show_again(studio: Studio, adapter_id: int) -> Answer:
    """Brings a hidden version back into the lists."""
    adapter = studio.adapters.show(adapter_id)
    return Answer(adapter, f"{adapter.name} is in the lists again.")


def _made(job: Job) -> Answer:
    result = job.result or {}
    return Answer({"job_id": job.id, **result}, "\n".join([str(result.get("file")), *_told(result)]))


def _told(result: dict[str, Any]) -> list[str]:
    kept = result.get("kept")
    lost = [f"It keeps {100 * kept:.1f} % of the change."] if isinstance(kept, float) and kept < 0.9995 else []
    return [*lost, *dict(result.get("readers") or {}).values()]
