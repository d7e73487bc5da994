"""What the jobs that fill a data set and hand it out are asked with."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from masuka.datasets import MOST_COMPARED, exchange
from masuka.datasets.checking import write_rows
from masuka.errors import AccessDenied, InvalidInput, NotFound
from masuka.jobs.secrets import stored_secrets
from masuka.requests.exchange import ExportDataset, PushDataset
from masuka.requests.intake import AddFromHub, AddLinks
from masuka.requests.text import clean_filename
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.studio.context import Context, must_have_room
from masuka.studio.jobs import Jobs

ROOM_LEFT_BYTES = 2**30
_LINKS_SHOWN = 20
_EXPORTS = "export-"
"""Begins the names of the folders, among the uploads, in which zips wait to be fetched."""


class Exchange:
    """Jobs that bring pictures into a data set from elsewhere, and take it elsewhere."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)

    def params(self, dataset: Dataset, pictures: Sequence[Picture]) -> dict[str, Any]:
        """What every job that fills the set needs to know of it."""
        compares = len(pictures) <= MOST_COMPARED
        token = secrets.token_hex(8)
        return {
            **self._asked(token, (_row(p) if compares else {"sha256": p.sha256} for p in pictures)),
            "dataset_id": dataset.id,
            "folder": str(self.folder(dataset.id)),
            "token": token,
            "trigger_word": dataset.trigger_word,
            "class_word": dataset.class_word,
            "caption_template": dataset.caption_template,
            "strictness": dataset.options.get("strictness", "basic"),
            "resolution_px": dataset.options.get("resolution_px", 0),
        }

    def folder(self, dataset_id: int) -> Path:
        """Where the pictures of a data set lie."""
        return self._context.workspace.datasets / f"{dataset_id:05d}"

    def add_links(
        self, dataset: Dataset, pictures: Sequence[Picture], request: AddLinks, key: str | None
    ) -> Job:
        """The job that fetches pictures from the web."""
        return self._fetch(
            "import_links",
            f"Fetching pictures for {dataset.name}",
            dataset,
            pictures,
            {**request.as_dict(), "links": "\n".join(request.links.split("\n")[:_LINKS_SHOWN])},
            {"links": request.links},
            key,
        )

    def add_from_hub(
        self, dataset: Dataset, pictures: Sequence[Picture], request: AddFromHub, key: str | None
    ) -> Job:
        """The job that fetches a data set of Hugging Face."""
        return self._fetch(
            "import_hub",
            f"Adding {request.repo} to {dataset.name}",
            dataset,
            pictures,
            request.as_dict(),
            {"repo": request.repo, "revision": request.revision},
            key,
        )

    def export_job(self, dataset: Dataset, pictures: Sequence[Picture], request: ExportDataset) -> Job:
        """The job that packs the set; its zip waits at `exported` for a day."""
        folder = self._context.workspace.uploads / f"{_EXPORTS}{dataset.id:05d}"
        must_have_room(folder, sum(p.bytes for p in pictures), left_bytes=ROOM_LEFT_BYTES)
        return self._hand_out(
            "export_dataset",
            f"Packing {dataset.name}",
            dataset,
            pictures,
            request.as_dict(),
            {
                "layout": request.layout,
                "to": str(folder / clean_filename(f"{dataset.name}-{request.layout}.zip")),
            },
        )

    def exported(self, job_id: int) -> Path:
        """The zip that such a job made; raises NotFound where there is none (any more)."""
        job = self._jobs.get(job_id)
        file = Path((job.result or {}).get("file", ""))
        if job.kind != "export_dataset" or job.state != "done" or not file.is_file():
            raise NotFound("The zip is not there any more.", "Pack the data set again.")
        return file

    def push(self, dataset: Dataset, pictures: Sequence[Picture], request: PushDataset) -> Job:
        """The job that puts the set on Hugging Face; raises AccessDenied without a token."""
        stored = stored_secrets(self._context.store, self._context.settings, self._context.actor.user_id)
        if "HF_TOKEN" not in {**self._context.settings.secrets, **stored}:
            raise AccessDenied(
                "There is no Hugging Face token.", "Enter one with write access in Settings, then push again."
            )
        return self._hand_out(
            "push_dataset",
            f"Sending {dataset.name} to {request.repo}",
            dataset,
            pictures,
            request.as_dict(),
            {
                "repo": request.repo,
                "private": request.private,
                "licence": request.licence,
                "consent": request.consent,
            },
        )

    def forget(self, dataset_id: int) -> list[Path]:
        """The folders beside the set's own that go with it."""
        return [self._context.workspace.uploads / f"{_EXPORTS}{dataset_id:05d}"]

    def _asked(self, token: str, rows: Iterable[dict[str, Any]]) -> dict[str, str]:
        """Where the job finds these rows; the folder goes when it is done, or after a day.

        Jobs are listed often, with their params: what is long is no part of those.
        """
        folder = self._context.workspace.uploads / f"asked-{token}"
        folder.mkdir(parents=True)
        write_rows(rows, folder / "rows.jsonl")
        return {"asked": str(folder), "rows": str(folder / "rows.jsonl")}

    def _fetch(
        self,
        kind: str,
        title: str,
        dataset: Dataset,
        pictures: Sequence[Picture],
        request: dict[str, Any],
        more: dict[str, Any],
        key: str | None,
    ) -> Job:
        params = self.params(dataset, pictures)
        return self._jobs.add(
            kind,
            title=title,
            request=request,
            params={**params, **more, "incoming": str(Path(params["asked"]) / "files")},
            dataset_id=dataset.id,
            character_id=dataset.character_id,
            idempotency_key=key,
        )

    def _hand_out(
        self,
        kind: str,
        title: str,
        dataset: Dataset,
        pictures: Sequence[Picture],
        request: dict[str, Any],
        more: dict[str, Any],
    ) -> Job:
        if not pictures:
            raise InvalidInput("The set has no pictures.", "Add some first.")
        entries = exchange.entries_of(
            pictures, lambda file: self._context.here(self._context.workspace.resolve(file))
        )
        return self._jobs.add(
            kind,
            title=title,
            request=request,
            params={
                "dataset_id": dataset.id,
                "about": asdict(exchange.about_of(dataset)),
                **self._asked(secrets.token_hex(8), map(asdict, entries)),
                **more,
            },
            dataset_id=dataset.id,
            character_id=dataset.character_id,
        )


def _row(picture: Picture) -> dict[str, Any]:
    """What the doctor asks for, of a picture that is there."""
    return {
        "sha256": picture.sha256,
        "scores": picture.scores,
        "width": picture.width,
        "height": picture.height,
        "edits": picture.edits,
        "aside": picture.aside,
    }
