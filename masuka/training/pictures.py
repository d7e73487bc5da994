"""The pictures of a training: checked before anything is loaded, sorted into aspect
buckets, turned into pixels. Knows no model and no cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from masuka.datasets.buckets import Shape
from masuka.errors import InvalidInput
from masuka.generation.prompts import fill
from masuka.jobs.reporter import Reporter


@dataclass(frozen=True)
class Picture:
    """One picture of the set, its caption with trigger and class word filled in."""

    file: Path
    sha256: str
    caption: str


def pictures_of(params: Mapping[str, Any]) -> list[Picture]:
    """The pictures that the job's params list, in their order."""
    words = {"trigger_word": params.get("trigger_word", ""), "class_word": params.get("class_word", "")}
    return [Picture(Path(p["file"]), p["sha256"], fill(p["caption"], **words)) for p in params["pictures"]]


def check_pictures(pictures: Sequence[Picture], reporter: Reporter) -> list[tuple[int, int]]:
    """(width, height) of every picture, each read whole and compared with its hash.

    Raises InvalidInput, naming the file, for the first that is missing, changed or damaged.
    """
    if not pictures:
        raise InvalidInput("The data set has no pictures.", "Add some first.", field="dataset_id")
    sizes = []
    for number, picture in enumerate(pictures, 1):
        reporter.check()
        sizes.append(_checked_size(picture))
        reporter.progress(number, len(pictures))
    return sizes


def pixels_of(file: Path, shape: Shape) -> Tensor:
    """The picture as (3, H, W) in [-1, 1], scaled to the bucket, cut at the centre."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    scale = max(shape.width / picture.width, shape.height / picture.height)
    size = (
        max(shape.width, round(picture.width * scale)),
        max(shape.height, round(picture.height * scale)),
    )
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - shape.width) // 2, (size[1] - shape.height) // 2
    picture = picture.crop((left, top, left + shape.width, top + shape.height))
    array = np.asarray(picture, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def content_hash(pictures: Sequence[Picture]) -> str:
    """One hash over every picture and caption, whatever their order."""
    digest = hashlib.sha256()
    for line in sorted(f"{p.sha256}\0{p.caption}\n" for p in pictures):
        digest.update(line.encode())
    return digest.hexdigest()


def _checked_size(picture: Picture) -> tuple[int, int]:
    name = picture.file.name
    try:
        digest = hashlib.sha256(picture.file.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInput(
            f"The picture {name} cannot be read ({error.strerror}).",
            "Remove it from the data set or add it again.",
            field="dataset_id",
        ) from error
    if digest != picture.sha256:
        raise InvalidInput(
            f"The picture {name} has changed since it was added.",
            "Remove it from the data set and add it again.",
            field="dataset_id",
        )
    try:
        with Image.open(picture.file) as opened:
            opened.load()
            return opened.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InvalidInput(
            f"The picture {name} is damaged.",
            "Remove it from the data set and add it again.",
            field="dataset_id",
        ) from error
