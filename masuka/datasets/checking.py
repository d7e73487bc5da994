"""The job that looks at every picture of a set: measures what is not measured, then compares.

Knows the file that the studio wrote for it, not the database. Nothing is changed or
deleted; scores and findings are told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from masuka.datasets import doctor, embedding, pool
from masuka.datasets.decoding import LARGEST_BYTES
from masuka.datasets.reading import read_file
from masuka.datasets.taking import seen
from masuka.errors import MasukaError
from masuka.jobs.reporter import Reporter


def write_rows(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """A file with the pictures of a set as lines of JSON.

    10,000 of them with their measures are too many for a job's params.
    """
    part = file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in rows)
    part.replace(file)


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """How many pictures were measured, those unreadable, findings of each kind."""
    with Path(params["rows"]).open(encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    measured, unreadable = _measure(rows, reporter)
    reporter.stage("Comparing")
    reporter.check()
    folder = Path(params["folder"])
    thumbnail = doctor.thumbnails_in(folder)
    found = doctor.examine(
        rows,
        strictness=params["strictness"],
        class_word=params["class_word"],
        resolution_px=int(params.get("resolution_px", 0)),
        thumbnail=thumbnail,
        vectors=_vectors(rows, params.get("embedder", ""), thumbnail, reporter),
        check=reporter.check,
    )
    reporter.tell("findings", rows=found, looked=[row["sha256"] for row in rows])
    counts: dict[str, int] = {}
    for finding in found:
        counts[finding["kind"]] = counts.get(finding["kind"], 0) + 1
    return {"looked_at": len(rows), "measured": measured, "unreadable": unreadable, "found": counts}


def _vectors(
    rows: list[dict[str, Any]], folder: str, thumbnail: doctor.Thumbnail, reporter: Reporter
) -> dict[str, embedding.Vectors]:
    """What the embedder in that folder makes of each picture; {} without one."""
    if not folder:
        return {}
    reporter.stage("Comparing who is shown")
    return embedding.embedded(rows, thumbnail, embedding.DinoV2(Path(folder)), check=reporter.check)


def measure_file(item: dict[str, Any]) -> dict[str, Any]:
    """The scores of a stored picture, in a process of the pool; raises InvalidInput."""
    _, _, about = seen(read_file(Path(item["file"]), LARGEST_BYTES))
    return {"scores": about["scores"]}


def _measure(rows: list[dict[str, Any]], reporter: Reporter) -> tuple[int, list[str]]:
    """Measures what has no scores of today; how many, and a sentence for each that failed."""
    new = [row for row in rows if not doctor.measured(row)]
    unreadable: list[str] = []
    if not new:
        return 0, unreadable
    reporter.stage("Measuring pictures")
    for number, (row, result) in enumerate(_results(new, reporter), start=1):
        if isinstance(result, MasukaError):
            unreadable.append(f"{row['name']}: {result}")
            reporter.note(unreadable[-1])
        else:
            row["scores"] = result["scores"]
            reporter.tell("scores", picture_id=row["id"], scores=row["scores"])
        reporter.progress(number, len(new))
    return len(new) - len(unreadable), unreadable


def _results(
    rows: list[dict[str, Any]], reporter: Reporter
) -> Iterator[tuple[dict[str, Any], pool.Result]]:
    items = ({"file": row["file"]} for row in rows)
    processes = 0 if len(rows) < 4 else None  # a few are done before a process has started
    return zip(rows, pool.each(measure_file, items, reporter=reporter, processes=processes), strict=True)
