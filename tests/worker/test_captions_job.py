"""A captioning job whose worker is killed goes on by itself, and pays for nothing twice."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import psutil
import pytest
from PIL import Image

from masuka import Settings, Studio
from masuka.pocket.world import character_scenes, draw
from tests.unit.test_studio_captions import put
from tests.vision_stand_in import KEY, running, said
from tests.worker.desk import workers_of

PICTURES, BATCH = 10, 4


@pytest.mark.slow
def test_killed_it_asks_only_about_what_is_left(settings: Settings) -> None:
    asked_about: list[tuple[int, ...]] = []
    settings = replace(settings, local_addresses=("127.0.0.1",))
    with Studio.open(settings, workers="processes") as studio:

        def answer(n: int, image: Image.Image) -> Any:
            asked_about.append(_mark(image))
            if n == BATCH + 1:
                pid = studio.jobs.get(job.id).pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
            return said("a robot in a park")

        dataset = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
        for number, scene in enumerate(character_scenes(7, PICTURES)):
            put(studio, dataset, draw(scene), f"robot-{number}.png")
        with running(answer) as service:
            studio.preferences.set_key("OPENAI_API_KEY", KEY, base_url=service.address)
            job = studio.captions.start(dataset.id, captioner="openai")
            done = studio.jobs.wait(job, timeout_s=300)
        captions = {picture.caption for picture in studio.datasets.every_picture(dataset.id)}
        studio._context.supervisor.stop(end_workers=True)  # type: ignore[union-attr]
    psutil.wait_procs(workers_of(settings), timeout=20)
    assert done.attempt == 2
    assert done.result == {"captioned": PICTURES, "failed": 0, "skipped": BATCH}
    first = set(asked_about[:BATCH])
    assert len(first) == BATCH and not first & set(asked_about[BATCH:])
    assert captions == {"a bolt7x robot in a park"}


def _mark(image: Image.Image) -> tuple[int, ...]:
    """What tells one picture from another."""
    return tuple(image.convert("L").resize((6, 6)).tobytes())
