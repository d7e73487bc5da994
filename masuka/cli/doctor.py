"""masuka dataset check, mend, keep-best, likeness: what the doctor finds and does."""

from __future__ import annotations

import typer

from masuka.cli import show
from masuka.cli.command import Answer, command
from masuka.datasets import lint
from masuka.requests.doctor import KeepBest, LookAfter
from masuka.studio import Studio


def add_to(group: typer.Typer) -> None:
    """Adds the commands to those of data sets."""
    command(group, "check", request=LookAfter)(check)
    command(group, "mend")(mend)
    command(group, "keep-best", request=KeepBest)(keep_best)
    command(group, "likeness")(likeness)


def check(studio: Studio, dataset_id: int, values: dict[str, object], as_json: bool = False) -> Answer:
    """Looks at every picture and caption and says what is wrong with them."""
    dataset = studio.datasets.get(dataset_id)
    if values:
        strictness = str(values.get("strictness", dataset.options.get("strictness", "basic")))
        resolution_px = values.get("resolution_px")
        studio.doctor.set_strictness(
            dataset_id, strictness, resolution_px=None if resolution_px is None else int(str(resolution_px))
        )
    if dataset.picture_count:
        show.run(studio, studio.doctor.look(dataset_id), quiet=as_json)
    problems = list(studio.datasets.check(dataset_id))
    report, captions = studio.doctor.report(dataset_id), studio.doctor.lint(dataset_id)
    lines = problems + report.sentences + lint.summary(captions)
    text = "\n".join(lines or ["Nothing stands in the way."])
    data = {"problems": problems, "report": report, "captions": captions}
    return Answer(data, "\n".join([text, *report.notes]), code=1 if problems else 0)


def mend(studio: Studio, dataset_id: int, kind: str) -> Answer:
    """Applies the usual remedy to all pictures with one finding; deletes nothing."""
    remedy = studio.doctor.remedies(kind)[0]
    changed = studio.doctor.apply(dataset_id, kind)
    done = "set aside" if remedy.does == "aside" else "cropped by recipe"
    return Answer({"changed": changed, "does": remedy.does}, f"{changed} pictures {done}.")


def keep_best(studio: Studio, dataset_id: int, values: dict[str, object]) -> Answer:
    """Sets all but the best, most different pictures aside; deletes nothing."""
    count = int(str(values.get("count", 25)))
    aside = studio.doctor.keep_best(dataset_id, count)
    kept = studio.doctor.report(dataset_id).kept
    return Answer({"set_aside": aside, "kept": kept}, f"{kept} pictures stay, {aside} were set aside.")


def likeness(studio: Studio, as_json: bool = False) -> Answer:
    """Downloads the model by which the odd one out is told by likeness."""
    job = show.run(studio, studio.doctor.download_embedder(), quiet=as_json)
    return Answer({"job_id": job.id, **(job.result or {})}, "It is here. Check a data set to use it.")
