"""How good a LoRA is, told from a few pictures that it draws: likeness, variety, prompts.

A judge is behind two small interfaces, so that another model can take its place. What no
judge is there for is not measured; size and colour of pictures are never called likeness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from masuka import pocket
from masuka.datasets import embedding
from masuka.families.base import parent_of
from masuka.pocket.judge import Judge, as_tensor
from masuka.pocket.words import WAYS
from masuka.training.follows import Siglip
from masuka.training.pictures import Picture, seen
from masuka.training.plan import Plan

NEAREST = 3
"""Of the data set's pictures each drawn one is compared with so many, the most alike."""
MOST_COMPARED = 48
"""More of a data set's pictures do not change whom a drawn one is like."""

Vectors = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Turns RGB pictures into rows of numbers, (N, D); alike ones point the same way."""

    def embed(self, pictures: Sequence[Image.Image]) -> Vectors: ...


class Reader(Protocol):
    """Tells how well each picture shows its prompt; None where it cannot tell."""

    def follows(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]: ...


@dataclass(frozen=True)
class Judges:
    """Who judges: who is shown, the whole picture, and what it shows."""

    likeness: Embedder
    variety: Embedder
    prompt: Reader | None
    about: str
    """How it is measured, in a sentence for people."""


class PocketRobots:
    """Pocket's judge: whose robot it is, how the pictures differ, what they show."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def embed(self, pictures: Sequence[Image.Image]) -> Vectors:
        return np.asarray(self._judge.embed(pictures).numpy(), np.float32)

    def follows(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> list[float | None]:
        """The share of what a prompt names that the judge sees."""
        shown = self._judge.attributes(pictures)
        return [_share(named_in(prompt), sees) for prompt, sees in zip(prompts, shown, strict=True)]


class PocketScenes:
    """What differs from picture to picture: face, hat, place, pose."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    @torch.inference_mode()
    def embed(self, pictures: Sequence[Image.Image]) -> Vectors:
        last = self._judge.features(as_tensor(pictures))[-1].float().flatten(1)
        return np.asarray(torch.relu(self._judge.today(last)).numpy(), np.float32)


def judges_of(plan: Plan, tools: Mapping[str, Any]) -> tuple[Judges | None, str]:
    """(who judges the samples, '') or (None, a sentence that says why nobody does).

    `tools` are the folders of downloaded judges, by 'likeness' and 'prompt'.
    """
    if not plan.sample_prompts:
        return None, "Likeness is not measured, for no samples are drawn."
    if parent_of(str(plan.base["id"])) == pocket.MODEL_ID:
        judge = Judge.load(pocket.JUDGE_FOLDER)
        robots = PocketRobots(judge)
        about = (
            f"Likeness is the mean cosine of each drawn robot to the {NEAREST} most alike of the data set, "
            "by Pocket's judge; following is the share of what the prompt names that it sees."
        )
        return Judges(robots, PocketScenes(judge), robots, about), ""
    folder = tools.get("likeness")
    if not folder:
        return None, (
            "Likeness is not measured, for the model that compares pictures is not on this machine; "
            "the doctor of a data set offers its download."
        )
    look = embedding.DinoV2(Path(folder))
    about = (
        f"Likeness is the mean cosine of each drawn picture to the {NEAREST} most alike of the data set, "
        "by DINOv2, which sees the whole picture and not the face alone"
    )
    if not tools.get("prompt"):
        return Judges(look, look, None, f"{about}; following the prompt is not measured."), ""
    reader = Siglip(Path(tools["prompt"]))
    return Judges(look, look, reader, f"{about}; following is the cosine of picture and prompt by SigLIP."), ""


def compared(plan: Plan, judge: Embedder) -> Vectors:
    """The vectors of the data set's pictures, as the training sees them."""
    pictures = _spread(plan.pictures, MOST_COMPARED)
    shown = []
    for picture in pictures:
        shape = plan.shapes([(1, 1)])[0]
        with Image.open(picture.file) as opened:
            shape = plan.shapes([opened.size])[0]
        shown.append(_image(seen(picture, shape).pixels))
    return judge.embed(shown)


def likeness(drawn: Vectors, pictures: Vectors) -> float:
    """The mean cosine of each drawn picture to the NEAREST most alike, −1 to 1."""
    cosines = np.sort(_unit(drawn) @ _unit(pictures).T, axis=1)
    return float(cosines[:, -NEAREST:].mean())


def variety(drawn: Vectors) -> float | None:
    """The mean distance (1 − cosine) of every two drawn; None for fewer than two."""
    if len(drawn) < 2:
        return None
    cosines = _unit(drawn) @ _unit(drawn).T
    return float(1 - cosines[np.triu_indices(len(drawn), 1)].mean())


def scores_of(
    judges: Judges, pictures: Sequence[Image.Image], prompts: Sequence[str], known: Vectors
) -> dict[str, float]:
    """Likeness, variety and prompt of drawn pictures, as far as they can be told."""
    found: dict[str, float | None] = {
        "likeness": likeness(judges.likeness.embed(pictures), known),
        "variety": variety(judges.variety.embed(pictures)),
    }
    if judges.prompt is not None:
        followed = [share for share in judges.prompt.follows(pictures, prompts) if share is not None]
        found["prompt"] = sum(followed) / len(followed) if followed else None
    return {name: value for name, value in found.items() if value is not None}


def named_in(prompt: str) -> dict[str, str]:
    """Attribute → value of what a prompt for Pocket names, the longest words first."""
    text, found = prompt.lower(), {}
    ways = [(way.removeprefix("a "), attribute, value) for attribute, values in WAYS.items()
            for value, said in values.items() for way in said]  # fmt: skip
    for way, attribute, value in sorted(ways, key=lambda one: -len(one[0])):
        if attribute not in found and re.search(rf"\b{re.escape(way)}\b", text):
            found[attribute] = value
            text = re.sub(rf"\b{re.escape(way)}\b", " ", text)
    return found


def _share(named: Mapping[str, str], sees: Mapping[str, str]) -> float | None:
    return sum(sees[name] == value for name, value in named.items()) / len(named) if named else None


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _spread(pictures: Sequence[Picture], most: int) -> list[Picture]:
    if len(pictures) <= most:
        return list(pictures)
    return [pictures[int(number * len(pictures) / most)] for number in range(most)]


def _image(pixels: torch.Tensor) -> Image.Image:
    array = ((pixels.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return Image.fromarray(array)
