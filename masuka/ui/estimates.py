"""What a press of a button will cost, said before: measured here, never guessed."""

from __future__ import annotations

from masuka.studio import Studio
from masuka.studio.models import Base
from masuka.ui import forecast
from masuka.ui.words import duration, gib, seconds_between


def training_sentence(studio: Studio, base: str, dataset_id: int) -> str:
    """Steps and pictures, with the time that such a training took on this machine."""
    return forecast.time_sentence(studio.training.plan(base=base, dataset_id=dataset_id))


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
