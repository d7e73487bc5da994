"""What is asked of all pictures at once agrees with their rows, and is kept from strangers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from masuka.config import Workspace
from masuka.errors import NotFound
from masuka.requests import Actor
from masuka.store import outlines, pictures
from masuka.store.connect import Store
from masuka.store.datasets import add_dataset

ME = Actor(1)

SIZES = [(640, 480), (640, 480), (480, 640), (640, 480)]
"""The third is set aside, the fourth has a recipe."""


@pytest.fixture
def filled(workspace: Workspace) -> Iterator[tuple[Store, int]]:
    with Store.open(workspace) as db:
        yield db, _set(db)


def _set(db: Store) -> int:
    made = add_dataset(db, actor=ME, name="Set", trigger_word="mira7x")
    for number, (width, height) in enumerate(SIZES):
        picture = pictures.add_picture(
            db, actor=ME, dataset_id=made.id, file=f"{number}.png", original_name=f"50% off {number}.png",
            sha256=f"{number:064}", width=width, height=height, bytes=9, caption=f"mira7x number {number}",
            scores={"sharpness": 0.5},
        )  # fmt: skip
        assert picture is not None
    pictures.set_aside(db, actor=ME, ids=[3], aside=True)
    pictures.set_edits(db, actor=ME, id=4, edits={"turn": 90})
    return made.id


def test_outlines_are_the_kept_pictures_without_their_measures(filled: tuple[Store, int]) -> None:
    db, dataset_id = filled
    found = outlines.list_outlines(db, actor=ME, dataset_id=dataset_id)
    rows = pictures.list_pictures(db, actor=ME, dataset_id=dataset_id, only="kept")
    assert [(o.id, o.file, o.original_name, o.sha256, o.width, o.height, o.caption) for o in found] == [
        (p.id, p.file, p.original_name, p.sha256, p.width, p.height, p.caption) for p in rows
    ]


def test_sizes_are_counted_by_recipe(filled: tuple[Store, int]) -> None:
    db, dataset_id = filled
    found = outlines.list_sizes(db, actor=ME, dataset_id=dataset_id)
    assert {(s.width, s.height, s.edits.get("turn"), s.count) for s in found} == {
        (640, 480, None, 2),
        (640, 480, 90, 1),
    }


def test_captions_are_searched_by_text_and_name(filled: tuple[Store, int]) -> None:
    db, dataset_id = filled
    asked = lambda **values: list(outlines.list_captions(db, actor=ME, dataset_id=dataset_id, **values))  # noqa: E731
    assert asked() == [1, 2, 4] and asked(only="aside") == [3] and asked(only="all") == [1, 2, 3, 4]
    assert asked(search="NUMBER 1") == [2] and asked(search="50% off") == [1, 2, 4] and asked(search="_") == []


def test_why_there_is_no_caption(filled: tuple[Store, int]) -> None:
    db, dataset_id = filled
    for id in (2, 3):
        pictures.set_told_caption(db, actor=ME, id=id, caption=None, caption_from="", problem="It is dark.")
    assert outlines.list_caption_problems(db, actor=ME, dataset_id=dataset_id) == {2: "It is dark."}


def test_strangers_see_none_of_it(filled: tuple[Store, int]) -> None:
    db, dataset_id = filled
    for list_them in (
        outlines.list_outlines, outlines.list_sizes, outlines.list_captions, outlines.list_caption_problems,
    ):  # fmt: skip
        with pytest.raises(NotFound):
            list_them(db, actor=Actor(user_id=9, role="editor"), dataset_id=dataset_id)
