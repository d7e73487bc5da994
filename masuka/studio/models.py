"""Base models on this machine and the LoRAs that were trained here."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masuka.errors import Conflict, MasukaError, NotFound
from masuka.families import FAMILIES, family_of
from masuka.families.base import Entry, Family, parent_of
from masuka.hosting import space
from masuka.hosting.runtime import detect
from masuka.models import catalogue
from masuka.models.download import alone, must_have_room
from masuka.requests.actor import Actor
from masuka.requests.text import clean_name
from masuka.store import characters as character_rows
from masuka.store import models as rows
from masuka.store import runs as run_rows
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.store.users import OWNER_ID
from masuka.studio.context import Context
from masuka.studio.jobs import Jobs

STUDIO = Actor(user_id=OWNER_ID)
"""Whichever owner brings a base, it is the whole studio's."""
BRINGING = ("download_model", "import_base", "fetch_base", "bake_adapter")
"""Kinds of job at whose end a base is here."""
UNFINISHED = ("queued", "running", "paused", "interrupted", "uncertain")
GIB = 2**30


@dataclass(frozen=True)
class Base:
    """A base model of the catalogue or a person's own.

    `folder` is None until it is here.
    `commercial` is None where its licence does not say. `source` says where a person's own
    base is from, '' for the catalogue's.
    """

    id: str
    title: str
    family: str
    about: str
    licence: str
    commercial: bool | None
    gated: bool
    size_gib: float
    folder: Path | None
    negative_prompt: bool
    family_title: str = ""
    own: bool = False
    built_in: bool = False
    source: str = ""
    complete: bool = True
    """Whether what it learns with is here too, where it needs something."""


@dataclass(frozen=True)
class Use:
    """What needs a base: LoRAs, trainings, and the characters that they are of."""

    adapters: Sequence[Model] = ()
    runs: int = 0
    characters: Sequence[str] = ()


