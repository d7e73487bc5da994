"""What is good and doubtful in a data set, and the remedies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masuka.datasets import checking, choosing, embedding, faces
from masuka.datasets import lint as captions
from masuka.datasets.doctor import KINDS, KindOfFinding, Remedy, shows_people
from masuka.errors import InvalidInput
from masuka.requests.doctor import KeepBest, LookAfter
from masuka.store import datasets, findings, outlines, pictures
from masuka.store.datasets import Dataset
from masuka.store.findings import Finding
from masuka.store.jobs import Job
from masuka.store.pictures import Picture
from masuka.studio.context import Context
from masuka.studio.edits import Edits
from masuka.studio.jobs import Jobs

MOST_SAMPLED = 300
"""Pictures by which the variety of a set is judged: a report must not read 10,000."""
FEWEST_PICTURES = 10
_ROWS = "doctor.jsonl"


@dataclass(frozen=True)
class Report:
    """How a set is: what was found, and how it was judged.

    `counts` are kept pictures by kind of finding, `doubtful` kept ones with any finding.
    `sentences` are what a person should know, worst first; `notes` how it was judged.
    """

    counts: dict[str, int]
    sentences: list[str]
    kept: int
    aside: int
    doubtful: int
    unmeasured: int
    notes: list[str]


@dataclass(frozen=True)
class RemedyOffered:
    """A remedy for all pictures with one kind of finding: its button, what it does."""

    label: str
    does: Remedy


class Doctor:
    """Look at a set, tell what was found, mend it, keep the best."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._jobs = Jobs(context)

    def look(self, dataset_id: int) -> Job:
        """The job that measures what is new and compares all; the same while it waits.

        One that waits looks at the pictures of now; where it would judge otherwise than is
        asked for now, another one takes its place.
        """
        self._context.actor.must_edit()
        dataset = self._dataset(dataset_id)
        folder = self._folder(dataset_id)
        folder.mkdir(parents=True, exist_ok=True)
        checking.write_rows(map(self._row, self._every(dataset_id)), folder / _ROWS)
        params = self._params(dataset, folder)
        waiting = self._jobs.list(dataset_id=dataset_id, kind="check_dataset", states=["queued"], limit=20)
        alike = [job for job in waiting if job.params == params]
        self._jobs.cancel([job.id for job in waiting if job not in alike])
        if alike:
            return alike[0]
        return self._jobs.add(
            "check_dataset",
            title=f"Looking at {dataset.name}",
            request={"dataset_id": dataset_id},
            params=params,
            dataset_id=dataset_id,
            character_id=dataset.character_id,
        )

    def set_strictness(
        self, dataset_id: int, strictness: str, *, resolution_px: int | None = None
    ) -> Dataset:
        """The set that is judged so from now on, and is looked at again."""
        self._context.actor.must_edit()
        store, actor = self._context.store, self._context.actor
        with store.write():
            before = self._dataset(dataset_id)
            given = {"strictness": strictness, "resolution_px": resolution_px}
            known = {"resolution_px": before.options.get("resolution_px", 0)}
            wanted = LookAfter.parse({**known, **{k: v for k, v in given.items() if v is not None}})
            options = {**before.options, **wanted.as_dict()}
            datasets.set_dataset(store, actor=actor, id=dataset_id, options=options)
        if before.picture_count:
            self.look(dataset_id)
        return self._dataset(dataset_id)

    def report(self, dataset_id: int) -> Report:
        """What was found when the set was last looked at; raises NotFound."""
        store, actor = self._context.store, self._context.actor
        dataset = self._dataset(dataset_id)
        found = findings.count_findings(store, actor=actor, dataset_id=dataset_id)
        shown = pictures.count_shown(store, actor=actor, dataset_id=dataset_id)
        counts = {kind: found[kind] for kind in KINDS if kind in found}
        sample = [
            _measures(p)
            for p in pictures.sample_pictures(store, actor=actor, dataset_id=dataset_id, most=MOST_SAMPLED)
        ]
        sentences = [f"{_pictures(n)}: {KINDS[kind].label}. {KINDS[kind].sentence}" for kind, n in counts.items()]
        if 0 < shown["kept"] < FEWEST_PICTURES:
            sentences.append(
                f"{_pictures(shown['kept'])}: from {FEWEST_PICTURES} on a character is learnt well."
            )
        sentences += choosing.variety(sample, class_word=dataset.class_word)
        people = shows_people(sample, dataset.class_word) if sample else False
        notes = self._notes(dataset, sample, people=people) if shown["kept"] else []
        return Report(
            counts=counts, sentences=sentences, kept=shown["kept"], aside=shown["aside"],
            doubtful=shown["doubtful"], unmeasured=shown["unmeasured"], notes=notes,
        )  # fmt: skip

    def findings(self, picture_ids: Sequence[int]) -> dict[int, list[Finding]]:
        """The findings of these pictures, gravest first; those without are left out."""
        store, actor = self._context.store, self._context.actor
        sets: dict[int, list[int]] = {}
        for picture in pictures.get_pictures(store, actor=actor, ids=picture_ids):
            sets.setdefault(picture.dataset_id, []).append(picture.id)
        found: dict[int, list[Finding]] = {}
        for dataset_id, ids in sets.items():
            for finding in findings.list_findings(store, actor=actor, dataset_id=dataset_id, picture_ids=ids):
                found.setdefault(finding.picture_id, []).append(finding)
        return {id: sorted(of_one, key=_gravity) for id, of_one in found.items()}

    def alike(self, dataset_id: int) -> dict[int, int]:
        """For each kept picture that is like a better, kept one: that one's id."""
        return findings.list_alike(self._context.store, actor=self._context.actor, dataset_id=dataset_id)

    def remedies(self, kind: str) -> list[RemedyOffered]:
        """What can be done about all pictures with that finding, the usual first."""
        about = _kind(kind)
        offered = [RemedyOffered(about.remedy, about.does)]
        if about.does != "aside":
            offered.append(RemedyOffered("Set them aside", "aside"))
        return offered

    def apply(self, dataset_id: int, kind: str, does: str | None = None) -> int:
        """How many kept pictures with that finding were changed by its remedy.

        They are set aside, or cropped by their recipe; nothing is deleted. A picture
        that cannot be cropped so is left as it is.
        """
        self._context.actor.must_edit()
        wanted = does or _kind(kind).does
        if wanted not in {remedy.does for remedy in self.remedies(kind)}:
            raise InvalidInput("That does not help against this finding.", "Choose one of its remedies.")
        store, actor = self._context.store, self._context.actor
        self._dataset(dataset_id)
        ids = pictures.list_picture_ids(store, actor=actor, dataset_id=dataset_id, only=kind)
        if wanted == "aside":
            return pictures.set_aside(store, actor=actor, ids=ids, aside=True)
        return self._crop(dataset_id, kind, ids, wanted)

    def best(self, dataset_id: int, count: int = 25) -> list[int]:
        """The ids of the best pictures that differ most, the best first.

        Only of those that are kept; copies and spoilt ones come last.
        """
        wanted = KeepBest.parse({"count": count})
        dataset = self._dataset(dataset_id)
        kept = self._every(dataset_id, only="kept")
        if len(kept) <= wanted.count:
            return [p.id for p in kept]
        told: dict[str, list[str]] = {}
        names = {p.id: p.sha256 for p in kept}
        listed = findings.list_findings(
            self._context.store, actor=self._context.actor, dataset_id=dataset_id
        )
        for finding in listed:
            if finding.picture_id in names:
                told.setdefault(names[finding.picture_id], []).extend([finding.severity, finding.kind])
        rows = [_measures(p) for p in kept]
        chosen = choosing.best(rows, told, count=wanted.count, class_word=dataset.class_word)
        return [kept[i].id for i in chosen]

    def keep_best(self, dataset_id: int, count: int = 25) -> int:
        """How many pictures were set aside for the best ones to stay."""
        self._context.actor.must_edit()
        store, actor = self._context.store, self._context.actor
        best = set(self.best(dataset_id, count))
        kept = pictures.list_picture_ids(store, actor=actor, dataset_id=dataset_id, only="kept")
        return pictures.set_aside(store, actor=actor, ids=[id for id in kept if id not in best], aside=True)

    def lint(self, dataset_id: int, base: str = "") -> dict[int, list[str]]:
        """What is wrong with captions of kept pictures, by picture id.

        `base` is the model that will read them; its encoder sets how long they may be.
        """
        dataset = self._dataset(dataset_id)
        return captions.lint(
            outlines.list_captions(self._context.store, actor=self._context.actor, dataset_id=dataset_id),
            trigger_word=dataset.trigger_word,
            longest_tokens=captions.longest_for(base),
        )

    def download_embedder(self) -> Job:
        """The job that fetches the model by which the odd one out is told by likeness."""
        self._context.actor.must_own()
        return self._jobs.add(
            "download_model",
            title=f"Downloading {embedding.REPO}",
            request={"model": embedding.REPO},
            params=embedding.download_params(self._context.workspace.models),
        )

    def _params(self, dataset: Dataset, folder: Path) -> dict[str, Any]:
        """What the job that looks must know."""
        models = self._context.workspace.models
        return {
            "dataset_id": dataset.id,
            "folder": str(folder),
            "rows": str(folder / _ROWS),
            "strictness": dataset.options.get("strictness", "basic"),
            "resolution_px": dataset.options.get("resolution_px", 0),
            "class_word": dataset.class_word,
            "embedder": str(embedding.folder_in(models)) if embedding.is_here(models) else "",
        }

    def _crop(self, dataset_id: int, kind: str, ids: Sequence[int], part: str) -> int:
        """Crops those that can be; what was found about them is mended then."""
        edits = Edits(self._context)
        done = edits.crop_those(ids, part) if ids else []  # type: ignore[arg-type]  # one of its remedies
        findings.delete_findings(
            self._context.store, actor=self._context.actor, dataset_id=dataset_id, kind=kind, picture_ids=done
        )
        return len(done)

    def _notes(self, dataset: Dataset, sample: Sequence[dict[str, Any]], *, people: bool) -> list[str]:
        """How far the judgement reaches, where that is less than it could be."""
        if dataset.options.get("strictness") == "none":
            return ["The doctor looks at nothing: the strictness is none."]
        notes: list[str] = []
        models = self._context.workspace.models
        if not embedding.is_here(models) and len(sample) >= FEWEST_PICTURES:
            notes.append(
                "The odd one out is judged by colour and shape only; another person in the same place is not "
                f"found. Download {embedding.REPO} ({embedding.SIZE_GIB * 1024:.0f} MiB) to judge by likeness."
            )
        looked = any("faces" in row["scores"] for row in sample)
        why = faces.why_none(models)
        if people and why and not looked:
            notes.append(f"Faces are not judged. {why}")
        return notes

    def _every(self, dataset_id: int, only: str = "all") -> list[Picture]:
        return pictures.list_pictures(
            self._context.store, actor=self._context.actor, dataset_id=dataset_id, limit=None, only=only
        )

    def _row(self, picture: Picture) -> dict[str, Any]:
        """The picture for a job, which opens its file."""
        file = str(self._context.workspace.resolve(picture.file))
        return {**_measures(picture), "id": picture.id, "name": picture.original_name, "file": file}

    def _dataset(self, dataset_id: int) -> Dataset:
        return datasets.get_dataset(self._context.store, actor=self._context.actor, id=dataset_id)

    def _folder(self, dataset_id: int) -> Path:
        return self._context.workspace.datasets / f"{dataset_id:05d}"


def _measures(picture: Picture) -> dict[str, Any]:
    return {
        "sha256": picture.sha256, "scores": picture.scores, "width": picture.width, "height": picture.height,
        "edits": picture.edits, "aside": picture.aside,
    }  # fmt: skip


def _kind(kind: str) -> KindOfFinding:
    if kind not in KINDS:
        raise InvalidInput("The doctor knows no such finding.", "Reload the page.", field="kind")
    return KINDS[kind]


def _gravity(finding: Finding) -> tuple[bool, int]:
    return finding.severity != "bad", list(KINDS).index(finding.kind) if finding.kind in KINDS else len(KINDS)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"
