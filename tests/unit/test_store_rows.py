"""Rows of every noun: added, read, changed and deleted; whose they are; what hangs on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.config import Workspace
from masuka.errors import Conflict, InvalidInput, NotAllowed, NotFound
from masuka.requests.actor import Actor
from masuka.store import (
    changes,
    characters,
    datasets,
    items,
    jobs,
    models,
    pictures,
    rows,
    runs,
    settings,
    users,
)
from masuka.store.connect import Store

OWNER = Actor(1)
VIEWER = Actor(1, "viewer")


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    with Store.open(workspace) as store:
        yield store


def editor(store: Store, name: str = "kim") -> Actor:
    user = users.add_user(store, actor=OWNER, username=name, role="editor")
    return Actor(user.id, "editor", name)


def a_character(store: Store, actor: Actor = OWNER, name: str = "Mira") -> characters.Character:
    return characters.add_character(store, actor=actor, name=name, trigger_word="mira7")


def a_dataset(store: Store, actor: Actor = OWNER, **values: Any) -> datasets.Dataset:
    return datasets.add_dataset(store, actor=actor, name="Set", trigger_word="mira7", **values)


def a_picture(store: Store, dataset_id: int, actor: Actor = OWNER, sha256: str = "aa") -> pictures.Picture:
    picture = pictures.add_picture(
        store, actor=actor, dataset_id=dataset_id, file=f"{sha256}.png", original_name="IMG.png", sha256=sha256,
        width=640, height=480, bytes=1000, caption="mira7 smiles",
    )  # fmt: skip
    assert picture is not None
    return picture


def a_run(store: Store, actor: Actor = OWNER, **values: Any) -> runs.Run:
    return runs.add_run(
        store, actor=actor, name="Mira 1", base="pocket", family="flux", config={"steps": 5}, **values
    )


def an_item(store: Store, actor: Actor = OWNER, prompt: str = "mira7 at sea", **values: Any) -> items.Item:
    return items.add_item(
        store, actor=actor, file="a.png", width=64, height=32, prompt=prompt, seed=7, settings={"steps": 4}, **values
    )  # fmt: skip


def a_model(store: Store, actor: Actor = OWNER, **values: Any) -> models.Model:
    return models.add_model(store, actor=actor, kind="adapter", name="Mira 1", config={"rank": 16}, **values)


def a_job(store: Store, actor: Actor = OWNER, **values: Any) -> jobs.Job:
    return jobs.add_job(
        store, actor=actor, kind="draw_images", lane="gpu", title="t", request={}, params={}, **values
    )  # fmt: skip


Maker = Callable[[Store, Actor], Any]
NOUNS: dict[str, tuple[Maker, Any, Any]] = {
    "character": (a_character, characters.get_character, characters.list_characters),
    "dataset": (a_dataset, datasets.get_dataset, datasets.list_datasets),
    "run": (a_run, runs.get_run, runs.list_runs),
    "item": (an_item, items.get_item, items.list_items),
    "model": (a_model, models.get_model, models.list_models),
    "job": (a_job, jobs.get_job, jobs.list_jobs),
    "picture": (
        lambda store, actor: a_picture(store, a_dataset(store, actor).id, actor),
        pictures.get_picture,
        lambda store, actor: pictures.list_pictures(store, actor=actor, dataset_id=1),
    ),
}


@pytest.mark.parametrize("noun", NOUNS)
def test_what_was_added_is_what_is_read(noun: str, store: Store) -> None:
    add, get, listed = NOUNS[noun]
    made = add(store, OWNER)
    assert get(store, actor=OWNER, id=made.id) == made
    assert listed(store, actor=OWNER) == [made]
    assert all(field.name in str(made) for field in dataclasses.fields(made))


@pytest.mark.parametrize("noun", NOUNS)
def test_people_see_their_own_rows_and_the_owner_all(noun: str, store: Store) -> None:
    add, get, listed = NOUNS[noun]
    kim, lee = editor(store), editor(store, "lee")
    made = add(store, kim)
    assert made.user_id == kim.user_id
    assert get(store, actor=OWNER, id=made.id) == made
    assert listed(store, actor=kim) == listed(store, actor=OWNER) == [made]
    assert listed(store, actor=lee) == []
    with pytest.raises(NotFound) as caught:
        get(store, actor=lee, id=made.id)
    with pytest.raises(NotFound) as missing:
        get(store, actor=lee, id=made.id + 1)
    assert caught.value.message.replace("1", "2") == missing.value.message


WRITES: dict[str, Callable[[Store, Actor, int], Any]] = {
    "set_character": lambda s, a, i: characters.set_character(s, actor=a, id=i, name="x"),
    "delete_character": lambda s, a, i: characters.delete_character(s, actor=a, id=i),
    "set_dataset": lambda s, a, i: datasets.set_dataset(s, actor=a, id=i, name="x"),
    "delete_dataset": lambda s, a, i: datasets.delete_dataset(s, actor=a, id=i),
    "add_picture": lambda s, a, i: a_picture(s, i, a, "bb"),
    "set_caption": lambda s, a, i: pictures.set_caption(s, actor=a, id=i, caption="x"),
    "set_run": lambda s, a, i: runs.set_run(s, actor=a, id=i, name="x"),
    "delete_run": lambda s, a, i: runs.delete_run(s, actor=a, id=i),
    "add_sample": lambda s, a, i: runs.add_sample(s, actor=a, run_id=i, step=1, prompt="p", seed=1, file="f"),
    "set_model": lambda s, a, i: models.set_model(s, actor=a, id=i, name="x"),
    "delete_model": lambda s, a, i: models.delete_model(s, actor=a, id=i),
    "set_starred": lambda s, a, i: items.set_starred(s, actor=a, ids=[i], starred=True),
    "delete_items": lambda s, a, i: items.delete_items(s, actor=a, ids=[i]),
    "restore_items": lambda s, a, i: items.restore_items(s, actor=a, ids=[i]),
}


@pytest.mark.parametrize("write", WRITES)
def test_nobody_changes_what_is_anothers_and_a_viewer_nothing(write: str, store: Store) -> None:
    for noun in ("character", "run", "item", "model"):
        NOUNS[noun][0](store, OWNER)
    a_picture(store, a_dataset(store).id)
    before = changes.now(store)
    with pytest.raises(NotFound):
        WRITES[write](store, editor(store), 1)
    with pytest.raises(NotAllowed):
        WRITES[write](store, VIEWER, 1)
    assert changes.now(store) == before
    WRITES[write](store, OWNER, 1)


def test_nobody_deletes_or_purges_what_is_anothers(store: Store) -> None:
    picture, item = a_picture(store, a_dataset(store).id), an_item(store)
    items.delete_items(store, actor=OWNER, ids=[item.id])
    kim = editor(store)
    assert pictures.delete_pictures(store, actor=kim, ids=[picture.id]) == []
    assert items.purge_items(store, actor=kim) == []
    assert pictures.get_picture(store, actor=OWNER, id=picture.id) == picture
    for noun in NOUNS:
        with pytest.raises(NotAllowed):
            NOUNS[noun][0](store, VIEWER) if noun != "job" else pictures.delete_pictures(
                store, actor=VIEWER, ids=[1]
            )


def test_every_visible_write_moves_the_change_number(store: Store) -> None:
    character, dataset, run, item, model = (
        a_character(store), a_dataset(store), a_run(store), an_item(store), a_model(store),
    )  # fmt: skip
    picture = a_picture(store, dataset.id)
    steps: list[Callable[[], Any]] = [
        lambda: characters.set_character(store, actor=OWNER, id=character.id, status="training"),
        lambda: datasets.set_dataset(store, actor=OWNER, id=dataset.id, name="x"),
        lambda: pictures.set_caption(store, actor=OWNER, id=picture.id, caption="new"),
        lambda: a_picture(store, dataset.id, sha256="bb"),
        lambda: pictures.delete_pictures(store, actor=OWNER, ids=[picture.id]),
        lambda: runs.set_run(store, actor=OWNER, id=run.id, status="done"),
        lambda: runs.add_metrics(store, run_id=run.id, rows=[{"step": 1, "loss": 0.5}]),
        lambda: runs.add_sample(store, actor=OWNER, run_id=run.id, step=1, prompt="", seed=1, file="s.png"),
        lambda: items.set_starred(store, actor=OWNER, ids=[item.id], starred=True),
        lambda: items.delete_items(store, actor=OWNER, ids=[item.id]),
        lambda: models.set_model(store, actor=OWNER, id=model.id, name="x"),
        lambda: models.delete_model(store, actor=OWNER, id=model.id),
        lambda: a_job(store),
        lambda: jobs.set_job(store, id=1, step=3),
        lambda: characters.delete_character(store, actor=OWNER, id=character.id),
        lambda: datasets.delete_dataset(store, actor=OWNER, id=dataset.id),
        lambda: items.purge_items(store, actor=OWNER),
        lambda: runs.delete_run(store, actor=OWNER, id=run.id),
    ]
    for step in steps:
        before = changes.now(store)
        step()
        assert changes.now(store) > before


def test_a_row_carries_the_number_of_its_newest_change(store: Store) -> None:
    first, second = a_character(store), a_dataset(store)
    assert (first.change, second.change, changes.now(store)) == (1, 2, 2)
    first = characters.set_character(store, actor=OWNER, id=first.id, name="Zoe")
    assert first.change == changes.now(store) == 3
    a_picture(store, second.id)
    assert datasets.get_dataset(store, actor=OWNER, id=second.id).change == changes.now(store) == 4
    changes_before = changes.now(store)
    characters.list_characters(store, actor=OWNER)
    assert changes.now(store) == changes_before


def test_deleting_a_character_leaves_its_work_and_forgets_the_name(store: Store) -> None:
    character = a_character(store)
    dataset = a_dataset(store, character_id=character.id)
    run, item = a_run(store, character_id=character.id), an_item(store, character_id=character.id)
    model, job = a_model(store, character_id=character.id), a_job(store, character_id=character.id)
    assert characters.delete_character(store, actor=OWNER, id=character.id) == character
    assert datasets.get_dataset(store, actor=OWNER, id=dataset.id).character_id is None
    assert runs.get_run(store, actor=OWNER, id=run.id).character_id is None
    assert items.get_item(store, actor=OWNER, id=item.id).character_id is None
    assert models.get_model(store, actor=OWNER, id=model.id).character_id is None
    assert jobs.get_job(store, actor=OWNER, id=job.id).character_id is None


def test_deleting_a_dataset_takes_its_pictures_along(store: Store) -> None:
    dataset, other = a_dataset(store), a_dataset(store)
    character = characters.set_character(store, actor=OWNER, id=a_character(store).id, dataset_id=dataset.id)
    a_picture(store, dataset.id)
    kept = a_picture(store, other.id)
    datasets.delete_dataset(store, actor=OWNER, id=dataset.id)
    assert pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id) == []
    assert pictures.get_picture(store, actor=OWNER, id=kept.id) == kept
    assert characters.get_character(store, actor=OWNER, id=character.id).dataset_id is None


def test_deleting_a_run_takes_its_figures_and_samples_along(store: Store) -> None:
    run = a_run(store)
    model = a_model(store, run_id=run.id)
    runs.add_metrics(store, run_id=run.id, rows=[{"step": 1, "loss": 1.0}])
    sample = runs.add_sample(store, actor=OWNER, run_id=run.id, step=1, prompt="", seed=1, file="s.png")
    runs.delete_run(store, actor=OWNER, id=run.id)
    with store.read() as db:
        assert db.table("metrics").count == db.table("samples").count == 0
    with pytest.raises(NotFound):
        runs.get_sample(store, actor=OWNER, id=sample.id)
    assert models.get_model(store, actor=OWNER, id=model.id).run_id is None


def test_deleting_a_person_takes_everything_of_theirs_along(store: Store) -> None:
    kim = editor(store)
    for noun in NOUNS:
        NOUNS[noun][0](store, kim)
    settings.set_setting(store, actor=kim, key="k", value="v")
    kept = a_character(store)
    users.delete_user(store, actor=OWNER, id=kim.user_id)
    with store.read() as db:
        for table in ("datasets", "pictures", "jobs", "runs", "items", "models", "settings"):
            assert db.table(table).count == 0, table
    assert characters.list_characters(store, actor=OWNER) == [kept]


def test_numbers_are_never_used_twice(store: Store) -> None:
    first = an_item(store)
    items.delete_items(store, actor=OWNER, ids=[first.id])
    items.purge_items(store, actor=OWNER)
    assert an_item(store).id > first.id


def test_names_of_characters_are_one_persons_own(store: Store) -> None:
    a_character(store)
    with pytest.raises(Conflict, match="already have a character called Mira"):
        a_character(store)
    zoe = a_character(store, name="Zoe")
    with pytest.raises(Conflict, match="Mira"):
        characters.set_character(store, actor=OWNER, id=zoe.id, name="Mira")
    assert a_character(store, editor(store)).name == "Mira"


def test_a_reference_to_nothing_is_refused(store: Store) -> None:
    with pytest.raises(NotFound):
        a_dataset(store, character_id=99)
    with pytest.raises(NotFound):
        a_picture(store, 99)
    with pytest.raises(NotFound):
        runs.add_metrics(store, run_id=99, rows=[{"step": 1}])


def test_a_value_outside_the_schema_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput):
        models.add_model(store, actor=OWNER, kind="poem", name="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        an_item(store, kind=None)
    with pytest.raises(InvalidInput, match="settings cannot be stored"):
        items.add_item(store, actor=OWNER, file="f", width=1, height=1, prompt="", seed=1,
                       settings={"scale": float("nan")})  # fmt: skip
    with pytest.raises(InvalidInput):
        items.add_item(store, actor=OWNER, file="f", width=-1, height=1, prompt="", seed=1, settings={})
    assert items.list_items(store, actor=OWNER) == []


def test_a_dataset_counts_its_pictures(store: Store) -> None:
    dataset = a_dataset(store, options={"flip": True})
    assert (dataset.picture_count, dataset.cover_picture_id, dataset.options) == (0, None, {"flip": True})
    first, second = a_picture(store, dataset.id), a_picture(store, dataset.id, sha256="bb")
    dataset = datasets.get_dataset(store, actor=OWNER, id=dataset.id)
    assert (dataset.picture_count, dataset.cover_picture_id) == (2, first.id)
    assert dataset.updated_at >= second.created_at > dataset.created_at
    pictures.delete_pictures(store, actor=OWNER, ids=[first.id])
    assert datasets.get_dataset(store, actor=OWNER, id=dataset.id).cover_picture_id == second.id
    assert pictures.count_pictures(store, actor=OWNER, dataset_id=dataset.id) == 1


def test_datasets_of_one_character(store: Store) -> None:
    character = a_character(store)
    mine = a_dataset(store, character_id=character.id)
    a_dataset(store)
    assert datasets.list_datasets(store, actor=OWNER, character_id=character.id) == [mine]


def test_the_same_picture_comes_once_into_a_dataset(store: Store) -> None:
    dataset, other = a_dataset(store), a_dataset(store)
    a_picture(store, dataset.id)
    again = pictures.add_picture(
        store, actor=OWNER, dataset_id=dataset.id, file="b.png", original_name="", sha256="aa", width=1, height=1,
        bytes=1, caption="",
    )  # fmt: skip
    assert again is None
    a_picture(store, other.id)
    assert pictures.count_pictures(store, actor=OWNER, dataset_id=dataset.id) == 1


def test_a_picture_the_owner_adds_for_somebody_is_theirs(store: Store) -> None:
    kim = editor(store)
    dataset = a_dataset(store, kim)
    assert a_picture(store, dataset.id, OWNER).user_id == kim.user_id


def test_pictures_come_in_pages(store: Store) -> None:
    dataset = a_dataset(store)
    made = [a_picture(store, dataset.id, sha256=f"{n:02}").id for n in range(7)]
    pages: list[int] = []
    last: int | None = None
    while page := pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id, after_id=last, limit=3):
        assert len(page) <= 3
        pages += [picture.id for picture in page]
        last = page[-1].id
    assert pages == made


def test_captions_change_all_or_none(store: Store) -> None:
    dataset = a_dataset(store)
    first, second = a_picture(store, dataset.id), a_picture(store, dataset.id, sha256="bb")
    with pytest.raises(NotFound):
        pictures.set_captions(store, actor=OWNER, captions={first.id: "new", 99: "x"})
    assert pictures.get_picture(store, actor=OWNER, id=first.id) == first
    assert pictures.set_captions(store, actor=OWNER, captions={first.id: "a", second.id: "b"}) == 2
    after = pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id)
    assert [picture.caption for picture in after] == ["a", "b"]
    assert after[0].updated_at > first.updated_at


def test_items_are_filtered_and_paged(store: Store) -> None:
    character, model = a_character(store), a_model(store)
    sea = an_item(store, prompt="Mira at the SEA, 50% blue", character_id=character.id)
    wood = an_item(store, prompt="Mira in the wood", adapter_id=model.id)
    star = an_item(store, prompt="a_star")
    items.set_starred(store, actor=OWNER, ids=[star.id, star.id], starred=True)

    def ids(**filters: Any) -> list[int]:
        return [item.id for item in items.list_items(store, actor=OWNER, **filters)]

    assert ids() == [star.id, wood.id, sea.id]
    assert ids(character_id=character.id) == [sea.id]
    assert ids(adapter_id=model.id) == [wood.id]
    assert ids(starred=True) == [star.id]
    assert ids(starred=False) == [wood.id, sea.id]
    assert ids(query="mira") == [wood.id, sea.id]
    assert ids(query="sea mira") == [sea.id]
    assert ids(query="50%") == [sea.id]
    assert ids(query="a_s") == [star.id]
    assert ids(query="5%") == ids(query="ax") == ids(query="'; DROP TABLE items; --") == []
    assert ids(query="  ") == ids()
    assert ids(query="x " * 500) == []
    with pytest.raises(InvalidInput, match="1,001 characters"):
        ids(query="x" * 1001)
    assert ids(limit=2) == [star.id, wood.id]
    assert ids(before_id=wood.id) == [sea.id]


def test_the_bin_keeps_items_until_it_is_emptied(store: Store) -> None:
    first, second = an_item(store), an_item(store)
    assert items.delete_items(store, actor=OWNER, ids=[first.id, second.id]) == 2
    assert items.list_items(store, actor=OWNER) == []
    assert len(items.list_items(store, actor=OWNER, deleted=True)) == 2
    assert items.restore_items(store, actor=OWNER, ids=[first.id]) == 1
    assert [item.id for item in items.list_items(store, actor=OWNER)] == [first.id]
    early = (datetime.fromisoformat(second.created_at) - timedelta(days=1)).isoformat(timespec="microseconds")
    assert items.purge_items(store, actor=OWNER, deleted_before_at=early) == []
    assert [item.id for item in items.purge_items(store, actor=OWNER, ids=[first.id, second.id])] == [
        second.id
    ]
    assert items.get_item(store, actor=OWNER, id=first.id).deleted_at is None
    with pytest.raises(NotFound):
        items.delete_items(store, actor=OWNER, ids=[first.id, second.id])
    assert items.get_item(store, actor=OWNER, id=first.id).deleted_at is None


def test_deleting_a_model_leaves_what_it_drew(store: Store) -> None:
    model = a_model(store)
    item = an_item(store, adapter_id=model.id)
    models.delete_model(store, actor=OWNER, id=model.id)
    assert items.get_item(store, actor=OWNER, id=item.id).adapter_id is None


def test_models_are_listed_by_kind_and_hidden_when_inactive(store: Store) -> None:
    adapter = a_model(store, character_id=a_character(store).id, best_weight=0.8)
    base = models.add_model(store, actor=OWNER, kind="base", name="Pocket", tier="any")
    assert models.list_models(store, actor=OWNER, kind="base") == [base]
    assert models.list_models(store, actor=OWNER, character_id=1) == [adapter]
    hidden = models.set_model(store, actor=OWNER, id=base.id, active=False)
    assert (hidden.active, hidden.updated_at > base.updated_at) == (False, True)
    assert models.list_models(store, actor=OWNER) == [adapter]
    assert models.list_models(store, actor=OWNER, active=None) == [hidden, adapter]
    assert models.list_models(store, actor=OWNER, active=False) == [hidden]


def test_the_owner_is_there_from_the_start_and_cannot_be_lost(store: Store) -> None:
    [owner] = users.list_users(store, actor=OWNER)
    assert (owner.id, owner.role, owner.active, owner.password_hash) == (1, "owner", True, None)
    for change in ({"role": "editor"}, {"active": False}):
        with pytest.raises(Conflict, match="Nobody would own"):
            users.set_user(store, actor=OWNER, id=1, **change)
    with pytest.raises(Conflict):
        users.delete_user(store, actor=OWNER, id=1)
    assert users.list_users(store, actor=OWNER) == [owner]
    users.add_user(store, actor=OWNER, username="ann", role="owner")
    assert users.set_user(store, actor=OWNER, id=1, role="editor").role == "editor"


def test_people_change_themselves_but_not_their_role(store: Store) -> None:
    kim, lee = editor(store), editor(store, "lee")
    assert users.set_user(store, actor=kim, id=kim.user_id, password_hash="h").password_hash == "h"
    for actor, change in ((kim, {"role": "owner"}), (kim, {"active": True}), (lee, {"username": "x"})):
        with pytest.raises(NotAllowed):
            users.set_user(store, actor=actor, id=kim.user_id, **change)
    assert [user.id for user in users.list_users(store, actor=kim)] == [kim.user_id]
    with pytest.raises(NotFound):
        users.get_user(store, actor=kim, id=lee.user_id)
    with pytest.raises(NotAllowed):
        users.add_user(store, actor=kim, username="x")
    with pytest.raises(Conflict):
        users.add_user(store, actor=OWNER, username="KIM")
    assert "secret" not in repr(users.set_user(store, actor=kim, id=kim.user_id, password_hash="secret"))


def test_a_secret_setting_is_unreadable_in_the_file(store: Store) -> None:
    made = settings.set_setting(store, actor=OWNER, key="HF_TOKEN", value="hf_canary", encrypted=True)
    assert (made.value, made.encrypted, made.needs_reentry) == ("hf_canary", True, False)
    assert "hf_canary" not in repr(made)
    settings.set_setting(store, actor=OWNER, key="theme", value="dark")
    assert [s.key for s in settings.list_settings(store, actor=OWNER)] == ["HF_TOKEN", "theme"]
    store.close()
    for file in store.path.parent.glob("masuka.db*"):
        assert b"hf_canary" not in file.read_bytes()
    key = store.secrets / "settings.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in store.secrets.iterdir()] == ["settings.key"]


def test_a_secret_is_asked_for_again_when_its_key_is_lost(store: Store) -> None:
    settings.set_setting(store, actor=OWNER, key="HF_TOKEN", value="hf_canary", encrypted=True)
    (store.secrets / "settings.key").unlink()
    lost = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
    assert (lost.value, lost.needs_reentry) == ("", True)
    again = settings.set_setting(store, actor=OWNER, key="HF_TOKEN", value="hf_new", encrypted=True)
    assert (again.value, again.needs_reentry) == ("hf_new", False)


def test_settings_belong_to_one_person(store: Store) -> None:
    kim = editor(store)
    settings.set_setting(store, actor=kim, key="theme", value="dark")
    with pytest.raises(NotFound):
        settings.get_setting(store, actor=OWNER, key="theme")
    settings.set_setting(store, actor=kim, key="theme", value="light")
    settings.delete_setting(store, actor=OWNER, key="theme")
    assert settings.get_setting(store, actor=kim, key="theme").value == "light"
    settings.delete_setting(store, actor=kim, key="theme")
    assert settings.list_settings(store, actor=kim) == []


def test_times_are_utc_and_sort_as_text() -> None:
    first, second = rows.now_at(), rows.now_at()
    assert first <= second
    assert len(first) == len(second) == len("2026-03-01T12:00:00.000000+00:00")
    assert datetime.fromisoformat(first).utcoffset() == timedelta(0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(
    settings_json=st.dictionaries(st.text(), json_values, max_size=4),
    prompt=st.text().filter(lambda t: "\0" not in t),
)
def test_any_json_and_any_text_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, settings_json: dict[str, Any], prompt: str
) -> None:
    store = _shared_store(tmp_path_factory)
    made = items.add_item(
        store, actor=OWNER, file="f", width=1, height=1, prompt=prompt, seed=0, settings=settings_json
    )
    assert (made.settings, made.prompt) == (settings_json, prompt)
    found = items.list_items(store, actor=OWNER, query=prompt[:1000], limit=1)
    assert not prompt.split() or found[0].id == made.id


_stores: list[Store] = []


def _shared_store(factory: pytest.TempPathFactory) -> Store:
    """One database for every example of a property; opening one for each takes most of the time."""
    if not _stores:
        _stores.append(Store.open(Workspace(factory.mktemp("shared") / "w").create()))
    return _stores[0]


@pytest.fixture(scope="module", autouse=True)
def _close_shared() -> Iterator[None]:
    yield
    while _stores:
        _stores.pop().close()
