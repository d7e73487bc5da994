"""LoRA files: what they are, other forms of them, versions, from elsewhere and to the Hub."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from masuka.errors import AccessDenied, Conflict, InvalidInput, NotAllowed, NotFound
from masuka.families import FAMILIES, family_of
from masuka.families.base import parent_of
from masuka.families.lora.keys import CONVENTIONS
from masuka.families.lora.keys_tables import names_of
from masuka.models import adapter_files
from masuka.models.adapter_files import Found
from masuka.requests.adapters import (
    BakeAdapter,
    BringAdapter,
    ConvertAdapter,
    ExtractAdapter,
    MergeAdapters,
    PushAdapter,
    ResizeAdapter,
)
from masuka.requests.base import Request
from masuka.requests.text import clean_filename, clean_name, clean_trigger
from masuka.store import characters, runs, scores
from masuka.store import models as rows
from masuka.store.jobs import Job
from masuka.store.models import Model
from masuka.store.rows import now_at
from masuka.studio.context import Context, must_have_room, parsed
from masuka.studio.jobs import Jobs
from masuka.studio.models import Models
from masuka.studio.preferences import Preferences
from masuka.studio.sources import Sources

TOKEN = "HF_TOKEN"  # noqa: S105 - a name


@dataclass(frozen=True)
class Version:
    """One LoRA of a character with what its training said about it."""

    adapter: Model
    run_name: str
    step: int | None
    likeness: float | None
    hidden: bool
    used: bool


class Adapters:
    """Inspect, convert, merge, resize, extract, bake, bring and push; keep versions."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)
        self._models = Models(context)
        self._sources = Sources(context)

    # What they are

    def inspect(self, adapter_id: int, *, measure: bool = False) -> Found:
        """What the LoRA's file is; with `measure` also where it changes most."""
        adapter = self._models.adapter(adapter_id)
        return _inspected(self._file(adapter), adapter.family, adapter.sha256, measure)

    def files(self, adapter_id: int) -> dict[str, Path]:
        """The LoRA's files by what they are: its own first, then what it was made into."""
        adapter = self._models.adapter(adapter_id)
        own = self._file(adapter)
        others = {
            convention: own.with_name(_converted_name(own, convention))
            for convention in (*CONVENTIONS, *(f"{c} plain" for c in CONVENTIONS))
        }
        found = {"own": own} | {name: file for name, file in others.items() if file.is_file()}
        beside = own.with_name(f"{own.stem} lokr.safetensors")
        return found | ({"lokr": beside} if beside.is_file() else {})

    # Tools

    def convert(self, request: ConvertAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that writes the LoRA under other names, beside its own file."""
        self._context.actor.must_edit()
        wanted = parsed(ConvertAdapter, request, values)
        adapter = self._models.adapter(wanted.adapter_id)
        file = self._file(adapter)
        offered = names_of(adapter.family).offered
        if wanted.convention not in offered:
            raise InvalidInput(
                f"Nothing reads a LoRA of {FAMILIES[adapter.family].title} under {wanted.convention} names.",
                f"Choose {' or '.join(offered)}.",
                field="convention",
            )
        to = file.with_name(_converted_name(file, wanted.convention + (" plain" if wanted.plain else "")))
        params = {"to": str(to), "convention": wanted.convention, "plain": wanted.plain, "dtype": wanted.dtype}
        if wanted.plain and self.inspect(adapter.id).kind == "dora":
            params["folder"] = str(self._models.must_be_installed(adapter.base).folder)
        must_have_room(file.parent, 2 * file.stat().st_size)
        return self._add("convert", f"Converting {adapter.name}", adapter, wanted, {"file": str(file), **params})

    def resize(self, request: ResizeAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that makes a LoRA of another rank."""
        self._context.actor.must_edit()
        wanted = parsed(ResizeAdapter, request, values)
        adapter = self._models.adapter(wanted.adapter_id)
        name = wanted.name or _shortened(adapter.name, f" rank {wanted.rank}")
        params = {"file": str(self._file(adapter)), "rank": wanted.rank, **self._output(name)}
        return self._add("resize", f"Resizing {adapter.name}", adapter, wanted, params)

    def merge(self, request: MergeAdapters | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that makes one LoRA of several; raises InvalidInput for a bad match."""
        self._context.actor.must_edit()
        wanted = parsed(MergeAdapters, request, values)
        chosen = [self._models.adapter(adapter_id) for adapter_id in wanted.adapter_ids]
        if len({adapter.family for adapter in chosen}) > 1:
            raise InvalidInput(
                "These LoRAs are for different families of models.", "Merge those of one.", field="adapter_ids"
            )
        params = {
            "files": [str(self._file(adapter)) for adapter in chosen],
            "weights": list(wanted.weights or (1.0 for _ in chosen)),
            "names": [adapter.name for adapter in chosen],
            "triggers": [adapter.trigger_word for adapter in chosen],
            "rank": wanted.rank,
            **self._output(wanted.name),
        }
        return self._add("merge", f"Merging {len(chosen)} LoRAs", chosen[0], wanted, params)

    def extract(self, request: ExtractAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that makes a LoRA of the difference between two bases of one kind."""
        self._context.actor.must_own()
        wanted = parsed(ExtractAdapter, request, values)
        base, tuned = (self._models.must_be_installed(name) for name in (wanted.base, wanted.tuned))
        if base.family != tuned.family or base.id == tuned.id:
            raise InvalidInput(
                f"{tuned.title} is not a further training of {base.title}.",
                "Choose two bases of one kind.",
                field="tuned",
            )
        _, entry = family_of(base.id)
        params = {
            "folder": str(base.folder), "tuned_folder": str(tuned.folder), "tuned_title": tuned.title,
            "rank": wanted.rank, "architecture": entry.architecture, "kohya_version": entry.kohya_version,
            "family": base.family, "base": self._models.base_params(base.id), "trigger_word": "", "class_word": "",
            "request": wanted.as_dict(), "tool": "extract", **self._output(wanted.name),
        }  # fmt: skip
        return self._jobs.add("edit_adapter", title=f"Extracting from {tuned.title}", request=wanted.as_dict(), params=params)

    def bake(self, request: BakeAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that makes a base of one's own with the LoRA inside; raises OutOfDisk."""
        self._context.actor.must_own()
        wanted = parsed(BakeAdapter, request, values)
        adapter = self._models.adapter(wanted.adapter_id)
        base = self._models.must_be_installed(adapter.base)
        assert base.folder is not None
        _, entry = family_of(parent_of(base.id))
        said = f"{base.title} with {adapter.name}"
        size = sum(f.stat().st_size for f in base.folder.rglob("*") if f.is_file())
        must_have_room(self._context.workspace.models, size)
        params = {
            "file": str(self._file(adapter)), "source": str(base.folder), "family": adapter.family,
            "weight": wanted.weight, "said": said,
        }  # fmt: skip
        config = {
            "kind": "bake_adapter", "params": params, "licence": base.licence, "commercial": base.commercial,
            "size_gib": size / 2**30, "said": said,
        }  # fmt: skip
        return self._sources.add_made(entry, wanted.name or adapter.name, config)

    # From elsewhere, and to elsewhere

    def bring(self, request: BringAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that takes in a LoRA file of this machine, bound to its base.

        Raises InvalidInput for a file that fits no known base or not the one that is named.
        """
        self._context.actor.must_edit()
        wanted = parsed(BringAdapter, request, values)
        file = self._mine(wanted.path)
        family = family_of(wanted.base)[0].name if wanted.base else ""
        found = adapter_files.inspect(file, family=family)
        base = self._models.base(wanted.base or found.base)
        if base.folder is not None:
            fitting, layers = adapter_files.fits(file, found.family, base.folder)
            if not fitting and layers:
                raise InvalidInput(
                    f"None of the {layers} layers of {file.name} fits {base.title}.",
                    "Name the base that it was made for.",
                    field="base",
                )
        if wanted.character_id is not None:
            characters.get_character(self._context.store, actor=self._context.actor, id=wanted.character_id)
        trigger, _, class_word = (wanted.trigger_word or found.trigger).partition(" ")
        name = clean_name(wanted.name or found.title or file.stem)
        must_have_room(self._context.workspace.adapters, file.stat().st_size)
        params = {
            "tool": "bring", "file": str(file), "family": found.family, "base": self._models.base_params(base.id),
            "trigger_word": clean_trigger(trigger) if trigger else "", "class_word": class_word[:100],
            "request": {"brought": file.name}, "sources": [str(file)], **self._output(name),
            "forget": file.is_relative_to(self._context.workspace.uploads.resolve()),
        }  # fmt: skip
        return self._jobs.add(
            "edit_adapter", title=f"Taking in {name}", request=wanted.as_dict(), params=params,
            character_id=wanted.character_id,
        )  # fmt: skip

    def push(self, request: PushAdapter | Mapping[str, Any] | None = None, /, **values: Any) -> Job:
        """The job that puts the LoRA on Hugging Face; raises AccessDenied without a token."""
        self._context.actor.must_edit()
        wanted = parsed(PushAdapter, request, values)
        adapter = self._models.adapter(wanted.adapter_id)
        if not self.may_push():
            raise AccessDenied("There is no Hugging Face token.", "Enter one with write access in Settings.")
        file = self._file(adapter)
        picture = file.with_name("sample.png")
        private_file = bool(adapter.config.get("private"))
        params = {
            "file": str(file), "repo": wanted.repo, "private": wanted.private, "name": adapter.name,
            "base": self._models.base_params(adapter.base), "trigger_word": adapter.trigger_word,
            "class_word": adapter.class_word, "weight": adapter.best_weight or 1.0,
            "picture": str(picture) if wanted.pictures and picture.is_file() and not private_file else None,
            "recipe": adapter.config if wanted.settings and not private_file else {},
        }  # fmt: skip
        return self._jobs.add(
            "push_adapter", title=f"Sending {adapter.name}", request=wanted.as_dict(), params=params,
            character_id=adapter.character_id,
        )  # fmt: skip

    def may_push(self) -> bool:
        """Whether there is a token with which it could be tried."""
        try:
            return bool(Preferences(self._context).value(TOKEN))
        except (NotFound, NotAllowed):
            return False

    # Versions

    def versions(self, *, character_id: int | None = None) -> list[Version]:
        """Every LoRA, hidden ones too: the one that is used first, then the newest."""
        known = rows.list_models(
            self._context.store, actor=self._context.actor, kind="adapter", character_id=character_id, active=None
        )
        used: set[tuple[int | None, str]] = set()
        made = []
        for adapter in sorted(known, key=rows.order_of, reverse=True):
            of = (adapter.character_id, adapter.base)
            first = adapter.active and of not in used
            used |= {of} if first else set()
            made.append(self._version(adapter, used=first))
        return made

    def use(self, adapter_id: int) -> Model:
        """The version that is used from now on; brought back where it was hidden."""
        self._context.actor.must_edit()
        adapter = self._any(adapter_id)
        return rows.set_model(
            self._context.store, actor=self._context.actor, id=adapter.id, active=True,
            config={**adapter.config, rows.USED_AT: now_at()},
        )  # fmt: skip

    def hide(self, adapter_id: int) -> Model:
        """The LoRA, out of the lists; its files stay."""
        self._context.actor.must_edit()
        adapter = self._models.adapter(adapter_id)
        return rows.set_model(self._context.store, actor=self._context.actor, id=adapter.id, active=False)

    def show(self, adapter_id: int) -> Model:
        """A hidden LoRA, in the lists again."""
        self._context.actor.must_edit()
        return rows.set_model(
            self._context.store, actor=self._context.actor, id=self._any(adapter_id).id, active=True
        )

    def delete(self, adapter_id: int) -> None:
        """Deletes a LoRA with its files, hidden or not; pictures drawn with it stay."""
        self._context.actor.must_edit()
        self._models.erase(self._any(adapter_id).id)

    def _version(self, adapter: Model, *, used: bool) -> Version:
        run_name, step, likeness = "", None, None
        if adapter.run_id is not None:
            try:
                run = runs.get_run(self._context.store, actor=self._context.actor, id=adapter.run_id)
                found = scores.list_scores(self._context.store, actor=self._context.actor, run_id=run.id)
            except NotFound:
                found = []
            else:
                run_name, step = run.name, run.report.get("best_step") or run.config.get("steps")
            mine = [s.value for s in found if s.name == "likeness" and s.step == step and s.weight == 1.0]
            likeness = mine[-1] if mine else None
        return Version(adapter, run_name, step, likeness, hidden=not adapter.active, used=used)

    def _any(self, adapter_id: int) -> Model:
        found = rows.get_model(self._context.store, actor=self._context.actor, id=adapter_id)
        if found.kind != "adapter":
            raise NotFound("There is no such LoRA.", "Choose one from the list.")
        return found

    def _file(self, adapter: Model) -> Path:
        file = self._context.here(self._context.workspace.resolve(adapter.path))
        if not file.is_file():
            raise Conflict(f"The file of {adapter.name} is gone.", "Train it again or delete it.")
        return file

    def _mine(self, path: str) -> Path:
        """The file that a person may take in: any of the owner's machine, or one that they sent."""
        file = self._context.workspace.resolve(Path(path).expanduser()).resolve()
        uploads = self._context.workspace.uploads.resolve()
        inside = file.relative_to(uploads).parts if file.is_relative_to(uploads) else ()
        if not (inside and inside[0].startswith(f"{self._context.actor.user_id}-")):
            self._context.actor.must_own()
        if not file.is_file():
            raise InvalidInput(f"There is no file {file.name!r}.", "Look at the path.", field="path")
        return file

    def _output(self, name: str) -> dict[str, str]:
        folder = clean_filename(name).replace(" ", "-").lower()
        return {"name": name, "output": str(self._context.workspace.adapters / f"{secrets.token_hex(4)}-{folder}")}

    def _add(self, tool: str, title: str, adapter: Model, wanted: Request, params: Mapping[str, Any]) -> Job:
        given = {
            "tool": tool, "family": adapter.family, "base": self._models.base_params(adapter.base),
            "trigger_word": adapter.trigger_word, "class_word": adapter.class_word, "name": adapter.name,
            "request": {**adapter.config, "made_by": tool} if tool == "resize" else {"made_by": tool}, **params,
        }  # fmt: skip
        return self._jobs.add(
            "edit_adapter", title=title, request=wanted.as_dict(), params=given, character_id=adapter.character_id
        )


@lru_cache(maxsize=64)
def _inspected(file: Path, family: str, sha256: str, measure: bool) -> Found:
    return adapter_files.inspect(file, family=family, measure=measure)


def _converted_name(file: Path, convention: str) -> str:
    return f"{file.stem} {convention}.safetensors"


def _shortened(name: str, ending: str) -> str:
    return name[: 100 - len(ending)].rstrip() + ending


def conventions_of(adapter: Model) -> Sequence[str]:
    """The conventions that are offered for a LoRA, the one it is written in first."""
    return names_of(adapter.family).offered
