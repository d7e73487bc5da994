"""Pictures of a set: filtered, sorted and paged without loss, by indexes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from masuka.config import Workspace
from masuka.errors import InvalidInput, NotAllowed, NotFound
from masuka.requests.actor import Actor
from masuka.store import datasets, findings, pictures, users
from masuka.store.connect import Store
from masuka.store.migrations.m003_doctor import ORDERS

OWNER = Actor(1)
COUNT = 40


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    with Store.open(workspace) as store:
        yield store


@pytest.fixture
def dataset(store: Store) -> datasets.Dataset:
    """Forty pictures; every third has no scores, every fifth is aside, some have findings."""
    made = datasets.add_dataset(store, actor=OWNER, name="Set", trigger_word="mira7")
    rng = random.Random(4)
    for number in range(COUNT):
        scores = {} if number % 3 == 0 else {
            "v": 1, "sharpness": rng.choice([0.25, 0.5, 0.75]), "exposure": rng.random(),
            "jpeg_quality": rng.choice([None, 60, 90]), "faces": [[0, 0, rng.random(), 0.5, 0.9]] * (number % 2),
        }  # fmt: skip
        pictures.add_picture(
            store, actor=OWNER, dataset_id=made.id, file=f"{number}.png", original_name="a.png",
            sha256=f"{number:064x}", width=rng.randint(50, 99), height=10, bytes=1, caption="", scores=scores,
        )  # fmt: skip
    ids = [p.id for p in pictures.list_pictures(store, actor=OWNER, dataset_id=made.id)]
    pictures.set_aside(store, actor=OWNER, ids=ids[::5], aside=True)
    rows = [
        {"sha256": f"{n:064x}", "kind": "blurred", "severity": "bad" if n % 2 else "doubtful"} for n in range(0, 20, 3)
    ]
    rows += [{"sha256": f"{n:064x}", "kind": "dark", "severity": "doubtful"} for n in (3, 7)]
    rows += [
        {"sha256": f"{n:064x}", "kind": "duplicate", "severity": "bad", "other_sha256": f"{n + 1:064x}"}
        for n in (23, 24)  # the better one of 24 is number 25, which is aside
    ]
    findings.set_findings(store, actor=OWNER, dataset_id=made.id, rows=rows)
    return made


def walked(store: Store, dataset_id: int, **how: str) -> list[pictures.Picture]:
    found: list[pictures.Picture] = []
    while page := pictures.list_pictures(
        store, actor=OWNER, dataset_id=dataset_id, after_id=found[-1].id if found else None, limit=7, **how
    ):  # fmt: skip
        found += page
    return found


@pytest.mark.parametrize("sort", pictures.SORTS)
@pytest.mark.parametrize("only", ["all", "kept", "aside", "doubtful", "blurred"])
def test_pages_hold_every_picture_once(store: Store, dataset: datasets.Dataset, sort: str, only: str) -> None:
    pages = [p.id for p in walked(store, dataset.id, sort=sort, only=only)]
    whole = [p.id for p in pictures.list_pictures(
        store, actor=OWNER, dataset_id=dataset.id, limit=None, sort=sort, only=only)]  # fmt: skip
    assert pages == whole
    assert len(set(pages)) == len(pages) > 0


def test_each_order_is_what_it_says(store: Store, dataset: datasets.Dataset) -> None:
    def values(sort: str, name: str) -> list[float]:
        return [p.scores[name] for p in walked(store, dataset.id, sort=sort) if p.scores and p.scores[name]]

    assert values("sharpness", "sharpness") == sorted(values("sharpness", "sharpness"), reverse=True)
    assert values("exposure", "exposure") == sorted(values("exposure", "exposure"))
    assert values("quality", "jpeg_quality") == sorted(values("quality", "jpeg_quality"), reverse=True)
    areas = [p.width * p.height for p in walked(store, dataset.id, sort="size")]
    assert areas == sorted(areas, reverse=True)
    widths = [face[0][2] for face in values("face", "faces")]  # type: ignore[index]
    assert widths == sorted(widths, reverse=True) and len(widths) > 5
    worst = [p.sha256 for p in walked(store, dataset.id, sort="worst")][:2]
    assert worst == [f"{3:064x}", f"{9:064x}"]  # bad and doubtful, then bad


def test_what_was_not_measured_comes_last(store: Store, dataset: datasets.Dataset) -> None:
    for sort in ("sharpness", "exposure"):
        measured = [bool(p.scores) for p in walked(store, dataset.id, sort=sort)]
        assert measured == sorted(measured, reverse=True)


def test_filters_show_what_they_say(store: Store, dataset: datasets.Dataset) -> None:
    numbers = {
        only: {int(p.sha256, 16) for p in walked(store, dataset.id, only=only)}
        for only in ("all", "kept", "aside", "doubtful", "blurred", "duplicate")
    }
    assert numbers["aside"] == set(range(0, COUNT, 5))
    assert numbers["kept"] == numbers["all"] - numbers["aside"]
    assert numbers["blurred"] == {3, 6, 9, 12, 18}
    assert numbers["duplicate"] == {23}
    assert numbers["doubtful"] == {3, 6, 7, 9, 12, 18, 23}


def test_counts_are_of_what_the_filters_show(store: Store, dataset: datasets.Dataset) -> None:
    shown = pictures.count_shown(store, actor=OWNER, dataset_id=dataset.id)
    for only in ("kept", "aside", "doubtful"):
        assert shown[only] == len(walked(store, dataset.id, only=only))
    assert shown["unmeasured"] == sum(not p.scores for p in walked(store, dataset.id, only="kept"))
    counts = findings.count_findings(store, actor=OWNER, dataset_id=dataset.id)
    assert counts == {"blurred": 5, "dark": 2, "duplicate": 1}


def test_a_duplicate_is_none_once_the_better_is_aside(store: Store, dataset: datasets.Dataset) -> None:
    def duplicates() -> list[int]:
        ids = [p.id for p in walked(store, dataset.id, only="duplicate")]
        listed = findings.list_findings(store, actor=OWNER, dataset_id=dataset.id)
        assert [f.picture_id for f in listed if f.kind == "duplicate"] == ids
        return ids

    assert len(duplicates()) == 1
    better = next(p for p in walked(store, dataset.id) if int(p.sha256, 16) == 24)
    pictures.set_aside(store, actor=OWNER, ids=[better.id], aside=True)
    assert duplicates() == []


def test_a_list_goes_on_after_a_picture_that_is_gone(store: Store, dataset: datasets.Dataset) -> None:
    first = pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id, limit=10)
    pictures.delete_pictures(store, actor=OWNER, ids=[first[-1].id])
    following = pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id, after_id=first[-1].id)
    assert len(following) == COUNT - 10
    assert pictures.list_pictures(
        store, actor=OWNER, dataset_id=dataset.id, after_id=first[-1].id, sort="sharpness"
    )  # fmt: skip


def test_an_unknown_order_is_refused(store: Store, dataset: datasets.Dataset) -> None:
    with pytest.raises(InvalidInput, match="order"):
        pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id, sort="id; DROP TABLE pictures")


def test_nobody_lists_anothers_pictures(store: Store, dataset: datasets.Dataset) -> None:
    user = users.add_user(store, actor=OWNER, username="kim", role="editor")
    other = Actor(user.id, "editor", "kim")
    for sort in pictures.SORTS:
        assert pictures.list_pictures(store, actor=other, dataset_id=dataset.id, sort=sort) == []
    for ask in (pictures.count_shown, findings.count_findings, findings.list_findings):
        with pytest.raises(NotFound):
            ask(store, actor=other, dataset_id=dataset.id)
    with pytest.raises(NotAllowed):
        findings.delete_findings(
            store, actor=Actor(1, "viewer"), dataset_id=dataset.id, kind="dark", picture_ids=[1]
        )  # fmt: skip


def test_mended_findings_are_forgotten(store: Store, dataset: datasets.Dataset) -> None:
    ids = [p.id for p in walked(store, dataset.id, only="dark")]
    findings.delete_findings(store, actor=OWNER, dataset_id=dataset.id, kind="dark", picture_ids=ids[:1])
    assert [p.id for p in walked(store, dataset.id, only="dark")] == ids[1:]


@pytest.mark.parametrize("sort", ORDERS)
def test_an_index_serves_each_order(store: Store, dataset: datasets.Dataset, sort: str) -> None:
    assert ORDERS[sort] == pictures.SORTS[sort]
    with store.read() as conn:
        plan = conn.query(
            f"EXPLAIN QUERY PLAN SELECT * FROM pictures WHERE dataset_id = ? ORDER BY {ORDERS[sort]}, id LIMIT 60",
            [dataset.id],
        )
        details = " ".join(row["detail"] for row in plan)
    assert f"idx_pictures_by_{sort}" in details and "TEMP B-TREE" not in details


@pytest.mark.parametrize("only", ["all", "kept", "aside", "doubtful", "blurred"])
def test_numbers_are_listed_as_pictures_are(store: Store, dataset: datasets.Dataset, only: str) -> None:
    ids = pictures.list_picture_ids(store, actor=OWNER, dataset_id=dataset.id, only=only)
    assert ids == [p.id for p in walked(store, dataset.id, only=only)]


def test_who_looked_at_some_pictures_leaves_the_findings_of_others(
    store: Store, dataset: datasets.Dataset
) -> None:
    one, other = (f"{number:064x}" for number in (1, 2))
    told = [{"sha256": sha256, "kind": "dark", "severity": "bad"} for sha256 in (one, other)]
    findings.set_findings(store, actor=OWNER, dataset_id=dataset.id, rows=told)
    later = [{"sha256": one, "kind": "blurred", "severity": "bad"}]
    copy = {"sha256": one, "kind": "duplicate", "severity": "bad", "other_sha256": "of one that is deleted"}
    findings.set_findings(store, actor=OWNER, dataset_id=dataset.id, rows=[*later, copy], looked=[one])
    assert findings.count_findings(store, actor=OWNER, dataset_id=dataset.id) == {"blurred": 1, "dark": 1}