class Models:
    """List, download and delete bases; list, rename and delete LoRAs."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)

    def bases(self) -> list[Base]:
        """Every base: those on this machine first, the built-in before all; then the rest."""
        own = {model.base: model for model in self._own()}
        known = [self._base(f, e) for f in FAMILIES.values() for e in f.entries]
        known += [self._base(*family_of(base_id), row) for base_id, row in own.items() if _has_parent(base_id)]
        order = list(FAMILIES)
        return sorted(known, key=lambda b: (b.folder is None, not b.built_in, order.index(b.family), b.own))

    def base(self, base_id: str) -> Base:
        """One base, also one of a person's own that was deleted; raises NotFound."""
        family, entry = family_of(base_id)
        row = next((model for model in self._own() if model.base == base_id), None)
        if row is None and catalogue.is_own(base_id):
            # LoRAs outlive the base that they were trained on.
            return replace(self._base(family, entry), own=True, size_gib=0.0, about="It is not here any more.")
        return self._base(family, entry, row)

    def own_row(self, base_id: str) -> Model:
        """What is known of a person's own base; raises NotFound."""
        found = next((model for model in self._own() if model.base == base_id), None)
        if found is None:
            raise NotFound(f"There is no base model {base_id!r}.", "Choose one from the Models page.")
        return found

    def must_be_installed(self, base_id: str) -> Base:
        """The base, which is on this machine; raises Conflict when it is not."""
        base = self.base(base_id)
        if base.folder is None:
            raise Conflict(f"{base.title} is not on this machine.", "Download it first.")
        return base

    def must_be_trainable(self, base_id: str) -> Base:
        """The base, which is on this machine with what it learns with.

        Raises Conflict when it is not, NoAccelerator on a host where no training of it
        could ever end.
        """
        _, entry = family_of(base_id)
        base = self.base(base_id)
        if not base.built_in:
            space.must_have_gpu_for_long(detect(), base.title)
        if not entry.trainable:
            better = " or ".join(self.base(other).title for other in entry.draws_adapters_of)
            hint = f"Train on {better}, whose LoRAs it draws with." if better else "Choose another base."
            raise Conflict(f"{base.title} is not made to be trained.", hint)
        if not catalogue.has_training_adapter(entry, self._context.workspace) and base.folder is not None:
            raise Conflict(
                f"{base.title} learns with an adapter that is not here.", "Download it on the Models page."
            )
        return self.must_be_installed(base_id)

    def base_params(self, base_id: str) -> dict[str, Any]:
        """What a worker needs to know about a base, and what a LoRA of it is bound to."""
        _, entry = family_of(base_id)
        workspace, base = self._context.workspace, self.base(base_id)
        adapter = catalogue.training_adapter_of(entry, workspace)
        note = catalogue.note_of(entry, workspace)
        return {
            "id": entry.id,
            "title": base.title,
            "licence": base.licence,
            "repo": entry.repo or note.get("repo", ""),
            "revision": entry.revision or note.get("commit"),
            "commit": note.get("commit"),
            "sha256": catalogue.digest_of(note),
            "autoencoder_repo": entry.autoencoder_repo,
            "folder": str(catalogue.folder_of(entry, workspace)),
            "training_adapter": None if adapter is None else str(adapter),
        }

    def download(self, base_id: str) -> Job:
        """The job that fetches a base, or what is missing of it.

        Raises Conflict when it is there or on its way, OutOfDisk when it would not fit.
        """
        self._context.actor.must_own()
        base, (_, entry) = self.base(base_id), family_of(base_id)
        workspace = self._context.workspace
        if base.folder is not None and catalogue.has_training_adapter(entry, workspace):
            raise Conflict(f"{base.title} is on this machine already.")
        if self.coming(base_id):
            raise Conflict(f"{base.title} is on its way already.", "Wait for that job, or cancel it.")
        if base.own and base.folder is None:
            config = self.own_row(base_id).config
            if not config.get("kind"):
                raise Conflict(f"{base.title} was trained here, and its folder is gone.", "Train it again.")
            return self.add_job(base_id, base.title, config["kind"], self._placed(base_id, config["params"]))
        here = catalogue.size_bytes(catalogue.place_of(base_id, workspace))
        must_have_room(base.title, max(0, int(base.size_gib * GIB) - here), workspace.models)
        params = {**self.base_params(base_id), "size_gib": entry.size_gib, "training_repo": entry.training_adapter}
        missing_adapter_only = catalogue.is_drawable(entry, workspace)
        params |= {"repo": "" if missing_adapter_only else entry.repo, "revision": entry.revision}
        return self.add_job(base_id, base.title, "download_model", params)

    def add_job(self, base_id: str, title: str, kind: str, params: dict[str, Any]) -> Job:
        """The job of that kind which brings the base."""
        verb = {"import_base": "Importing", "bake_adapter": "Making"}.get(kind, "Downloading")
        return self._jobs.add(kind, title=f"{verb} {title}", request={"base": base_id}, params=params)

    def coming(self, base_id: str) -> list[Job]:
        """Unfinished jobs that bring the base."""
        return [
            job for kind in BRINGING for job in self._jobs.list(kind=kind, states=UNFINISHED, limit=100)
            if job.request.get("base") == base_id
        ]  # fmt: skip

    def uses(self) -> dict[str, Use]:
        """For each base what of this person's needs it."""
        store, actor = self._context.store, self._context.actor
        found: dict[str, Use] = {}
        runs = run_rows.list_runs(store, actor=actor)
        adapters = self.adapters()
        for base_id in {*(a.base for a in adapters), *(r.base for r in runs)}:
            mine = [a for a in adapters if a.base == base_id]
            ours = [r for r in runs if r.base == base_id]
            ids = {i for i in (*(a.character_id for a in mine), *(r.character_id for r in ours)) if i is not None}
            found[base_id] = Use(mine, len(ours), self._names(ids))
        return found

    def delete_base(self, base_id: str) -> int:
        """Bytes that are free again; LoRAs of the base stay and cannot draw without it.

        Files of a linked folder stay where they are. Raises Conflict for the built-in base
        and while a job uses it.
        """
        self._context.actor.must_own()
        _, entry = family_of(base_id)
        base = self.base(base_id)
        if catalogue.is_built_in(entry):
            raise Conflict(f"{base.title} comes with MASUKA and stays.")
        if any(_is_about(job, base_id) for job in self._jobs.list(states=UNFINISHED, limit=1000)):
            raise Conflict(f"A job uses {base.title}.", "Cancel it, or wait until it has ended.")
        place = catalogue.place_of(base_id, self._context.workspace)
        freed = 0
        if place.exists():
            with alone(place):
                freed = catalogue.size_bytes(place)
                # Without it nothing takes for whole what is half gone.
                (place / catalogue.FINISHED).unlink(missing_ok=True)
                shutil.rmtree(place)
        if base.own:
            rows.delete_model(self._context.store, actor=STUDIO, id=self.own_row(base_id).id)
        return freed + self._delete_adapter_of(entry)

    def adapters(self, *, character_id: int | None = None) -> list[Model]:
        """LoRAs, the one that somebody chose last first, then the newest."""
        found = rows.list_models(
            self._context.store, actor=self._context.actor, kind="adapter", character_id=character_id
        )
        return sorted(found, key=rows.order_of, reverse=True)

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

    def _base(self, family: Family, entry: Entry, row: Model | None = None) -> Base:
        workspace = self._context.workspace
        config = {} if row is None else row.config
        here = catalogue.is_installed(entry, workspace) if row is None else catalogue.is_drawable(entry, workspace)
        return Base(
            id=entry.id,
            title=entry.title if row is None else row.name,
            family=family.name,
            about=entry.about if row is None else str(config.get("about", "")),
            licence=entry.licence if row is None else str(config.get("licence", "")),
            commercial=entry.commercial if row is None else config.get("commercial"),
            gated=entry.gated if row is None else bool(config.get("gated")),
            size_gib=entry.size_gib if row is None else float(config.get("size_gib", 0.0)),
            folder=catalogue.folder_of(entry, workspace) if here else None,
            negative_prompt=family.capabilities.negative_prompt,
            family_title=family.title,
            own=row is not None,
            built_in=catalogue.is_built_in(entry),
            source=str(config.get("said", "")),
            complete=catalogue.has_training_adapter(entry, workspace),
        )

    def _placed(self, base_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The same with the folders of this workspace: the row may be from another machine."""
        models = self._context.workspace.models
        place = str(catalogue.place_of(base_id, self._context.workspace))
        moved = {name: str(models / Path(params[name]).name) for name in ("donor", "training_adapter") if params.get(name)}
        return {**params, "folder": place, "place": place, **moved}

    def _own(self) -> list[Model]:
        return rows.list_models(self._context.store, actor=STUDIO, kind="base")

    def _names(self, ids: set[int]) -> list[str]:
        known = character_rows.list_characters(self._context.store, actor=self._context.actor)
        return [character.name for character in known if character.id in ids]

    def _delete_adapter_of(self, entry: Entry) -> int:
        """Bytes of the training adapter, once no base here learns with it."""
        workspace = self._context.workspace
        adapter = catalogue.training_adapter_of(entry, workspace)
        if adapter is None or not adapter.is_dir():
            return 0
        for other in self.bases():
            entry_of_other = family_of(other.id)[1]
            shares = entry_of_other.training_adapter == entry.training_adapter
            if shares and catalogue.is_drawable(entry_of_other, workspace):
                return 0
        freed = catalogue.size_bytes(adapter)
        (adapter / catalogue.FINISHED).unlink(missing_ok=True)
        shutil.rmtree(adapter)
        return freed


def _is_about(job: Job, base_id: str) -> bool:
    """Whether the job needs or brings the base."""
    named = job.params.get("base")
    inner = named.get("id") if isinstance(named, dict) else named
    return base_id in (inner, job.request.get("base"))


def _has_parent(base_id: str) -> bool:
    try:
        return parent_of(base_id) == parent_of(family_of(base_id)[1].id)
    except MasukaError:
        # Its family came with a package that is not installed any more.
        return False
