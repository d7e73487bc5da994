"""What a worker is handed for a training: a job's params, complete, so that it asks nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masuka.datasets import masks
from masuka.datasets.edits import Recipe
from masuka.errors import InvalidInput
from masuka.families import family_of
from masuka.families.base import OWN, parent_of
from masuka.generation import prompts
from masuka.models import catalogue, judges
from masuka.requests.training import TrainImage
from masuka.studio import content
from masuka.studio.content import Content
from masuka.studio.context import Context
from masuka.studio.datasets import Datasets
from masuka.studio.models import Models

SAMPLES_FROM_CAPTIONS = 2


class Handing:
    """Gathers what a training learns from and says where it lies."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datasets = Datasets(context)
        self._models = Models(context)

    def content_of(self, dataset_id: int, field: str) -> Content:
        """What a training of the set learns from; raises InvalidInput for nothing."""
        dataset = self._datasets.get(dataset_id)
        every = self._datasets.every_picture(dataset.id)
        pictures = [picture for picture in every if not picture.aside]
        if not pictures:
            raise InvalidInput(
                f"The data set {dataset.name} has no pictures"
                + (" that are not set aside." if every else "."),
                "Take some back, or add others." if every else "Add some first.",
                field=field,
            )
        return content.of(dataset, pictures)

    def params(
        self,
        wanted: TrainImage,
        learnt: Content,
        *,
        name: str,
        folder: Path,
        output: Path,
        run_id: int | None,
    ) -> dict[str, Any]:
        workspace = self._context.workspace
        prior = [] if wanted.prior_dataset_id is None else self._prior(wanted.prior_dataset_id)
        return {
            "request": wanted.as_dict(),
            "family": family_of(wanted.base)[0].name,
            "base": self._models.base_params(wanted.base),
            "run_id": run_id,
            "run_folder": str(folder),
            "output": str(output),
            "name": name,
            "trigger_word": learnt.trigger_word,
            "class_word": learnt.class_word,
            "character_id": wanted.character_id or learnt.character_id,
            "augment": learnt.augment,
            "pictures": [self._picture(p) for p in learnt.pictures],
            "prior_pictures": prior,
            "sample_prompts": _sample_prompts(wanted, learnt),
            "device": self._context.settings.device,
            "caches": str(workspace.caches),
            "judges": judges.folders(workspace.models),
            "made_base": self._made_base(wanted, name, run_id),
        }

    def _made_base(self, wanted: TrainImage, name: str, run_id: int | None) -> dict[str, str] | None:
        """What the base will be called that comes of training the whole model, and its place."""
        if wanted.method != "full":
            return None
        self._context.actor.must_own()
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "base"
        base_id = f"{parent_of(wanted.base)}{OWN}{slug}-{run_id or 0}"
        return {"id": base_id, "place": str(catalogue.place_of(base_id, self._context.workspace))}

    def _prior(self, dataset_id: int) -> list[dict[str, Any]]:
        """Other members of the class, which are learnt beside."""
        beside = self.content_of(dataset_id, "prior_dataset_id")
        return [self._picture(p) for p in beside.pictures]

    def _picture(self, picture: Mapping[str, Any]) -> dict[str, Any]:
        """What a worker must know of a picture; its files are here when it begins."""
        recipe = Recipe.from_row(picture["edits"])
        mask = self._mask(picture, "masks", recipe.mask_sha256) if recipe.masks else None
        matte = self._mask(picture, "mattes", recipe.matte_sha256) if recipe.cuts_out else None
        return {
            **picture,
            "file": str(self._context.here(self._context.workspace.resolve(picture["file"]))),
            "mask": mask and str(self._context.here(mask)),
            "matte": matte and str(self._context.here(matte)),
        }

    def is_gone(self, picture: Mapping[str, Any]) -> bool:
        """Whether a file that the picture was learnt from is nowhere any more."""
        recipe = Recipe.from_row(picture["edits"])
        files = [self._context.workspace.resolve(picture["file"])]
        files += [self._mask(picture, "masks", recipe.mask_sha256)] if recipe.masks else []
        files += [self._mask(picture, "mattes", recipe.matte_sha256)] if recipe.cuts_out else []
        return not all(self._context.here(file, patient=False).exists() for file in files)

    def _mask(self, picture: Mapping[str, Any], kind: masks.Kind, sha256: str) -> Path:
        folder = self._context.workspace.datasets / f"{picture['dataset_id']:05d}"
        return masks.file_of(kind, folder, picture["sha256"], sha256)


def _sample_prompts(wanted: TrainImage, learnt: Content) -> list[str]:
    if not wanted.sample_every:
        return []
    captions = dict.fromkeys(prompts.alternatives(p["caption"])[0] for p in learnt.pictures if p["caption"])
    chosen = wanted.sample_prompts or tuple(captions)[:SAMPLES_FROM_CAPTIONS]
    words = {"trigger_word": learnt.trigger_word, "class_word": learnt.class_word}
    return [prompts.fill(text, **words) for text in chosen]
