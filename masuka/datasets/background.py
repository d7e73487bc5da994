"""Cutting a character out of its background, without a model: by colour and place.

GrabCut (Rother, Kolmogorov, Blake 2004) as OpenCV computes it, started from the face where
one is known, else from the middle. Plain backgrounds come out well, busy ones roughly; the
mask can be painted over afterwards.

Why no better network: BiRefNet (MIT) has no class in transformers or diffusers (looked at:
transformers 5.23), so its own code would have to be run from the hub, which is never done
here; briaai's RMBG forbids commercial use; SAM (Apache-2.0) wants to be told where to look
and weighs 0.4 GB for an outline that is not softer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from masuka.datasets import masks, pool
from masuka.datasets.crops import Face
from masuka.errors import InvalidInput, MasukaError
from masuka.jobs.reporter import Reporter

WORKED_PX = 448
"""Longest side at which it is computed; the outline is smoothed when it is made larger."""
ROUNDS = 5
_SIDE = 0.02
"""Outermost part of the left, right and top sides that is background for certain."""
_MIDDLE = 0.12
_LEAST, _MOST = 0.02, 0.97
_SMALL_PART = 0.1
"""Pieces smaller than this part of the largest one are specks."""


def cut_out(image: Image.Image, faces: Sequence[Face] = ()) -> Image.Image:
    """White where the character is, grey at its outline, black behind (L, same size).

    Raises InvalidInput where character and background cannot be told apart.
    """
    small = image.convert("RGB")
    small.thumbnail((WORKED_PX, WORKED_PX), Image.Resampling.LANCZOS)
    pixels = np.asarray(small)[:, :, ::-1].copy()
    known = _start(small.width, small.height, faces)
    behind, front = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(1)  # its clusters begin by chance, of all calls of the process
    try:
        cv2.grabCut(pixels, known, (0, 0, 1, 1), behind, front, ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error as error:
        raise _refused() from error
    shown = np.isin(known, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    shown = _without_specks(shown)
    share = float(shown.mean())
    if not _LEAST < share < _MOST:
        raise _refused()
    soft = cv2.GaussianBlur(shown.astype(np.float32) * 255, (0, 0), 1.2)
    matte = Image.fromarray(np.clip(soft, 0, 255).astype(np.uint8))
    return matte.resize(image.size, Image.Resampling.BICUBIC)


def work(item: Mapping[str, Any]) -> dict[str, Any]:
    """The sum of the cut-out that was kept; runs in a process of the pool."""
    with Image.open(item["file"]) as opened:
        image = opened.convert("RGB")
    matte = cut_out(image, [Face(*face[:5]) for face in item["faces"]])
    return {"matte_sha256": masks.keep(matte, "mattes", Path(item["folder"]), item["sha256"])}


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The job: how many pictures were cut out, and a sentence for each that was not."""
    pictures = params["pictures"]
    items = [{**p, "folder": params["folder"]} for p in pictures]
    refused: list[dict[str, Any]] = []
    reporter.stage("Cutting out")
    processes = 0 if len(items) < 3 else None
    for number, result in enumerate(pool.each(work, items, reporter=reporter, processes=processes), 1):
        picture = pictures[number - 1]
        if isinstance(result, MasukaError):
            refused.append({"name": picture["name"], **result.as_dict()})
        else:
            reporter.tell("cut_out", picture_id=picture["id"], background=params["background"], **result)
        reporter.progress(number, len(pictures))
    return {"cut_out": len(pictures) - len(refused), "refused": refused}


def _start(width: int, height: int, faces: Sequence[Face]) -> Any:
    """What is taken for granted before the first round."""
    known = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    beside, above = max(1, round(width * _SIDE)), max(1, round(height * _SIDE))
    if not faces:
        x, y = round(width * _MIDDLE), round(height * _MIDDLE)
        known[y : height - y, x : width - x] = cv2.GC_PR_FGD
    for face in faces[:1]:
        left, top = face.x * width, face.y * height
        wide, high = face.width * width, face.height * height
        middle = left + wide / 2
        head = _span(top - 0.5 * high, top + 1.4 * high, height)
        body = _span(top + 1.3 * high, height, height)
        inner = _span(top + 0.2 * high, top + 0.9 * high, height)
        # Head and hair, then shoulders and all below them; of the face one may be sure.
        known[head, _span(left - 0.3 * wide, left + 1.3 * wide, width)] = cv2.GC_PR_FGD
        known[body, _span(middle - 1.5 * wide, middle + 1.5 * wide, width)] = cv2.GC_PR_FGD
        known[inner, _span(left + 0.2 * wide, left + 0.8 * wide, width)] = cv2.GC_FGD
    known[:, :beside], known[:, width - beside :] = cv2.GC_BGD, cv2.GC_BGD
    known[:above] = cv2.GC_BGD
    return known


def _span(low: float, high: float, length: int) -> slice:
    return slice(max(0, round(low)), min(length, round(high)))


def _without_specks(shown: Any) -> Any:
    """The large pieces, their holes filled."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(shown, connectivity=8)
    if count < 2:
        return shown
    areas = stats[1:, cv2.CC_STAT_AREA]
    large = [n + 1 for n, area in enumerate(areas) if area >= _SMALL_PART * areas.max()]
    kept: Any = np.isin(labels, large).astype(np.uint8)
    kept = cv2.morphologyEx(kept, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    holes, hole_labels, hole_stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
    smallest = 0.01 * kept.size
    for hole in range(1, holes):
        if hole_stats[hole, cv2.CC_STAT_AREA] < smallest:
            kept[hole_labels == hole] = 1
    return kept


def _refused() -> InvalidInput:
    return InvalidInput(
        "The character cannot be told from the background here.", "Paint a mask instead.", field="background"
    )
