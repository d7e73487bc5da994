"""How pictures are changed for the training, and what a trainer will see of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from masuka.datasets import crops, keeping, masks, rendered, varying
from masuka.datasets.buckets import shapes_of
from masuka.datasets.crops import PARTS, Face, Part, faces_of
from masuka.datasets.edits import Recipe, edited_size, render
from masuka.datasets.lint import longest_for
from masuka.errors import Conflict, InvalidInput
from masuka.generation import prompts
from masuka.requests.edits import Augment, Crop, PictureEdits
from masuka.store import datasets as sets
from masuka.store import outlines
from masuka.store import pictures as rows
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.studio.context import Context, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.jobs import Jobs
from masuka.studio.sheet import Overview as Overview
from masuka.studio.sheet import SheetRow as SheetRow
from masuka.studio.sheet import overview, sheet_row

LOOKED_AT_ONCE = 40
"""Pictures without measurements in which faces are looked for while a person waits."""
SEARCHED_PX = 1024
CONVERTED = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
COMPARED = 100
"""Pictures at most that are compared with their mirror images."""
_AUGMENT = "augment"


@dataclass(frozen=True)
class Varied:
    """How a set's pictures are varied, and what speaks against it, '' for nothing."""

    augment: Augment
    warning: str


@dataclass(frozen=True)
class Detector:
    """How faces are found; `why_none` says why they are not, '' where they are."""

    title: str
    why_none: str
    can_download: bool


