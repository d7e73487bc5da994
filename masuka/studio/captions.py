"""Captions of a data set: who can write them, the table, edits that can be undone, tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.datasets.captions import wording
from masuka.datasets.captions.asked import NAME, Asked, write_asked
from masuka.datasets.captions.captioners import CAPTIONERS, MODEL_FILES, Entry, Where, captioner_named
from masuka.datasets.captions.text import ensure_trigger, fill_template
from masuka.datasets.edits import Recipe
from masuka.errors import Conflict, InvalidInput, OutOfMemory
from masuka.hosting.machine import machine
from masuka.models.catalogue import FINISHED, repo_folder
from masuka.providers.vision import fingerprint
from masuka.requests.captions import CaptionPictures
from masuka.requests.datasets import EditCaptions, clean_caption
from masuka.store import caption_changes as changes
from masuka.store import datasets as rows
from masuka.store import outlines, pictures
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.studio.context import Context, parsed
from masuka.studio.datasets import Datasets
from masuka.studio.edits import Edits
from masuka.studio.jobs import WAITING, Jobs
from masuka.studio.preferences import Preferences
from masuka.studio.remembering import remember

KINDS = ("caption_pictures", "ask_captions")
"""The job of a captioner that is loaded here, and of one that is asked elsewhere."""
OPTION = "caption_style"
BY_PEOPLE = frozenset({"person", "file", ""})
"""Whose captions are worked into new ones; a template or a captioner wrote the others."""
ALWAYS = 0.9
"""What is in this share of captions never changes, or hardly."""
_FEWEST_TO_JUDGE = 5
_IN_FP32 = 1.8
"""On a CPU, where weights have twice the bytes, a captioner needs about so much more memory."""


@dataclass(frozen=True)
class Captioner:
    """One captioner and whether it can start now; `why_not` says what is missing."""

    name: str
    title: str
    about: str
    where: Where
    licence: str
    commercial: bool
    size_gib: float
    model: str
    ready: bool
    why_not: str
    can_download: bool


class Captions:
    """Have captions written, look through them, change them, go back."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datasets = Datasets(context)
        self._edits = Edits(context)
        self._jobs = Jobs(context)

    def captioners(self) -> list[Captioner]:
        """Every captioner, the built-in first, with what keeps it from starting."""
        return [self._captioner(entry) for entry in CAPTIONERS.values()]

    def download(self, name: str) -> Job:
        """The job that fetches a captioner; raises Conflict where nothing is missing."""
        self._context.actor.must_own()
        entry = captioner_named(name)
        if entry.where != "hub" or self._is_there(entry):
            raise Conflict(f"{entry.title} needs no download.")
        about = {"repo": entry.repo, "revision": entry.revision, "folder": str(self._folder(entry))}
        return self._jobs.add(
            "download_model",
            title=f"Downloading {entry.title}",
            request={"captioner": name},
            params={**about, "size_gib": entry.size_gib, "patterns": list(MODEL_FILES)},
        )

    def start(
        self,
        dataset_id: int,
        request: CaptionPictures | Mapping[str, Any] | None = None,
        /,
        *,
        key: str | None = None,
        **values: Any,
    ) -> Job:
        """The job that writes captions; the same `key` again gives the same job again.

        Raises Conflict or OutOfMemory where the captioner cannot start, InvalidInput where
        there is no picture for it. What was there before can be had back by `undo`.
        """
        self._context.actor.must_edit()
        wanted = parsed(CaptionPictures, request, values)
        dataset, entry = self._datasets.get(dataset_id), captioner_named(wanted.captioner)
        self._must_be_ready(entry)
        chosen = self._chosen(dataset, wanted)
        with self._context.store.write():
            before = self._jobs.asked_before(key)
            if before is not None:
                return before
            self._must_be_quiet(dataset)
            remember(self._context, dataset.id, f"captions by {entry.title}", chosen)
            self._keep_style(dataset, wanted)
            return self._jobs.add(
                KINDS[1] if entry.where == "hosted" else KINDS[0],
                title=f"Captions by {entry.title} for {dataset.name}",
                request={"dataset_id": dataset.id, **wanted.as_dict()},
                params=self._params(dataset, entry, wanted, chosen),
                dataset_id=dataset.id,
                character_id=dataset.character_id,
                idempotency_key=key,
            )

    def style(self, dataset_id: int) -> CaptionPictures:
        """How captions of this set were last asked for, without the pictures."""
        kept = self._datasets.get(dataset_id).options.get(OPTION, {})
        return CaptionPictures.parse({k: v for k, v in kept.items() if k in CaptionPictures.model_fields})

    def table(
        self,
        dataset_id: int,
        *,
        after: int | None = None,
        limit: int = 100,
        search: str = "",
        only: str = "kept",
    ) -> list[Picture]:
        """Pictures after the picture `after` whose caption or name holds the text.

        `only` is all, kept, aside, empty or problem.
        """
        if only not in changes.ONLY:
            raise InvalidInput(
                f"There is no filter {only!r}.", f"Known are: {', '.join(changes.ONLY)}.", field="only"
            )
        return changes.search_captions(
            self._context.store,
            actor=self._context.actor,
            dataset_id=dataset_id,
            search=search.strip(),
            only=only,
            after_id=after,
            limit=limit,
        )

    def texts(self, dataset_id: int, *, search: str = "", only: str = "kept") -> dict[int, str]:
        """The captions of `table` without a limit, by picture, and nothing else of them."""
        return outlines.list_captions(
            self._context.store,
            actor=self._context.actor,
            dataset_id=dataset_id,
            search=search.strip(),
            only=only,
        )

    def problems(self, dataset_id: int) -> dict[int, str]:
        """Why the captioner could not do kept pictures, by picture."""
        return outlines.list_caption_problems(
            self._context.store, actor=self._context.actor, dataset_id=dataset_id
        )

    def set(self, picture_id: int, text: str, *, before: str | None = None) -> Picture:
        """The picture with its new caption; raises as `datasets.set_caption` does."""
        return self._datasets.set_caption(picture_id, text, before=before)

    def edit(self, request: EditCaptions | Mapping[str, Any] | None = None, /, **values: Any) -> int:
        """How many captions one change to many altered; all change or none does."""
        return self._datasets.edit_captions(request, **values)

    def undo(self, dataset_id: int) -> str:
        """Says which change was taken back; raises Conflict where there is none.

        Of each set the last 50 changes can be undone, whoever made them. One that changed
        nothing, such as a captioner's that failed at once, is passed over.
        """
        self._context.actor.must_edit()
        store, actor = self._context.store, self._context.actor
        with store.write():
            count = 0
            while not count:
                change = changes.last_change(store, actor=actor, dataset_id=dataset_id)
                if change is None:
                    break
                self._must_be_quiet(self._datasets.get(dataset_id))
                count = changes.undo_change(store, actor=actor, change=change)
        if change is None:  # said only now: what changed nothing is forgotten for good
            raise Conflict("There is nothing to undo.")
        return f"Undone: {change.what}. {count} {'caption is' if count == 1 else 'captions are'} as before."

    def can_undo(self, dataset_id: int) -> str:
        """What `undo` would take back; '' for nothing."""
        change = changes.last_change(self._context.store, actor=self._context.actor, dataset_id=dataset_id)
        return change.what if change else ""

    def statistics(self, dataset_id: int) -> list[tuple[str, int]]:
        """Each tag of the captions with how many have it, the most frequent first."""
        return wording.statistics(self.texts(dataset_id).values())

    def always(self, dataset_id: int) -> list[str]:
        """What nearly every caption says: traits that the trigger word may well stand for."""
        dataset, texts = self._datasets.get(dataset_id), [t for t in self.texts(dataset_id).values() if t]
        if len(texts) < _FEWEST_TO_JUDGE:
            return []
        rules = wording.Rules("tags", dataset.trigger_word, dataset.class_word)
        counts = Counter(phrase for text in texts for phrase in set(wording.traits(text, rules)))
        return [phrase for phrase, count in counts.most_common() if count >= ALWAYS * len(texts)]

    def remove_tag(self, dataset_id: int, tag: str) -> int:
        """How many captions lost the tag; it is a whole piece between commas."""
        return self._change_tags(dataset_id, f"removing {tag!r}", lambda text: wording.without(text, tag))

    def rename_tag(self, dataset_id: int, tag: str, to: str) -> int:
        """How many captions have the tag under its new name; '' removes it."""
        to = clean_caption(to)
        if not to:
            return self.remove_tag(dataset_id, tag)
        return self._change_tags(
            dataset_id, f"{tag!r} as {to!r}", lambda text: wording.renamed(text, tag, to)
        )

    def even_out(self, dataset_id: int) -> int:
        """How many captions got the words that the set uses most for one thing."""
        texts = self.texts(dataset_id)
        even = wording.settled(texts, trigger_word=self._datasets.get(dataset_id).trigger_word)
        return self._write(dataset_id, "one wording", texts, even)

    def _change_tags(self, dataset_id: int, what: str, change: Any) -> int:
        held = {id: text for id, text in self.texts(dataset_id).items() if text}
        return self._write(dataset_id, what, held, {id: change(text) for id, text in held.items()})

    def _write(self, dataset_id: int, what: str, old: Mapping[int, str], new: Mapping[int, str]) -> int:
        """How many captions were changed; one that is not the old one any more is left alone."""
        self._context.actor.must_edit()
        store, actor = self._context.store, self._context.actor
        wanted = {id: clean_caption(text) for id, text in new.items() if text != old[id]}
        with store.write():
            now = pictures.get_pictures(store, actor=actor, ids=wanted)
            before = [picture for picture in now if picture.caption == old[picture.id]]
            if not before:
                return 0
            remember(self._context, dataset_id, what, before)
            return pictures.set_captions(store, actor=actor, captions={p.id: wanted[p.id] for p in before})

    def _chosen(self, dataset: Dataset, wanted: CaptionPictures) -> list[Picture]:
        every = {picture.id: picture for picture in self._datasets.every_picture(dataset.id)}
        unknown = [id for id in wanted.picture_ids if id not in every]
        if unknown:
            raise InvalidInput(
                f"The picture {unknown[0]} is not in this set.", "Select again.", field="picture_ids"
            )
        ids = wanted.picture_ids or [picture.id for picture in every.values() if not picture.aside]
        found = [every[id] for id in dict.fromkeys(ids)]
        if wanted.only_empty:
            found = [picture for picture in found if not self._own_words(dataset, picture)]
        if not found:
            raise InvalidInput("There is no picture to caption.", "Add or select some.", field="picture_ids")
        return found

    def _own_words(self, dataset: Dataset, picture: Picture) -> str:
        """The caption where it says more than the set's template; '' otherwise."""
        filled = fill_template(dataset.caption_template, dataset.trigger_word, dataset.class_word)
        plain = ("", dataset.trigger_word, filled, ensure_trigger(filled, dataset.trigger_word))
        return "" if picture.caption in plain or picture.caption_from == "template" else picture.caption

    def _params(
        self, dataset: Dataset, entry: Entry, wanted: CaptionPictures, chosen: Sequence[Picture]
    ) -> dict[str, Any]:
        ids = {picture.id for picture in chosen}
        # One file for each set: while a job is not done, no other one is asked for.
        asked = self._context.workspace.datasets.resolve() / f"{dataset.id:05d}" / NAME
        others = [text for id, text in self.texts(dataset.id).items() if text and id not in ids]
        token = write_asked(Asked([self._picture(dataset, p, wanted) for p in chosen], others), asked)
        folder = self._folder(entry) if entry.where != "hosted" else None
        return {
            "dataset_id": dataset.id,
            "captioner": entry.name,
            "style": wanted.style,
            "constant": list(wanted.constant),
            "consistent": wanted.consistent,
            "trigger_word": dataset.trigger_word,
            "class_word": dataset.class_word,
            "folder": None if folder is None else str(folder),
            "service": self._service(entry, wanted) if entry.where == "hosted" else None,
            "device": self._context.settings.device,
            "asked": str(asked),
            "token": token,
        }

    def _picture(self, dataset: Dataset, picture: Picture, wanted: CaptionPictures) -> dict[str, Any]:
        matte = self._edits.matte(picture.id) if Recipe.from_row(picture.edits).cuts_out else None
        keeps = wanted.keep_partial and picture.caption_from in BY_PEOPLE
        return {
            "id": picture.id,
            "file": str(self._context.here(self._context.workspace.resolve(picture.file))),
            "edits": picture.edits,
            "matte": None if matte is None else str(matte),
            "partial": self._own_words(dataset, picture) if keeps else "",
            "was": picture.caption,
        }

    def _service(self, entry: Entry, wanted: CaptionPictures) -> dict[str, Any]:
        preferences = Preferences(self._context)
        return {
            "title": entry.title,
            "address": self._address(entry),
            "model": wanted.model or entry.model,
            "key_name": entry.key,
            "key_is": fingerprint(preferences.value(entry.key)),
            "local": sorted(preferences.local),
        }

    def _address(self, entry: Entry) -> str:
        own = Preferences(self._context).base_url() if entry.key == "OPENAI_API_KEY" else ""
        return own or entry.address

    def _keep_style(self, dataset: Dataset, wanted: CaptionPictures) -> None:
        kept = {k: v for k, v in wanted.as_dict().items() if k != "picture_ids"}
        rows.set_dataset(
            self._context.store,
            actor=self._context.actor,
            id=dataset.id,
            options={**self._datasets.get(dataset.id).options, OPTION: kept},
        )

    def _must_be_quiet(self, dataset: Dataset) -> None:
        running = [j for k in KINDS for j in self._jobs.list(dataset_id=dataset.id, kind=k, states=WAITING)]
        if running:
            raise Conflict("Captions for this set are being written.", "Wait for that job or cancel it.")

    def _must_be_ready(self, entry: Entry) -> None:
        why_not = self._why_not(entry)
        if why_not:
            kind = OutOfMemory if "memory" in why_not[0] else Conflict
            raise kind(*why_not)

    def _captioner(self, entry: Entry) -> Captioner:
        why_not = self._why_not(entry)
        return Captioner(
            name=entry.name, title=entry.title, about=entry.about, where=entry.where, licence=entry.licence,
            commercial=entry.commercial, size_gib=entry.size_gib, model=entry.model, ready=not why_not,
            why_not=" ".join(why_not), can_download=entry.where == "hub" and not self._is_there(entry),
        )  # fmt: skip

    def _why_not(self, entry: Entry) -> tuple[str, ...]:
        """(what stands in the way, what to do); () for nothing."""
        if entry.where == "hosted":
            if not Preferences(self._context).value(entry.key):
                return (f"There is no key for {entry.title}.", f"Enter {entry.key} in Settings.")
            return ()
        if not self._is_there(entry):
            return (f"{entry.title} is not on this machine.", f"Download it first ({entry.size_gib:g} GiB).")
        return self._room(entry)

    def _room(self, entry: Entry) -> tuple[str, ...]:
        now = machine(self._context.workspace.root, device=self._context.settings.device)
        on_gpu = now.device.startswith("cuda") and now.vram_total_gib > 0
        # Other models leave the GPU's memory before a captioner starts; the machine's own stays taken.
        there = now.vram_total_gib if on_gpu else now.ram_free_gib
        needed = entry.memory_gib if on_gpu or entry.where == "here" else entry.memory_gib * _IN_FP32
        if there >= needed:
            return ()
        where = "The GPU's" if on_gpu else "The machine's free"
        hint = f"{entry.title} needs {needed:.1f} GiB. Close other programs, or choose a smaller one."
        return (f"{where} memory has {there:.1f} GiB.", hint)

    def _is_there(self, entry: Entry) -> bool:
        folder = self._folder(entry)
        mark = "config.json" if entry.where == "here" else FINISHED
        return (folder / mark).is_file()

    def _folder(self, entry: Entry) -> Path:
        return entry.folder or repo_folder(entry.repo, self._context.workspace)
