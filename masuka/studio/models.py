"""Base models on this machine and the LoRAs that were trained here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.errors import Conflict, NotFound
from masuka.families import FAMILIES, family_of
from masuka.families.base import Entry, Family
from masuka.hosting import space
from masuka.hosting.runtime import detect
from masuka.models import catalogue
from masuka.requests.text import clean_name
from masuka.store import models as rows
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.studio.context import Context
from masuka.studio.jobs import Jobs


@dataclass(frozen=True)
class Base:
    """A base model of the catalogue; `folder` is None until it is on this machine."""

    id: str
    title: str
    family: str
    about: str
    licence: str
    commercial: bool
    gated: bool
    size_gib: float
    folder: Path | None
    negative_prompt: bool


class Models:
    """List bases and LoRAs, download the former, rename and delete the latter."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)

    def bases(self) -> list[Base]:
        """Every base of every family, the built-in first."""
        return [self._base(f, e) for f in FAMILIES.values() for e in f.entries]

    def base(self, base_id: str) -> Base:
        """One base; raises NotFound."""
        return self._base(*family_of(base_id))

    def must_be_installed(self, base_id: str) -> Base:
        """The base, which is on this machine; raises Conflict when it is not."""
        base = self.base(base_id)
        if base.folder is None:
            raise Conflict(f"{base.title} is not on this machine.", "Download it first.")
        return base

    def must_be_trainable(self, base_id: str) -> Base:
        """The base, which is on this machine; raises Conflict when it is not.

        Raises NoAccelerator on a host where no training of it could ever end.
        """
        if not catalogue.is_built_in(family_of(base_id)[1]):
            space.must_have_gpu_for_long(detect(), self.base(base_id).title)
        return self.must_be_installed(base_id)

    def base_params(self, base_id: str) -> dict[str, Any]:
        """What a worker needs to know about a base."""
        _, entry = family_of(base_id)
        workspace = self._context.workspace
        adapter = catalogue.training_adapter_of(entry, workspace)
        return {
            "id": entry.id,
            "title": entry.title,
            "licence": entry.licence,
            "repo": entry.repo,
            "revision": entry.revision,
            "folder": str(catalogue.folder_of(entry, workspace)),
            "training_adapter": None if adapter is None else str(adapter),
        }

    def download(self, base_id: str) -> Job:
        """The job that fetches a base from the hub; raises Conflict when it is there."""
        self._context.actor.must_own()
        base, (_, entry) = self.base(base_id), family_of(base_id)
        if base.folder is not None:
            raise Conflict(f"{base.title} is on this machine already.")
        return self._jobs.add(
            "download_model",
            title=f"Downloading {base.title}",
            request={"base": base_id},
            params={
                **self.base_params(base_id),
                "size_gib": entry.size_gib,
                "training_repo": entry.training_adapter,
            },
        )

    def adapters(self, *, character_id: int | None = None) -> list[Model]:
        """Trained LoRAs, the newest first."""
        return rows.list_models(
            self._context.store, actor=self._context.actor, kind="adapter", character_id=character_id
        )

    def adapter(self, adapter_id: int) -> Model:
        """One LoRA; raises NotFound."""
        found = rows.get_model(self._context.store, actor=self._context.actor, id=adapter_id)
        if found.kind != "adapter" or not found.active:
            raise NotFound("There is no such LoRA.", "Choose one from the list.")
        return found

    def rename(self, adapter_id: int, name: str) -> Model:
        """The LoRA under its new name."""
        self._context.actor.must_edit()
        self.adapter(adapter_id)
        return rows.set_model(
            self._context.store, actor=self._context.actor, id=adapter_id, name=clean_name(name)
        )

    def delete(self, adapter_id: int) -> None:
        """Deletes a LoRA with its files; pictures drawn with it stay."""
        self._context.actor.must_edit()
        self.erase(self.adapter(adapter_id).id)

    def erase(self, adapter_id: int) -> None:
        """The same, also of one that is hidden from the lists."""
        adapter = rows.get_model(self._context.store, actor=self._context.actor, id=adapter_id)
        folder = self._context.workspace.resolve(adapter.path).parent
        rows.delete_model(self._context.store, actor=self._context.actor, id=adapter_id)
        inside = folder.is_relative_to(self._context.workspace.adapters.resolve())
        if inside and folder != self._context.workspace.adapters.resolve() and folder.exists():
            shutil.rmtree(folder)

    def _base(self, family: Family, entry: Entry) -> Base:
        folder = catalogue.folder_of(entry, self._context.workspace)
        return Base(
            id=entry.id,
            title=entry.title,
            family=family.name,
            about=entry.about,
            licence=entry.licence,
            commercial=entry.commercial,
            gated=entry.gated,
            size_gib=entry.size_gib,
            folder=folder if catalogue.is_installed(entry, self._context.workspace) else None,
            negative_prompt=family.capabilities.negative_prompt,
        )
