"""The job that looks for faces again, thoroughly, with the best detector that is here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from masuka.datasets import faces, pool
from masuka.errors import Conflict, MasukaError
from masuka.jobs.reporter import Reporter

DECODED_PX = 1280


def work(item: Mapping[str, Any]) -> dict[str, Any]:
    """The faces of one stored picture; runs in a process of the pool."""
    with Image.open(item["file"]) as opened:
        opened.draft("RGB", (DECODED_PX, DECODED_PX))
        small = opened.convert("RGB")
    found = faces.detect(small, models=Path(item["models"]), thorough=True)
    return {"faces": [face.as_list() for face in found]}


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """In how many pictures a face was found, and what could not be read.

    Raises Conflict where there is no detector.
    """
    models, pictures = Path(params["models"]), params["pictures"]
    problem = faces.why_none(models)
    if problem:
        raise Conflict(problem)
    reporter.stage(f"Looking for faces with {faces.which(models)}")
    items = [{**p, "models": params["models"]} for p in pictures]
    with_face, unreadable = 0, []
    processes = 0 if len(items) < 5 else None
    for number, result in enumerate(pool.each(work, items, reporter=reporter, processes=processes), 1):
        picture = pictures[number - 1]
        if isinstance(result, MasukaError):
            unreadable.append({"name": picture["name"], **result.as_dict()})
        else:
            reporter.tell("faces", picture_id=picture["id"], **result)
            with_face += bool(result["faces"])
        reporter.progress(number, len(pictures))
    return {"looked_at": len(pictures), "with_face": with_face, "unreadable": unreadable}
