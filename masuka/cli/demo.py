"""masuka demo: the main job, whole, on the built-in model.

Sample pictures of a robot nobody has drawn before → captions → LoRA training → new
pictures of that robot. Everything it makes stays in the workspace and in the app.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from masuka.cli import show
from masuka.pocket import MODEL_ID
from masuka.store.jobs import Job
from masuka.studio import Studio

NAME = "Bolt"
TRIGGER_WORD = "bolt7x"
CLASS_WORD = "robot"
SEED = 7
PICTURES = 20
DRAWN = 4
PROMPT = "a happy {trigger} robot wearing a crown in a meadow"


@dataclass(frozen=True)
class Made:
    """What the demo made, by file."""

    character: str
    dataset_id: int
    pictures: int
    captions: list[str]
    training_steps: int
    seconds: float
    adapter: Path
    images: list[Path]

    @property
    def text(self) -> str:
        """The files and what to do with them, for a person."""
        lines = [
            f"Made in {show.duration(self.seconds)}:",
            f"  data set   {self.pictures} pictures of {self.character}, captioned",
            f"  LoRA       {self.adapter}",
        ]
        lines += [f"  picture    {file}" for file in self.images]
        lines.append("See them in the app: python3 colab_setup.py")
        return "\n".join(lines)


def make(studio: Studio, *, quiet: bool = False) -> Made:
    """Runs the whole path in this process; raises what any of its jobs raises."""
    started_s = time.monotonic()
    name = free_name(studio)
    character = studio.characters.create(name=name, trigger_word=TRIGGER_WORD, class_word=CLASS_WORD)
    dataset = studio.datasets.create(
        name=name, trigger_word=TRIGGER_WORD, class_word=CLASS_WORD, character_id=character.id
    )
    _say(f"1 of 3: {PICTURES} sample pictures of {name}, with captions", quiet)
    show.run(studio, studio.datasets.add_samples(dataset.id, seed=SEED, count=PICTURES), quiet=quiet)
    pictures = studio.datasets.every_picture(dataset.id)
    _say("2 of 3: training a LoRA on them", quiet)
    trained = show.run(studio, studio.training.start(dataset_id=dataset.id, base=MODEL_ID), quiet=quiet)
    adapter = next(a for a in studio.models.adapters() if a.run_id == trained.run_id)
    _say(f"3 of 3: drawing {DRAWN} new pictures", quiet)
    drawn = show.run(studio, _draw(studio, adapter.id), quiet=quiet)
    items = sorted(studio.library.items(job_id=drawn.id), key=lambda item: item.id)
    return Made(
        character=name,
        dataset_id=dataset.id,
        pictures=len(pictures),
        captions=[p.caption for p in pictures],
        training_steps=int((trained.result or {}).get("steps", 0)),
        seconds=round(time.monotonic() - started_s, 1),
        adapter=studio.workspace.resolve(adapter.path),
        images=[studio.library.media("item", item.id) for item in items],
    )


def free_name(studio: Studio) -> str:
    """Bolt, or Bolt 2, Bolt 3 … where the demo ran before."""
    taken = {c.name for c in studio.characters.list()} | {d.name for d in studio.datasets.list()}
    number = 1
    while (name := NAME if number == 1 else f"{NAME} {number}") in taken:
        number += 1
    return name


def _draw(studio: Studio, adapter_id: int) -> Job:
    return studio.images.draw(
        prompt=PROMPT, adapter_id=adapter_id, adapter_weight=1.0, num_images=DRAWN, seed=SEED
    )


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, file=sys.stderr, flush=True)