class Edits:
    """Recipes, masks and variations of a data set's pictures."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datasets = Datasets(context)
        self._jobs = Jobs(context)

    def recipe(self, picture_id: int) -> PictureEdits:
        """How the picture is changed; raises NotFound."""
        return Recipe.from_row(self._datasets.picture(picture_id).edits).edits

    def set(
        self, picture_id: int, edits: PictureEdits | Mapping[str, Any] | None = None, /, **values: Any
    ) -> Picture:
        """The picture with that recipe; single values change the recipe it has.

        Raises InvalidInput, also for another background where nothing is cut out.
        """
        self._context.actor.must_edit()
        with self._context.store.write():  # else two who edit at once lose what one of them did
            picture = self._datasets.picture(picture_id)
            before = Recipe.from_row(picture.edits)
            wanted = parsed(PictureEdits, before.edits.as_dict() if edits is None else edits, values)
            if wanted.background != "keep" and not before.matte_sha256:
                raise InvalidInput(
                    "The character is not cut out of this picture.", "Cut it out first.", field="background"
                )
            return self._keep(picture, replace(before, edits=wanted))

    def reset(self, picture_ids: Sequence[int]) -> int:
        """How many pictures are shown as they came again; what was painted is kept."""
        self._context.actor.must_edit()
        changed = 0
        with self._context.store.write():
            for picture in map(self._datasets.picture, dict.fromkeys(picture_ids)):
                before = Recipe.from_row(picture.edits)
                if before.edits != PictureEdits():
                    self._keep(picture, replace(before, edits=PictureEdits()))
                    changed += 1
        return changed

    def crop_to(self, picture_ids: Sequence[int], part: Part) -> int:
        """How many pictures were cropped to face, half of the body, body or what matters.

        Pictures without a face stay as they are; 'smart' crops them to where their detail
        is. Raises InvalidInput when none of them was cropped.
        """
        return len(self.crop_those(picture_ids, part))

    def crop_those(self, picture_ids: Sequence[int], part: Part) -> list[int]:
        """The same, and which pictures they were.

        In more than a few, faces are not looked for: that takes up to half a second each.
        """
        self._context.actor.must_edit()
        if part not in PARTS:
            raise InvalidInput(f"There is no crop {part!r}.", f"Known are: {', '.join(PARTS)}.", field="part")
        chosen = [self._datasets.picture(id) for id in dict.fromkeys(picture_ids)]
        unknown = sum(faces_of(p.scores) is None for p in chosen)
        if unknown > LOOKED_AT_ONCE and part != "smart":
            raise InvalidInput(
                f"Nobody has looked for faces in {unknown:,} of these pictures yet.",
                "Check the data set first, then crop.",
            )
        look = sum(not faces_of(p.scores) for p in chosen) <= LOOKED_AT_ONCE
        found = {p.id: self._crop(p, Recipe.from_row(p.edits), part, look=look) for p in chosen}
        cropped = {id: crop for id, crop in found.items() if crop is not None}
        with self._context.store.write():
            for id, crop in cropped.items():
                # Looking took its time: what else was changed meanwhile stays.
                now = self._datasets.picture(id)
                recipe = Recipe.from_row(now.edits)
                edits = PictureEdits.parse({**recipe.edits.as_dict(), "crop": crop})
                self._keep(now, replace(recipe, edits=edits))
        if chosen and not cropped:
            raise InvalidInput(
                "No face was found in this picture."
                if len(chosen) == 1
                else "No face was found in any of them.",
                self._why_no_faces() or "Crop by hand.",
                field="part",
            )
        return list(cropped)

    def set_mask(self, picture_id: int, png: bytes | None) -> Picture:
        """The picture with the mask that was painted over it as it came; None removes it.

        White is learnt from, black hardly. Raises InvalidInput.
        """
        self._context.actor.must_edit()
        picture, sha256 = self._datasets.picture(picture_id), ""
        if png is not None:
            mask = masks.read_mask(png, picture.width, picture.height)
            sha256 = masks.keep(mask, "masks", self._folder(picture), picture.sha256)
        with self._context.store.write():
            recipe = Recipe.from_row(self._datasets.picture(picture_id).edits)
            return self._keep(picture, replace(recipe, mask_sha256=sha256))

    def mask(self, picture_id: int) -> Path | None:
        """The mask's file, white where it counts, of the picture's size; None for none."""
        picture = self._datasets.picture(picture_id)
        return self._kept(picture, "masks", Recipe.from_row(picture.edits).mask_sha256)

    def matte(self, picture_id: int) -> Path | None:
        """The cut-out's file, white where the character is; None for none."""
        picture = self._datasets.picture(picture_id)
        return self._kept(picture, "mattes", Recipe.from_row(picture.edits).matte_sha256)

    def cut_out(
        self,
        picture_ids: Sequence[int],
        background: Literal["white", "grey", "removed"] = "removed",
        *,
        key: str | None = None,
    ) -> Job:
        """The job that cuts the characters of one set's pictures out of their backgrounds.

        By colour alone, see `datasets.background`; what it could not do is in its result.
        """
        self._context.actor.must_edit()
        wanted = PictureEdits.parse({"background": background}).background
        return self._looking(
            "cut_out_pictures", "Cutting out", picture_ids, key,
            lambda dataset: {"background": wanted, "folder": str(self._folder_of(dataset.id))},
        )  # fmt: skip

    def find_faces(self, picture_ids: Sequence[int], *, key: str | None = None) -> Job:
        """The job that looks thoroughly for the faces of one set's pictures."""
        self._context.actor.must_edit()
        return self._looking(
            "find_faces", "Looking for faces", picture_ids, key,
            lambda _: {"models": str(self._context.workspace.models)},
        )  # fmt: skip

    def detector(self) -> Detector:
        """How faces are found on this machine, and whether a better way can be had."""
        from masuka.datasets import faces

        models = self._context.workspace.models
        here = faces.yunet_file(models) is not None
        return Detector(faces.which(models), faces.why_none(models), can_download=not here)

    def download_detector(self) -> Job:
        """The job that fetches YuNet (MIT, 0.2 MB); raises Conflict where it is here."""
        from masuka.datasets import faces

        self._context.actor.must_own()
        if faces.yunet_file(self._context.workspace.models) is not None:
            raise Conflict("YuNet is on this machine already.")
        return self._jobs.add(
            "download_model",
            title="Downloading YuNet",
            request={"detector": "yunet"},
            params=faces.download_params(self._context.workspace.models),
        )

    def convert(self, picture_id: int, to: Path) -> Path:
        """The picture as edited in that file; its ending says how: png, jpg, webp.

        Raises InvalidInput for another ending, Conflict where there is a file already.
        """
        self._context.actor.must_own()  # it writes wherever this process may write
        if to.suffix.lower() not in CONVERTED:
            raise InvalidInput(
                f"{to.name} is no PNG, JPEG or WebP.", "End it in .png, .jpg or .webp.", field="to"
            )
        if to.exists():
            raise Conflict(f"{to} is there already.", "Choose another name.")
        with Image.open(self._rendered(self._datasets.picture(picture_id))) as opened:
            opened.convert("RGB").save(to, CONVERTED[to.suffix.lower()], quality=95)
        return to

    def rendered(self, picture_id: int, *, thumbnail: bool = False) -> Path:
        """The file of the picture as edited; its own where nothing is changed.

        Raises NotFound when the file is gone.
        """
        return self._rendered(self._datasets.picture(picture_id), thumbnail=thumbnail)

    def sheet(
        self, dataset_id: int, base: str, resolution_px: int, *, after: int = 0, limit: int | None = None
    ) -> list[SheetRow]:
        """What a trainer of that base sees of kept pictures, in the order they came."""
        words, shapes = self._words(dataset_id), shapes_of(base, resolution_px)
        page = self._datasets.pictures(dataset_id, after=after, limit=limit, only="kept")
        return [sheet_row(picture, shapes, prompts.fill(picture.caption, **words)) for picture in page]

    def overview(self, dataset_id: int, base: str, resolution_px: int) -> Overview:
        """What a trainer of that base makes of all kept pictures: buckets, what is lost."""
        store, actor, words = self._context.store, self._context.actor, self._words(dataset_id)
        sizes = outlines.list_sizes(store, actor=actor, dataset_id=dataset_id)
        captions = outlines.list_captions(store, actor=actor, dataset_id=dataset_id).values()
        filled = (prompts.fill(caption, **words) for caption in captions)
        return overview(sizes, filled, shapes_of(base, resolution_px), longest_for(base))

    def augment(self, dataset_id: int) -> Varied:
        """How the set's pictures are varied, with a warning where mirroring may harm."""
        dataset = self._datasets.get(dataset_id)
        augment = Augment.parse(dataset.options.get(_AUGMENT, {}))
        return Varied(augment, self._asymmetry(dataset_id) if augment.flip else "")

    def set_augment(
        self, dataset_id: int, augment: Augment | Mapping[str, Any] | None = None, /, **values: Any
    ) -> Varied:
        """The same, changed; takes effect for trainings that start from now on."""
        self._context.actor.must_edit()
        store, actor = self._context.store, self._context.actor
        with store.write():
            options = dict(sets.get_dataset(store, actor=actor, id=dataset_id).options)
            before = options.get(_AUGMENT, {}) if augment is None else augment
            wanted = parsed(Augment, before, values)
            options[_AUGMENT] = wanted.model_dump(mode="json", exclude_defaults=True)
            sets.set_dataset(store, actor=actor, id=dataset_id, options=options)
        return self.augment(dataset_id)

    def preview_augment(self, picture_id: int, seed: int, *, longest_px: int = 512) -> bytes:
        """A WebP picture of that size of how a training would vary it."""
        picture = self._datasets.picture(picture_id)
        augment = Augment.parse(self._datasets.get(picture.dataset_id).options.get(_AUGMENT, {}))
        with Image.open(self._rendered(picture)) as opened:
            opened.draft("RGB", (2 * longest_px, 2 * longest_px))
            image = opened.convert("RGB")
        return varying.preview(image, augment, seed=seed, name=picture.sha256, longest_px=longest_px)

    def _rendered(self, picture: Picture, *, thumbnail: bool = False) -> Path:
        recipe = Recipe.from_row(picture.edits)
        file = self._context.here(self._context.workspace.resolve(picture.file), patient=False)
        if not recipe.pixels_key:
            small = self._context.here(keeping.thumbnail_of(file), patient=False)
            return small if thumbnail and small.exists() else file
        to = rendered.file_of(self._folder(picture), picture.sha256, recipe, file.suffix)
        matte = self._kept(picture, "mattes", recipe.matte_sha256)
        if thumbnail:
            return rendered.make_thumbnail(to, file, recipe, matte=matte)
        return rendered.make(to, file, recipe, matte=matte)

    def _crop(self, picture: Picture, recipe: Recipe, part: Part, *, look: bool) -> Crop | None:
        """The crop of the turned and straightened picture; None where it has no face."""
        upright = PictureEdits(turn=recipe.edits.turn, straighten=recipe.edits.straighten)
        width, height = edited_size(picture.width, picture.height, upright)
        found = self._faces(picture, upright, look=look)
        if found:
            return crops.crop_to(found[0], part, width, height)
        if part != "smart":
            return None
        with Image.open(self._file(picture)) as opened:
            opened.draft("RGB", (SEARCHED_PX, SEARCHED_PX))
            return crops.crop_to_detail(render(opened, Recipe(upright)).image)

    def _faces(self, picture: Picture, upright: PictureEdits, *, look: bool) -> Sequence[Face]:
        """The faces of the upright picture: as measured, or looked for now."""
        known = faces_of(picture.scores) or []
        if known:
            return crops.turned(known, picture.width, picture.height, upright)
        if not look:
            return []
        from masuka.datasets import faces  # OpenCV, which a page that crops nothing does without

        with Image.open(self._file(picture)) as opened:
            opened.draft("RGB", (SEARCHED_PX, SEARCHED_PX))
            small = render(opened, Recipe(upright)).image
        return faces.detect(small, models=self._context.workspace.models, thorough=True)

    def _why_no_faces(self) -> str:
        from masuka.datasets import faces

        return faces.why_none(self._context.workspace.models)

    def _asymmetry(self, dataset_id: int) -> str:
        captions = outlines.list_captions(
            self._context.store, actor=self._context.actor, dataset_id=dataset_id
        )
        ids = list(captions)[:: max(1, len(captions) // COMPARED)]
        compared = [
            (_opened(small), faces_of(p.scores) or [])
            for p in self._datasets.some(ids)
            if (small := keeping.thumbnail_of(self._context.workspace.resolve(p.file))).is_file()
        ]
        return varying.warning(compared, captions.values())

    def _looking(
        self,
        kind: str,
        title: str,
        picture_ids: Sequence[int],
        key: str | None,
        more: Callable[[Dataset], dict[str, Any]],
    ) -> Job:
        """A job about pictures of one data set, with what it must know of each."""
        chosen = [self._datasets.picture(id) for id in dict.fromkeys(picture_ids)]
        if len({p.dataset_id for p in chosen}) != 1:
            raise InvalidInput("These are not pictures of one data set.", "Choose some of one set.")
        dataset = self._datasets.get(chosen[0].dataset_id)
        described = [
            {
                "id": p.id, "name": p.original_name, "sha256": p.sha256, "file": str(self._file(p)),
                "faces": p.scores.get("faces", []),
            }
            for p in chosen
        ]  # fmt: skip
        return self._jobs.add(
            kind,
            title=f"{title}: {dataset.name}",
            request={"picture_ids": [p.id for p in chosen]},
            params={"dataset_id": dataset.id, "pictures": described, **more(dataset)},
            dataset_id=dataset.id,
            character_id=dataset.character_id,
            idempotency_key=key,
        )

    def _words(self, dataset_id: int) -> dict[str, str]:
        dataset = self._datasets.get(dataset_id)
        return {"trigger_word": dataset.trigger_word, "class_word": dataset.class_word}

    def _keep(self, picture: Picture, recipe: Recipe) -> Picture:
        store, actor = self._context.store, self._context.actor
        return rows.set_edits(store, actor=actor, id=picture.id, edits=recipe.as_row())

    def _kept(self, picture: Picture, kind: masks.Kind, sha256: str) -> Path | None:
        if not sha256:
            return None
        file = masks.file_of(kind, self._folder(picture), picture.sha256, sha256)
        return self._context.here(file, patient=False)

    def _file(self, picture: Picture) -> Path:
        return self._context.here(self._context.workspace.resolve(picture.file))

    def _folder(self, picture: Picture) -> Path:
        return self._folder_of(picture.dataset_id)

    def _folder_of(self, dataset_id: int) -> Path:
        return self._context.workspace.datasets / f"{dataset_id:05d}"


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as opened:
        return opened.convert("RGB")
