"""masuka train report, compare, export, recipe, save-recipe: what trainings came to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.cli.make import Later
from masuka.errors import NotFound
from masuka.studio import Studio

SHOWN = ("likeness", "validation", "prompt", "variety")


def add_to(group: typer.Typer) -> None:
    """Adds the commands to `masuka train`."""
    command(group, "report")(report_of_training)
    command(group, "compare")(compare_trainings)
    command(group, "export")(export_checkpoint)
    command(group, "save-recipe")(save_recipe)
    command(group, "recipe")(train_by_recipe)


def report_of_training(studio: Studio, run_id: int) -> Answer:
    """Says how good a training is: its scores, its best checkpoint and weight."""
    run, scores = studio.training.run(run_id), studio.reports.scores(run_id)
    found: dict[tuple[int, float], dict[str, float]] = {}
    for score in scores:
        found.setdefault((score.step, score.weight), {})[score.name] = score.value
    rows = [
        (step, f"{weight:g}", *(f"{values[name]:.3f}" if name in values else "" for name in SHOWN))
        for (step, weight), values in found.items()
    ]
    table = show.table(("step", "weight", *SHOWN), rows, empty="Nothing was scored.")
    said = [*run.report.get("sentences", []), *filter(None, [run.report.get("overfit")])]
    data = {"report": run.report, "scores": scores, "checkpoints": studio.reports.checkpoints(run_id)}
    return Answer(data, "\n".join([table, *said]))


def compare_trainings(studio: Studio, run_ids: list[int]) -> Answer:
    """Says in which settings trainings differ, and what each came to."""
    runs = [studio.training.run(run_id) for run_id in run_ids]
    differences = studio.reports.differences(run_ids)
    rows = [(d.name, *(str(value) for value in d.values)) for d in differences]
    for name in ("best_step", "best_weight"):
        rows.append((name, *(str(run.report.get(name, "")) for run in runs)))
    head = ("setting", *(run.name for run in runs))
    return Answer({"differences": differences, "reports": [run.report for run in runs]}, show.table(head, rows))


def export_checkpoint(
    studio: Studio,
    run_id: int,
    step: Annotated[int, typer.Option(help="The step of the checkpoint.")],
    later: Later = False,
    as_json: bool = False,
) -> Answer:
    """Makes a LoRA of a checkpoint, beside the one that the training made."""
    job = studio.reports.export(run_id, step)
    if not later:
        job = show.run(studio, job, quiet=as_json)
    return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")


def save_recipe(
    studio: Studio,
    run_id: int,
    file: Annotated[Path | None, typer.Argument(help="Where to; printed if left out.")] = None,
    form: Annotated[Literal["yaml", "json"], typer.Option(help="How it is written.")] = "yaml",
) -> Answer:
    """Saves all settings of a training, to be kept, passed on and run again."""
    text = studio.reports.recipe(run_id, form)
    if file is None:
        return Answer({"recipe": text}, text.rstrip())
    file.write_text(text, encoding="utf-8")
    return Answer({"file": file}, str(file))


def train_by_recipe(
    studio: Studio,
    file: Annotated[Path, typer.Argument(help="A recipe, YAML or JSON.")],
    dataset: Annotated[int, typer.Option(help="The data set to learn from.")],
    later: Later = False,
    as_json: bool = False,
) -> Answer:
    """Trains with the settings of a recipe's file."""
    if not file.is_file():
        raise NotFound(f"There is no file {file.name}.", "Check where it lies.")
    job = studio.reports.train_by(file.read_text(encoding="utf-8"), dataset_id=dataset)
    if not later:
        job = show.run(studio, job, quiet=as_json)
    return Answer({"job": job}, f"Job {job.id}: {job.title} is {job.state}.")
