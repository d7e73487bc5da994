"""What a run learnt from, as it is recorded, and how its data set differs from it now."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masuka.datasets import crops
from masuka.datasets.content import hash_of, line_of
from masuka.datasets.edits import Recipe
from masuka.generation.prompts import fill
from masuka.requests.edits import Augment
from masuka.store.datasets import Dataset
from masuka.store.pictures import Picture

VERSION = 2
"""1 had captions by the pictures' sums alone."""
_NAMED = 3
_OF_A_PICTURE = {"caption": "caption", "edits": "edits", "focus": "face"}


@dataclass(frozen=True)
class Content:
    """Everything that a training learns from, beside its settings.

    Each of `pictures` has file (as stored), sha256, name, caption, width, height, edits
    and focus, which the same training takes again. `problem` says why it cannot.
    """

    trigger_word: str
    class_word: str
    pictures: tuple[Mapping[str, Any], ...]
    augment: Mapping[str, Any]
    dataset_id: int | None = None
    character_id: int | None = None
    problem: str = ""

    @property
    def hash(self) -> str:
        """The hash that the training itself computes and writes beside its LoRA."""
        words = {"trigger_word": self.trigger_word, "class_word": self.class_word}
        return hash_of(
            line_of(p["sha256"], fill(p["caption"], **words), Recipe.from_row(p["edits"]), p["focus"])
            for p in self.pictures
        )

    def as_row(self) -> dict[str, Any]:
        """As a run keeps it."""
        return {
            "version": VERSION,
            "hash": self.hash,
            "trigger_word": self.trigger_word,
            "class_word": self.class_word,
            "augment": dict(self.augment),
            "pictures": [dict(p) for p in self.pictures],
        }


@dataclass(frozen=True)
class Changed:
    """A picture that is learnt from otherwise now; `what`: caption, edits, face."""

    name: str
    sha256: str
    what: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """A run's content against its data set now; `sentences` is empty for the same.

    `gone` pictures have no file any more, `left_out` ones are only set aside or taken out,
    `added` ones came later. `problem` says why the run cannot be done again, '' where it can.
    """

    same: bool
    kept: int
    changed: tuple[Changed, ...]
    gone: tuple[str, ...]
    left_out: tuple[str, ...]
    added: int
    sentences: tuple[str, ...]
    problem: str


def of(dataset: Dataset, pictures: Sequence[Picture]) -> Content:
    """What a training of these pictures learns from as they are now."""
    augment = Augment.parse(dataset.options.get("augment", {}))
    return Content(
        trigger_word=dataset.trigger_word,
        class_word=dataset.class_word,
        pictures=tuple(_described(picture) for picture in pictures),
        augment=augment.model_dump(mode="json", exclude_defaults=True) if augment.is_on else {},
        dataset_id=dataset.id,
        character_id=dataset.character_id,
    )


def recorded(row: Mapping[str, Any], *, dataset_id: int | None, character_id: int | None) -> Content:
    """What a run learnt from, out of its row; of older runs captions alone are known."""
    if row.get("version") == VERSION:
        return Content(
            trigger_word=row["trigger_word"],
            class_word=row["class_word"],
            pictures=tuple(row["pictures"]),
            augment=row["augment"],
            dataset_id=dataset_id,
            character_id=character_id,
        )
    known = [
        {"sha256": sha256, "name": sha256[:8], "caption": caption, "edits": {}, "focus": None}
        for sha256, caption in row.items()
    ]
    problem = "It was recorded without its files, so it cannot be done again as it was."
    return Content("", "", tuple(known), {}, dataset_id, character_id, problem)


def difference(then: Content, now: Content | None, gone: Collection[str]) -> Difference:
    """How the content differs; `now` is None without a set, `gone` are lost sums."""
    here = {} if now is None else {p["sha256"]: p for p in now.pictures}
    changed, left_out, kept = [], [], 0
    for picture in then.pictures:
        other = here.get(picture["sha256"])
        if picture["sha256"] in gone:
            continue
        if other is None:
            left_out.append(picture["name"])
            continue
        what = tuple(word for key, word in _OF_A_PICTURE.items() if other[key] != picture[key])
        kept += not what
        if what:
            changed.append(Changed(other["name"], other["sha256"], what))
    lost = [p["name"] for p in then.pictures if p["sha256"] in gone]
    added = len(here.keys() - {p["sha256"] for p in then.pictures})
    sentences = _sentences(then, now, changed, lost, left_out, added)
    problem = then.problem
    if lost and not problem:
        problem = f"{_count(lost)} gone, so it cannot be done again as it was."
    return Difference(
        same=not sentences,
        kept=kept,
        changed=tuple(changed),
        gone=tuple(lost),
        left_out=tuple(left_out),
        added=added,
        sentences=sentences,
        problem=problem,
    )


def unseen(then: Content) -> Difference:
    """The same for a person who may not see the set: told is only that it is so."""
    return Difference(
        same=False,
        kept=len(then.pictures),
        changed=(),
        gone=(),
        left_out=(),
        added=0,
        sentences=("Its data set is not shared with you.",),
        problem="Without its data set it cannot be done again.",
    )


def _described(picture: Picture) -> dict[str, Any]:
    edits = Recipe.from_row(picture.edits).edits
    focus = crops.focus_of(picture.scores, picture.width, picture.height, edits)
    return {
        "id": picture.id,
        "dataset_id": picture.dataset_id,
        "file": picture.file,
        "name": picture.original_name,
        "sha256": picture.sha256,
        "caption": picture.caption,
        "width": picture.width,
        "height": picture.height,
        "edits": picture.edits,
        "focus": None if focus is None else list(focus),
    }


def _sentences(
    then: Content,
    now: Content | None,
    changed: Sequence[Changed],
    lost: Sequence[str],
    left_out: Sequence[str],
    added: int,
) -> tuple[str, ...]:
    found = []
    if now is None:
        found.append("Its data set was deleted.")
    if lost:
        found.append(f"{_count(lost)} gone: {_names(lost)}.")
    if left_out and now is not None:
        found.append(f"{_count(left_out)} no longer learnt from: {_names(left_out)}.")
    for word in _OF_A_PICTURE.values():
        names = [one.name for one in changed if word in one.what]
        if names:
            of = "1 picture has" if len(names) == 1 else f"{len(names):,} pictures have"
            found.append(f"{of} another {word if word != 'edits' else 'recipe'}: {_names(names)}.")
    if added:
        found.append("1 picture was added." if added == 1 else f"{added:,} pictures were added.")
    if now is not None and not then.problem:
        if (then.trigger_word, then.class_word) != (now.trigger_word, now.class_word):
            found.append(f"The words were {then.trigger_word} {then.class_word}.")
        if dict(then.augment) != dict(now.augment):
            found.append("The pictures were varied in another way.")
    return tuple(found)


def _count(names: Sequence[str]) -> str:
    return "1 picture is" if len(names) == 1 else f"{len(names):,} pictures are"


def _names(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest:,} more" if rest > 0 else "")
