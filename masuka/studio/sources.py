"""Bases that a person brings, and the search for models elsewhere."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from masuka import outside
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.families import FAMILIES, family_of
from masuka.families.base import OWN, Entry
from masuka.models import catalogue, importing, recognising, search
from masuka.models.civitai import ADDRESS, Civitai, version_in
from masuka.models.download import must_have_room
from masuka.models.search import Checked, Kind, Offer
from masuka.requests.text import clean_filename, clean_name, clean_trigger, without_control
from masuka.store import models as rows
from masuka.store.jobs import Job
from masuka.studio.context import Context
from masuka.studio.jobs import Jobs
from masuka.studio.models import STUDIO, Models
from masuka.studio.preferences import Preferences

Where = Literal["hub", "civitai"]
GIB = 2**30
LONGEST_QUERY = 100
LONGEST_SLUG = 40
_TOKEN, _KEY = "HF_TOKEN", "CIVITAI_API_KEY"


@dataclass(frozen=True)
class Searched:
    """What was asked for, and what there was."""

    query: str
    where: Where
    kind: Kind
    nsfw: bool
    offers: Sequence[Offer]


class Sources:
    """Search, look at, and take in bases that the catalogue does not have.

    `endpoint` is another address of the hub's, for a stand-in.
    """

    def __init__(self, context: Context, *, endpoint: str | None = None) -> None:
        self._context = context
        self._models = Models(context)
        self._jobs = Jobs(context)
        self._preferences = Preferences(context)
        self._endpoint = endpoint

    def search(self, query: str, *, where: Where = "hub", kind: Kind = "base", nsfw: bool = False) -> list[Offer]:
        """Models elsewhere that match, the most downloaded first; at most 24.

        Raises RemoteUnavailable when the service does not answer within seconds.
        """
        self._context.actor.must_edit()
        query = without_control(query).strip()
        if not query or len(query) > LONGEST_QUERY:
            raise InvalidInput("Say what to look for.", f"At most {LONGEST_QUERY} characters.", field="query")
        if where == "hub":
            offers = search.hub(query, kind, token=self._secret(_TOKEN), endpoint=self._endpoint)
        elif where == "civitai":
            offers = self._civitai().search(query, kind, nsfw=nsfw)
        else:
            raise InvalidInput(f"Nothing is searched at {where!r}.", "Choose hub or civitai.", field="where")
        self._context.found[self._context.actor.user_id] = Searched(query, where, kind, nsfw, offers)
        return offers

    def last_search(self) -> Searched | None:
        """What this person found last; None since the app started."""
        found = self._context.found.get(self._context.actor.user_id)
        return found if isinstance(found, Searched) else None

    def check(self, repo: str, revision: str | None = None) -> Checked:
        """What a repository of the hub is, once it is sure that it can be used here.

        Raises InvalidInput for what cannot, AccessDenied, RemoteUnavailable.
        """
        self._context.actor.must_edit()
        checked = search.check(repo, revision, token=self._secret(_TOKEN), endpoint=self._endpoint)
        self._context.looked_at[self._context.actor.user_id] = checked
        return checked

    def last_check(self) -> Checked | None:
        """What this person looked at last; None since the app started."""
        found = self._context.looked_at.get(self._context.actor.user_id)
        return found if isinstance(found, Checked) else None

    def add_repo(self, repo: str, revision: str | None = None, *, name: str = "") -> Job:
        """The job that downloads a base of the hub, pinned to the commit it has now."""
        self._context.actor.must_own()
        checked = self.check(repo, revision)
        must_have_room(checked.repo, checked.size_bytes, self._context.workspace.models)
        base_id = self._new_id(checked.entry, name or checked.repo.rsplit("/", 1)[-1])
        config = {
            "kind": "download_model",
            "params": {
                **self._place(checked.entry, base_id), "repo": checked.repo, "revision": checked.commit,
                "autoencoder_repo": checked.entry.autoencoder_repo, "endpoint": self._endpoint,
            },
            "repo": checked.repo, "commit": checked.commit, "licence": checked.licence,
            "commercial": checked.commercial, "gated": checked.gated, "size_gib": checked.size_bytes / GIB,
            "said": checked.repo,
        }  # fmt: skip
        return self._add(checked.entry, base_id, name or checked.repo.rsplit("/", 1)[-1], config)

    def add_path(self, path: str | Path, *, name: str = "", link: bool = False) -> Job:
        """The job that takes in a diffusers folder or a single safetensors file.

        With `link` a folder's files stay where they are; what was uploaded goes once it is
        taken in. Raises InvalidInput for what
        nothing here can use, Conflict where a base of its kind has to be here first.
        """
        self._context.actor.must_own()
        source = self._context.workspace.resolve(without_control(str(path)).strip() or "-")
        if not source.exists():
            raise InvalidInput(f"There is nothing at {source.name!r}.", "Look at the path.", field="path")
        if source.is_dir():
            found = recognising.of_folder(source)
            size = sum(file.size for file in importing.chosen_in(source))
            how = {"how": "link" if link else "copy"}
        else:
            found = recognising.of_file(source)
            size = source.stat().st_size
            how = {"how": "file", "donor": str(self._donor(found.entry))}
        if how["how"] != "link":
            must_have_room(source.name, size, self._context.workspace.models)
        title = name or source.stem
        base_id = self._new_id(found.entry, title)
        sent = source.is_relative_to(self._context.workspace.uploads.resolve())
        params = {**how, "source": str(source), "sources": [str(source)], "forget": sent, "said": source.name}
        config = {
            "kind": "import_base", "params": {**self._place(found.entry, base_id), **params}, "licence": "",
            "commercial": None, "size_gib": size / GIB, "said": source.name,
        }  # fmt: skip
        return self._add(found.entry, base_id, title, config)

    def add_civitai(self, version: str, *, name: str = "") -> Job:
        """The job that fetches a version of CivitAI and makes a base of it."""
        self._context.actor.must_own()
        about = self._civitai().version(version_in(version))
        if about.kind != "base":
            raise InvalidInput(f"{about.title} is a LoRA and no base.", "Take it in under LoRAs.", field="repo")
        if about.entry is None:
            raise InvalidInput(
                f"{about.title} is made for {about.made_for or 'something unknown'}, which nothing here knows.",
                "Known are the bases on the Models page and what is made from them.", field="repo",
            )  # fmt: skip
        donor = self._donor(about.entry)
        must_have_room(about.title, 2 * about.size_bytes, self._context.workspace.models)
        title = name or about.title
        base_id = self._new_id(about.entry, title)
        said = f"civitai.com, version {about.id}"
        params = {
            **self._place(about.entry, base_id), "how": "civitai", "version": about.id, "donor": str(donor),
            "said": said, "address": self._address, "local": sorted(self._local),
        }  # fmt: skip
        config = {
            "kind": "fetch_base", "params": params, "licence": "CivitAI's terms", "commercial": None,
            "size_gib": about.size_bytes / GIB, "said": said,
        }  # fmt: skip
        return self._add(about.entry, base_id, title, config)

    def add_civitai_lora(self, version: str) -> Job:
        """The job that fetches a LoRA of CivitAI, bound to the base that it names."""
        self._context.actor.must_edit()
        about = self._civitai().version(version_in(version))
        if about.kind != "lora":
            raise InvalidInput(f"{about.title} is a base and no LoRA.", "Take it in under Models.", field="repo")
        if about.entry is None:
            raise InvalidInput(
                f"{about.title} is made for {about.made_for or 'something unknown'}, which nothing here knows.",
                "Take one for a base of the Models page.", field="repo",
            )  # fmt: skip
        must_have_room(about.title, 2 * about.size_bytes, self._context.workspace.adapters)
        return self._bring(about.title, f"civitai.com, version {about.id}", {
            "version": about.id, "address": self._address, "local": sorted(self._local),
            "family": family_of(about.entry.id)[0].name, "base": self._models.base_params(about.entry.id),
            "trigger_word": _trigger(about.trigger_words),
        })  # fmt: skip

    def add_repo_lora(self, repo: str) -> Job:
        """The job that fetches the LoRA of a repository; its layers say what it is for."""
        self._context.actor.must_edit()
        repo = search.clean_repo(repo)
        last = self.last_search()
        named = next((offer.made_for for offer in last.offers if offer.id == repo), "") if last else ""
        entry = next((e for family in FAMILIES.values() for e in family.entries if e.repo and e.repo == named), None)
        params: dict[str, Any] = {
            "repo": repo, "endpoint": self._endpoint, "family": "", "trigger_word": "",
            "base": {"id": ""} if entry is None else self._models.base_params(entry.id),
        }  # fmt: skip
        return self._bring(repo.rsplit("/", 1)[-1], repo, params)

    def _bring(self, title: str, said: str, params: Mapping[str, Any]) -> Job:
        workspace, name, mark = self._context.workspace, clean_name(title), secrets.token_hex(4)
        entries = [entry for family in FAMILIES.values() for entry in family.entries]
        given = {
            "tool": "bring", "folder": str(workspace.uploads / f"lora-{mark}"), "forget": True, "name": name,
            "bases": {entry.id: self._models.base_params(entry.id) for entry in entries}, "class_word": "",
            "request": {"brought": said},
            "output": str(workspace.adapters / f"{mark}-{clean_filename(name).replace(' ', '-').lower()}"),
        }  # fmt: skip
        return self._jobs.add("fetch_lora", title=f"Fetching {name}", request={"brought": said}, params={**given, **params})

    def add_made(self, entry: Entry, name: str, config: Mapping[str, Any]) -> Job:
        """The job that makes a base here; `config` is its kind, params, licence and size."""
        self._context.actor.must_own()
        base_id = self._new_id(entry, name)
        params = {**self._place(entry, base_id), **config["params"]}
        return self._add(entry, base_id, name, {**config, "params": params})

    def _add(self, entry: Entry, base_id: str, title: str, config: Mapping[str, Any]) -> Job:
        """Its row and its job; where it lies only the row knows."""
        family = family_of(entry.id)[0]
        title = clean_name(title)
        place = catalogue.place_of(base_id, self._context.workspace)
        rows.add_model(
            self._context.store, actor=STUDIO, kind="base", name=title, base=base_id, family=family.name,
            path=self._context.workspace.relative(place),
            config={**config, "about": f"Made from {entry.title}; {config['said']}."},
        )  # fmt: skip
        return self._models.add_job(base_id, title, str(config["kind"]), dict(config["params"]))

    def _place(self, entry: Entry, base_id: str) -> dict[str, Any]:
        workspace = self._context.workspace
        place = catalogue.place_of(base_id, workspace)
        adapter = catalogue.training_adapter_of(entry, workspace)
        missing = adapter is not None and not (adapter / catalogue.FINISHED).is_file()
        return {
            "id": base_id, "base": base_id, "folder": str(place), "place": str(place),
            "training_repo": entry.training_adapter if missing else None,
            "training_adapter": None if adapter is None else str(adapter),
        }  # fmt: skip

    def _new_id(self, entry: Entry, name: str) -> str:
        """`<entry>+<slug>`, which no other base has."""
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST_SLUG].strip("-") or "base"
        taken = {model.base for model in rows.list_models(self._context.store, actor=STUDIO, kind="base", active=None)}
        if f"{entry.id}{OWN}{slug}" not in taken:
            return f"{entry.id}{OWN}{slug}"
        number = next(n for n in range(2, 10_000) if f"{entry.id}{OWN}{slug}-{n}" not in taken)
        return f"{entry.id}{OWN}{slug}-{number}"

    def _donor(self, entry: Entry) -> Path:
        """An installed base from which a single file gets its configurations and tokenizers."""
        workspace = self._context.workspace
        family = family_of(entry.id)[0]
        for other in sorted(family.entries, key=lambda e: e.id != entry.id):
            alike = (other.prediction, other.guidance, _size(other)) == (entry.prediction, entry.guidance, _size(entry))
            if alike and other.folder is None and catalogue.is_drawable(other, workspace):
                return catalogue.folder_of(other, workspace)
        raise Conflict(
            f"A single file of this kind is completed from {entry.title}, which is not on this machine.",
            f"Download {entry.title} first.",
        )

    def _civitai(self) -> Civitai:
        return Civitai(self._secret(_KEY), address=self._address, local=self._local)

    @property
    def _address(self) -> str:
        return self._context.settings.civitai_base_url or ADDRESS

    @property
    def _local(self) -> frozenset[str]:
        given = self._context.settings.civitai_base_url
        return outside.named(given) if given else frozenset()

    def _secret(self, name: str) -> str:
        try:
            return self._preferences.value(name)
        except (NotFound, NotAllowed):
            return ""


def _trigger(words: Sequence[str]) -> str:
    """The first word that calls it which is one word; '' without any."""
    for word in words:
        try:
            return clean_trigger(word.split(",")[0])
        except InvalidInput:
            continue
    return ""


def _size(entry: Entry) -> int:
    return 0 if entry.size is None else entry.size.denoiser
