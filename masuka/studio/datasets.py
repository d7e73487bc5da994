"""Data sets and their pictures and captions."""

from __future__ import annotations

import builtins
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from masuka.datasets import check, exchange, keeping, masks, rendered
from masuka.datasets.captions import text as captions
from masuka.errors import Conflict
from masuka.requests.datasets import (
    AddPictures,
    CreateDataset,
    EditCaptions,
    UpdateDataset,
    clean_caption,
)
from masuka.requests.exchange import ExportDataset, PushDataset
from masuka.requests.intake import AddFromHub, AddLinks
from masuka.requests.text import clean_path
from masuka.store import caption_changes, characters, outlines, pictures, runs
from masuka.store import datasets as rows
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.studio.context import Context, must_have_room, parsed
from masuka.studio.intake import Exchange
from masuka.studio.jobs import Jobs
from masuka.studio.remembering import TYPED, remember

SAMPLE_COUNT = 20
_EDITS = {
    "set": "a text for several captions", "replace": "find and replace", "prefix": "words before captions",
    "suffix": "words after captions", "template": "the template",
}  # fmt: skip
"""What is told of an edit that is undone."""


class Datasets:
    """Create sets, take pictures in, edit captions, export."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._exchange = Exchange(context)

    def create(self, request: CreateDataset | Mapping[str, Any] | None = None, /, **values: Any) -> Dataset:
        """The new, empty data set; raises Conflict when the name is taken."""
        self._context.actor.must_edit()
        wanted = parsed(CreateDataset, request, values)
        if wanted.character_id is not None:
            characters.get_character(
                self._context.store, actor=self._context.actor, id=wanted.character_id
            )
        return rows.add_dataset(self._context.store, actor=self._context.actor, **wanted.as_dict())

    def list(self) -> list[Dataset]:
        """All data sets, the newest first, with their picture counts."""
        return rows.list_datasets(self._context.store, actor=self._context.actor)

    def get(self, dataset_id: int) -> Dataset:
        """One data set; raises NotFound."""
        return rows.get_dataset(self._context.store, actor=self._context.actor, id=dataset_id)

    def update(
        self, dataset_id: int, request: UpdateDataset | Mapping[str, Any] | None = None, /, **values: Any
    ) -> Dataset:
        """The changed data set; a new trigger word is written into every caption."""
        self._context.actor.must_edit()
        wanted = parsed(UpdateDataset, request, values)
        changed = {k: v for k, v in wanted.as_dict().items() if v is not None}
        store, actor = self._context.store, self._context.actor
        before = self.get(dataset_id)
        with store.write():
            after = rows.set_dataset(store, actor=actor, id=dataset_id, **changed)
            if after.trigger_word != before.trigger_word:
                renamed = {
                    picture.id: captions.change_trigger(
                        picture.caption, before.trigger_word, after.trigger_word
                    )
                    for picture in self.every_picture(dataset_id)
                }
                pictures.set_captions(store, actor=actor, captions=renamed, caption_from=None)
                # To go back behind this would bring the old trigger word back.
                caption_changes.forget_changes(store, actor=actor, dataset_id=dataset_id)
        return self.get(dataset_id)

    def trainings(self, dataset_id: int) -> int:
        """How many trainings learnt from the set, and need its pictures to be repeated."""
        return runs.count_runs(self._context.store, actor=self._context.actor, dataset_id=dataset_id)

    def delete(self, dataset_id: int) -> None:
        """Stops its unfinished jobs, trainings too, then deletes the set with its files."""
        self._context.actor.must_edit()
        self.get(dataset_id)
        self._jobs.stop_all(dataset_id=dataset_id)
        rows.delete_dataset(self._context.store, actor=self._context.actor, id=dataset_id)
        for folder in (self._folder(dataset_id), *self._exchange.forget(dataset_id)):
            if folder.exists():
                shutil.rmtree(folder)

    def add_pictures(
        self,
        dataset_id: int,
        paths: Sequence[str | Path] | str | Path,
        *,
        forget_sources: bool = False,
        key: str | None = None,
    ) -> Job:
        """The job that takes files, folders and zips in; refusals are in its result.

        Others than an owner take in only what they uploaded. The same `key` again gives the
        same job again.
        """
        self._context.actor.must_edit()
        several = [paths] if isinstance(paths, (str, Path)) else list(paths)
        request = AddPictures.parse(
            {
                "dataset_id": dataset_id,
                "paths": tuple(clean_path(str(p)) for p in several),
                "forget_sources": forget_sources,
            }
        )
        dataset = self.get(dataset_id)
        sources = [str(self._context.workspace.resolve(p)) for p in request.paths]
        if not all(self._is_upload(Path(source)) for source in sources):
            self._context.actor.must_own()
        return self._jobs.add(
            "import_pictures",
            title=f"Adding pictures to {dataset.name}",
            request=request.as_dict(),
            params={
                **self._exchange.params(dataset, self.every_picture(dataset.id)),
                "sources": sources,
                "forget_sources": forget_sources,
            },
            dataset_id=dataset.id,
            character_id=dataset.character_id,
            idempotency_key=key,
        )

    def add_samples(
        self, dataset_id: int, *, seed: int = 7, count: int = SAMPLE_COUNT, key: str | None = None
    ) -> Job:
        """The job that draws pictures of a robot that Pocket has never seen.

        The same `key` again gives the same job again.
        """
        self._context.actor.must_edit()
        dataset = self.get(dataset_id)
        return self._jobs.add(
            "sample_pictures",
            title=f"Drawing sample pictures for {dataset.name}",
            request={"seed": seed, "count": count},
            params={
                **self._exchange.params(dataset, self.every_picture(dataset.id)),
                "seed": seed,
                "count": count,
            },
            dataset_id=dataset.id,
            character_id=dataset.character_id,
            idempotency_key=key,
        )

    def add_links(self, dataset_id: int, links: str, *, key: str | None = None) -> Job:
        """The job that fetches the pictures behind links, one a line, and takes them in.

        The same `key` again gives the same job again.
        """
        self._context.actor.must_edit()
        request = AddLinks.parse({"dataset_id": dataset_id, "links": links})
        return self._exchange.add_links(self.get(dataset_id), self.every_picture(dataset_id), request, key)

    def add_from_hub(
        self, dataset_id: int, repo: str, revision: str | None = None, *, key: str | None = None
    ) -> Job:
        """The job that fetches a data set of Hugging Face and takes its pictures in.

        The same `key` again gives the same job again.
        """
        self._context.actor.must_edit()
        request = AddFromHub.parse({"dataset_id": dataset_id, "repo": repo, "revision": revision})
        return self._exchange.add_from_hub(
            self.get(dataset_id), self.every_picture(dataset_id), request, key
        )

    def pictures(
        self,
        dataset_id: int,
        *,
        after: int | None = None,
        limit: int | None = 60,
        only: str = "kept",
        sort: str = "added",
    ) -> Sequence[Picture]:
        """Up to `limit` pictures (None: all) in that order, behind the picture `after`.

        `only` is all, kept, aside, doubtful or a kind of finding; see `store.pictures` for
        the orders.
        """
        return pictures.list_pictures(
            self._context.store,
            actor=self._context.actor,
            dataset_id=dataset_id,
            after_id=after,
            limit=limit,
            only=only,
            sort=sort,
        )

    def every_picture(self, dataset_id: int) -> Sequence[Picture]:
        """All pictures of the set, also those that were set aside."""
        found: builtins.list[Picture] = []
        while page := self.pictures(
            dataset_id, after=found[-1].id if found else None, limit=1000, only="all"
        ):
            found.extend(page)
        return found

    def some(self, picture_ids: Iterable[int]) -> Sequence[Picture]:
        """These pictures, each once; raises NotFound for one that is not there."""
        return pictures.get_pictures(self._context.store, actor=self._context.actor, ids=picture_ids)

    def picture(self, picture_id: int) -> Picture:
        """One picture; raises NotFound."""
        return pictures.get_picture(self._context.store, actor=self._context.actor, id=picture_id)

    def set_aside(self, picture_ids: Sequence[int], aside: bool = True) -> int:
        """How many pictures were set aside (kept, not trained on), or taken back."""
        self._context.actor.must_edit()
        return pictures.set_aside(
            self._context.store, actor=self._context.actor, ids=list(picture_ids), aside=aside
        )

    def set_caption(self, picture_id: int, text: str, *, before: str | None = None) -> Picture:
        """The picture with its new caption.

        Raises Conflict when `before` is given and the caption is neither that nor the new
        one any more: somebody else wrote meanwhile.
        """
        self._context.actor.must_edit()
        caption, store, actor = clean_caption(text), self._context.store, self._context.actor
        with store.write():
            now = self.picture(picture_id)
            if before is not None and now.caption not in (before, caption):
                raise Conflict("Somebody else changed this caption meanwhile.", "Keep yours or take theirs.")
            if now.caption == caption:
                return now
            remember(self._context, now.dataset_id, TYPED, [now])
            return pictures.set_caption(store, actor=actor, id=picture_id, caption=caption)

    def edit_captions(self, request: EditCaptions | Mapping[str, Any] | None = None, /, **values: Any) -> int:
        """How many captions one change to many altered; all change or none does."""
        self._context.actor.must_edit()
        wanted = parsed(EditCaptions, request, values)
        store, actor = self._context.store, self._context.actor
        with store.write():
            chosen = pictures.get_pictures(store, actor=actor, ids=wanted.picture_ids)
            sets = {dataset_id: self.get(dataset_id) for dataset_id in {p.dataset_id for p in chosen}}
            altered = {
                p.id: clean_caption(
                    captions.edit(
                        p.caption,
                        wanted,
                        template=sets[p.dataset_id].caption_template,
                        trigger_word=sets[p.dataset_id].trigger_word,
                        class_word=sets[p.dataset_id].class_word,
                    )
                )
                for p in chosen
            }
            changed = {p.id: altered[p.id] for p in chosen if altered[p.id] != p.caption}
            for dataset_id in sets:
                before = [p for p in chosen if p.id in changed and p.dataset_id == dataset_id]
                if before:
                    remember(self._context, dataset_id, _EDITS[wanted.action], before)
            pictures.set_captions(store, actor=actor, captions=changed)
        return len(changed)

    def delete_pictures(self, picture_ids: Sequence[int]) -> int:
        """How many pictures were deleted, with their files."""
        self._context.actor.must_edit()
        gone = pictures.delete_pictures(self._context.store, actor=self._context.actor, ids=list(picture_ids))
        for picture in gone:
            file = self._context.workspace.resolve(picture.file)
            if self._context.workspace.owns(file):
                file.unlink(missing_ok=True)
                keeping.thumbnail_of(file).unlink(missing_ok=True)
            masks.forget(self._folder(picture.dataset_id), picture.sha256)
            rendered.forget(self._folder(picture.dataset_id), picture.sha256)
        return len(gone)

    def export(self, dataset_id: int, to: Path, *, layout: str = "zip", left_bytes: int = 0) -> Path:
        """The zip at `to` with every kept picture and its caption, in one of the layouts.

        Raises OutOfDisk when less than `left_bytes` would be left of the disk.
        """
        dataset, kept = self.get(dataset_id), self._kept(dataset_id)
        must_have_room(to.parent, sum(picture.bytes for picture in kept), left_bytes=left_bytes)
        wanted = ExportDataset.parse({"dataset_id": dataset_id, "layout": layout})
        return exchange.export(dataset, kept, to=to, resolve=self._file, layout=wanted.layout)

    def export_job(self, dataset_id: int, layout: str = "zip") -> Job:
        """The job that packs the kept pictures with captions as zip, kohya or imagefolder.

        Its result names the zip; `exported` gives it. Raises OutOfDisk.
        """
        self._context.actor.must_edit()
        request = ExportDataset.parse({"dataset_id": dataset_id, "layout": layout})
        return self._exchange.export_job(self.get(dataset_id), self._kept(dataset_id), request)

    def exported(self, job_id: int) -> Path:
        """The zip that an export made; raises NotFound where there is none (any more)."""
        return self._exchange.exported(job_id)

    def push(
        self, dataset_id: int, repo: str, private: bool = True, *, licence: str = "", consent: str = ""
    ) -> Job:
        """The job that puts the kept pictures on Hugging Face, as an imagefolder.

        Raises AccessDenied without a token, InvalidInput without licence or consent.
        """
        self._context.actor.must_edit()
        given = {"dataset_id": dataset_id, "repo": repo, "private": private, "licence": licence, "consent": consent}
        request = PushDataset.parse(given)
        return self._exchange.push(self.get(dataset_id), self._kept(dataset_id), request)

    def check(self, dataset_id: int, *, resolution_px: int = 0, read_files: bool = True) -> Sequence[str]:
        """What stands in the way of a good training, a sentence each; [] is well.

        Without `read_files` a changed file is not found; a training finds it in any case.
        """
        return check.problems(
            self.get(dataset_id),
            outlines.list_outlines(self._context.store, actor=self._context.actor, dataset_id=dataset_id),
            resolve=self._file if read_files else self._context.workspace.resolve,
            resolution_px=resolution_px,
            read_files=read_files,
        )

    def _file(self, file: str | Path) -> Path:
        return self._context.here(self._context.workspace.resolve(file))

    def _is_upload(self, source: Path) -> bool:
        """Whether the person who asks sent this through the page."""
        uploads = self._context.workspace.uploads.resolve()
        parts = source.resolve().relative_to(uploads).parts if source.resolve().is_relative_to(uploads) else ()
        return bool(parts) and parts[0].startswith(f"{self._context.actor.user_id}-")

    def _kept(self, dataset_id: int) -> Sequence[Picture]:
        return [picture for picture in self.every_picture(dataset_id) if not picture.aside]

    def _folder(self, dataset_id: int) -> Path:
        return self._exchange.folder(dataset_id)
