"""Finished pictures: find, star, take out, delete; and the files behind every id."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

from masuka.datasets import keeping
from masuka.errors import InvalidInput, NotFound
from masuka.store import items as rows
from masuka.store import jobs, pictures, runs
from masuka.store.items import Item
from masuka.studio.context import Context, must_have_room
from masuka.studio.edits import Edits
from masuka.studio.jobs import preview_of


class Library:
    """Everything that was drawn."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def items(
        self,
        *,
        character_id: int | None = None,
        adapter_id: int | None = None,
        job_id: int | None = None,
        starred: bool | None = None,
        query: str | None = None,
        before_id: int | None = None,
        limit: int = 60,
    ) -> list[Item]:
        """Items, the newest first; `query` looks in the prompts."""
        return rows.list_items(
            self._context.store,
            actor=self._context.actor,
            character_id=character_id,
            adapter_id=adapter_id,
            job_id=job_id,
            starred=starred,
            query=query,
            before_id=before_id,
            limit=limit,
        )

    def get(self, item_id: int) -> Item:
        """One item; raises NotFound."""
        return rows.get_item(self._context.store, actor=self._context.actor, id=item_id)

    def star(self, item_ids: Sequence[int], on: bool = True) -> None:
        """Stars the items, or takes the stars away."""
        self._context.actor.must_edit()
        rows.set_starred(self._context.store, actor=self._context.actor, ids=list(item_ids), starred=on)

    def delete(self, item_ids: Sequence[int]) -> int:
        """How many items went to the bin; `restore` brings them back."""
        self._context.actor.must_edit()
        return rows.delete_items(self._context.store, actor=self._context.actor, ids=list(item_ids))

    def restore(self, item_ids: Sequence[int]) -> int:
        """How many items came back from the bin."""
        self._context.actor.must_edit()
        return rows.restore_items(self._context.store, actor=self._context.actor, ids=list(item_ids))

    def purge(self, item_ids: Sequence[int] | None = None) -> int:
        """How many items of the bin, or these of it, were deleted for good.

        They go from older copies of the database too; see `forget_older_copies`.
        """
        self._context.actor.must_edit()
        gone = rows.purge_items(self._context.store, actor=self._context.actor, ids=item_ids)
        for item in gone:
            file = self._context.workspace.resolve(item.file)
            if self._context.workspace.owns(file):
                file.unlink(missing_ok=True)
                _thumbnail(file, self._context.workspace.items).unlink(missing_ok=True)
        if gone:
            self._context.forget_older_copies()
        return len(gone)

    def export(self, item_ids: Sequence[int], to: Path, *, left_bytes: int = 0) -> Path:
        """The zip at `to` with the items' files, settings embedded as they are.

        Raises OutOfDisk when less than `left_bytes` would be left of the disk.
        """
        files = [self.media("item", item_id) for item_id in dict.fromkeys(item_ids)]
        must_have_room(to.parent, sum(file.stat().st_size for file in files), left_bytes=left_bytes)
        with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                archive.write(file, file.name)
        return to

    def media(self, kind: str, media_id: int, *, thumbnail: bool = False, original: bool = False) -> Path:
        """The file of a 'picture', 'item', 'sample' or a job's 'preview'.

        A picture is shown as edited, unless the `original` is asked for. Raises NotFound when it is not there or not for this person.
        """
        store, actor, workspace = self._context.store, self._context.actor, self._context.workspace
        if kind == "item":
            file = workspace.resolve(rows.get_item(store, actor=actor, id=media_id).file)
            small = _thumbnail(file, workspace.items)
        elif kind == "picture" and not original:
            file = small = Edits(self._context).rendered(media_id, thumbnail=thumbnail)
        elif kind == "picture":
            file = workspace.resolve(pictures.get_picture(store, actor=actor, id=media_id).file)
            small = keeping.thumbnail_of(file)
        elif kind == "sample":
            file = workspace.resolve(runs.get_sample(store, actor=actor, id=media_id).file)
            small = file
        elif kind == "preview":
            job = jobs.get_job(store, actor=actor, id=media_id)
            file = small = preview_of(workspace, job.id)
        else:
            raise InvalidInput(f"There is no kind of media {kind!r}.", field="kind")
        chosen = small if thumbnail and self._context.here(small, patient=False).exists() else file
        if not self._context.here(chosen, patient=False).exists():
            raise NotFound("The file is gone.", "It may have been deleted outside MASUKA.")
        return chosen


def _thumbnail(file: Path, items: Path) -> Path:
    return items / "thumbs" / f"{file.stem}.webp"
