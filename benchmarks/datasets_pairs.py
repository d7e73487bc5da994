"""How surely copies of pictures are told from pictures that only look alike.

    python -m benchmarks.datasets_pairs

One large set is compared: pictures made up from seeds (five kinds of scenes, photographs
of an installed package where there are any), one changed copy of each, and as traps, for
each, another figure at the same place, and robots that differ in nothing but their face.
A found pair is right when both were made from the same picture.
"""

from __future__ import annotations

import io
import random
import time
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.harness import Bars, Figures, bar, say
from masuka.datasets import duplicates, measures
from masuka.datasets.keeping import THUMBNAIL_PX
from tests import scenes

BASES = 300
MOMENTS = 60
FIRST_SEED = 1_000
"""The limits in `datasets.duplicates` were chosen on seeds below 300; these were not looked at."""
RECALL, PRECISION = 0.98, 0.99


@dataclass(frozen=True)
class Shown:
    """A picture of the set; those of one `family` show the same."""

    family: str
    change: str
    row: dict[str, Any]
    thumbnail: bytes


def measure(bases: int = BASES, moments: int = MOMENTS) -> tuple[Figures, Bars]:
    """Recall of each change and of all, precision, and how many pairs each is from."""
    say(f"pairs: drawing {bases} pictures, their copies and their rivals")
    shown = _all_pictures(bases, moments)
    say(f"pairs: comparing {len(shown)} pictures")
    began_s = time.monotonic()
    pairs = duplicates.find([s.row for s in shown], lambda i: _opened(shown[i].thumbnail))
    took_s = time.monotonic() - began_s
    found = {(min(p.first, p.second), max(p.first, p.second)) for p in pairs}
    right = {(a, b) for a, b in found if shown[a].family == shown[b].family}
    wanted = _same(shown)
    figures: Figures = {
        "pairs_pictures": len(shown),
        "pairs_same": len(wanted),
        "pairs_other": len(shown) * (len(shown) - 1) // 2 - len(wanted),
        "pairs_traps": bases + moments,
        "pairs_found": len(found),
        "pairs_found_wrongly": len(found - right),
        "pairs_compare_s": took_s,
        "near_duplicate_recall": len(right & set(wanted)) / len(wanted),
        "near_duplicate_precision": len(right) / max(1, len(found)),
    }
    tried, hit = Counter(wanted.values()), Counter(wanted[pair] for pair in right if pair in wanted)
    for change in tried:
        name = change.replace(" ", "_")
        figures[f"pairs_{name}"] = tried[change]
        figures[f"recall_{name}"] = hit[change] / tried[change]
    bars = {
        "near_duplicate_recall": bar(figures["near_duplicate_recall"], f">= {RECALL}"),
        "near_duplicate_precision": bar(figures["near_duplicate_precision"], f">= {PRECISION}"),
    }
    return figures, bars


def photographs() -> list[Image.Image]:
    """Photographs that an installed package brings along, none twice; [] without it."""
    spec = find_spec("gradio")
    folder = Path(spec.origin or "").parent / "media_assets" / "images" if spec else Path()
    names = ("cheetah1.jpg", "lion.jpg", "tower.jpg", "groot.jpeg")
    return [Image.open(folder / name).convert("RGB") for name in names if (folder / name).is_file()]


def _all_pictures(bases: int, moments: int) -> list[Shown]:
    changes = list(scenes.CHANGES.items())
    shown = []
    for seed in range(FIRST_SEED, FIRST_SEED + bases):
        image = scenes.scene(seed)
        # Each kind of scene meets each change equally often.
        name, change = changes[(seed // len(scenes.KINDS)) % len(changes)]
        shown.append(_shown(image, f"scene {seed}", ""))
        shown.append(_shown(change(image, random.Random(seed)), f"scene {seed}", name))
        shown.append(_shown(scenes.rival(seed), f"rival {seed}", ""))
    for seed in range(FIRST_SEED, FIRST_SEED + moments):
        shown += [_shown(image, f"moment {seed} {n}", "") for n, image in enumerate(scenes.moment(seed))]
    for number, image in enumerate(photographs()):
        shown.append(_shown(image, f"photograph {number}", ""))
        shown += [
            _shown(change(image, random.Random(number)), f"photograph {number}", name) for name, change in changes
        ]
    return shown


def _shown(image: Image.Image, family: str, change: str) -> Shown:
    scores = measures.measure(image, width=image.width, height=image.height)
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=85)
    row = {**scores, "width": image.width, "height": image.height}
    return Shown(family, change, row, stream.getvalue())


def _same(shown: list[Shown]) -> dict[tuple[int, int], str]:
    """The pairs of an original and its changed copy, by what was done to it."""
    originals = {s.family: i for i, s in enumerate(shown) if not s.change}
    return {(originals[s.family], i): s.change for i, s in enumerate(shown) if s.change}


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


if __name__ == "__main__":
    figures, bars = measure()
    for key, value in figures.items():
        goal = bars.get(key)
        print(f"{key:28} {value:>12.4f}{'   goal ' + goal['goal'] + ': ' + ('met' if goal['met'] else 'MISSED') if goal else ''}")
