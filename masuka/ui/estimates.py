"""What a press of a button will cost, said before: measured here, never guessed."""

from __future__ import annotations

from masuka.studio import Studio
from masuka.studio.models import Base
from masuka.ui.words import duration, gib, plural, seconds_between


def training_sentence(studio: Studio, base: str, pictures: int) -> str:
    """Steps and pictures, with the time that such a training took on this machine."""
    steps = studio.training.defaults(base)["steps"].default
    text = f"{plural(int(steps), 'step')} on {plural(pictures, 'picture')}"
    pace = _pace(studio, base)
    if pace is None:
        return f"{text}. How long it takes shows after the first steps."
    return f"{text}, about {duration(pace * int(steps))} at the pace of the last training."


def drawing_sentence(studio: Studio, base: str) -> str:
    """How long a picture took the last time; '' when nothing was drawn yet."""
    for job in studio.jobs.list(kind="draw_images", states=["done"], limit=10):
        took = seconds_between(job.started_at, job.finished_at)
        count = int((job.result or {}).get("items", 0) or 0)
        if took and count and job.request.get("base") == base:
            return f"About {duration(max(1, took / count))} a picture, the last time."
    return ""


def base_choices(bases: list[Base], chosen: str) -> list[tuple[str, str]]:
    """Bases to choose from: those that are here, and the chosen one with its size.

    All others are on the Models page.
    """
    named = [(b, f"{b.title} (yours)" if b.own else b.title) for b in bases if b.folder or b.id == chosen]
    return [(b.id, name if b.folder else f"{name} (not here, {gib(b.size_gib)})") for b, name in named]


def _pace(studio: Studio, base: str) -> float | None:
    """Seconds a step, whole run included, of the last finished training on this base."""
    for job in studio.jobs.list(kind="train_image", states=["done"], limit=10):
        steps = (job.result or {}).get("steps") or job.request.get("steps")
        took = seconds_between(job.started_at, job.finished_at)
        if job.request.get("base") == base and took and steps:
            return took / float(steps)
    return None
