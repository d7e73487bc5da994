"""The result of training a whole model: a base of one's own, a diffusers folder.

The denoiser is written anew; everything else is the parent's, linked where the disk can.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from masuka.errors import TrainingError
from masuka.families.base import AdapterReport
from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import FINISHED, size_bytes
from masuka.models.download import alone, finish, must_have_room
from masuka.training.export import Exported
from masuka.training.learner import Learner
from masuka.training.plan import Plan


def save_base(plan: Plan, learner: Learner, reporter: Reporter, *, losses: Sequence[float]) -> Exported:
    """The base's folder, complete, at the place that was kept for it.

    Raises OutOfDisk, and TrainingError where what was written is not the whole model.
    """
    assert plan.made_base is not None
    place, part = Path(plan.made_base["place"]), plan.family.denoiser_part
    with alone(place):
        must_have_room(plan.name, size_bytes(plan.folder / part), place.parent)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for file in sorted(plan.folder.rglob("*")):
            inside = file.relative_to(plan.folder)
            if file.is_file() and file.name != FINISHED and inside.parts[0] != part:
                _same(file, place / inside)
        denoiser: Any = learner.denoiser
        learner.weights.show_result()
        denoiser.save_pretrained(place / part, safe_serialization=True)
        learner.weights.show_training()
        count = _checked(learner, place / part)
        about = {"source": plan.base["id"], "run_id": plan.run_id, "bytes": size_bytes(place), "files": {}}
        finish(place, about)
    first = min((place / part).glob("*.safetensors"))
    last = losses[-max(1, len(losses) // 10) :]
    reporter.artefact(
        "base",
        place,
        id=plan.made_base["id"],
        name=plan.name,
        parent=plan.base["id"],
        licence=plan.base.get("licence", ""),
        size_gib=round(size_bytes(place) / 2**30, 3),
    )
    end = sum(last) / len(last) if last else None
    return Exported(first, _sha256(first), AdapterReport(count, count), {"loss_at_end": end})


def _checked(learner: Learner, folder: Path) -> int:
    """How many weights were written: all of the model's, in its shapes."""
    wanted = {name: tuple(tensor.shape) for name, tensor in learner.denoiser.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            found |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    if any(found.get(name) != shape for name, shape in wanted.items()):
        raise TrainingError(
            "The written base lacks some of the model's weights.",
            "Resume the training to write it again; if it happens again, report it.",
        )
    return len(found)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _same(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), to)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(file, to)
