"""Who sees and changes what: own, shared, and nothing else, for every kind of row."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from masuka.config import Settings, Workspace
from masuka.errors import InvalidInput, MasukaError, NotAllowed, NotFound
from masuka.requests import Actor
from masuka.requests.text import id_in
from masuka.store import characters, datasets, items, jobs, models, pictures, rows, runs, users
from masuka.store.connect import Store
from masuka.studio import Studio

OWNER = Actor(1)


@dataclass(frozen=True)
class World:
    """A character with one row of each kind on it, owned by Kim; `ids` by kind."""

    store: Store
    kim: Actor
    ids: Mapping[str, int]
    dataset_id: int
    alone_item_id: int


READ: Mapping[str, Callable[[Store, Actor, int], object]] = {
    "character": lambda db, actor, id: characters.get_character(db, actor=actor, id=id),
    "dataset": lambda db, actor, id: datasets.get_dataset(db, actor=actor, id=id),
    "picture": lambda db, actor, id: pictures.get_picture(db, actor=actor, id=id),
    "run": lambda db, actor, id: runs.get_run(db, actor=actor, id=id),
    "sample": lambda db, actor, id: runs.get_sample(db, actor=actor, id=id),
    "model": lambda db, actor, id: models.get_model(db, actor=actor, id=id),
    "item": lambda db, actor, id: items.get_item(db, actor=actor, id=id),
    "job": lambda db, actor, id: jobs.get_job(db, actor=actor, id=id),
    "events": lambda db, actor, id: jobs.list_job_events(db, actor=actor, id=id),
    "metrics": lambda db, actor, id: runs.list_metrics(db, actor=actor, run_id=id),
    "samples": lambda db, actor, id: runs.list_samples(db, actor=actor, run_id=id),
    "pictures": lambda db, actor, id: pictures.count_pictures(db, actor=actor, dataset_id=id),
}
LISTED: Mapping[str, Callable[[Store, Actor], list[Any]]] = {
    "character": lambda db, actor: characters.list_characters(db, actor=actor),
    "dataset": lambda db, actor: datasets.list_datasets(db, actor=actor),
    "run": lambda db, actor: runs.list_runs(db, actor=actor),
    "model": lambda db, actor: models.list_models(db, actor=actor),
    "item": lambda db, actor: items.list_items(db, actor=actor),
    "job": lambda db, actor: jobs.list_jobs(db, actor=actor),
}
CHANGED: Mapping[str, Callable[[Store, Actor, int], object]] = {
    "character": lambda db, actor, id: characters.set_character(db, actor=actor, id=id, name="New"),
    "dataset": lambda db, actor, id: datasets.set_dataset(db, actor=actor, id=id, name="New"),
    "picture": lambda db, actor, id: pictures.set_caption(db, actor=actor, id=id, caption="new"),
    "run": lambda db, actor, id: runs.set_run(db, actor=actor, id=id, name="New"),
    "model": lambda db, actor, id: models.set_model(db, actor=actor, id=id, name="New"),
    "item": lambda db, actor, id: items.set_starred(db, actor=actor, ids=[id], starred=True),
}
DELETED: Mapping[str, Callable[[Store, Actor, int], object]] = {
    "character": lambda db, actor, id: characters.delete_character(db, actor=actor, id=id),
    "dataset": lambda db, actor, id: datasets.delete_dataset(db, actor=actor, id=id),
    "run": lambda db, actor, id: runs.delete_run(db, actor=actor, id=id),
    "model": lambda db, actor, id: models.delete_model(db, actor=actor, id=id),
    "item": lambda db, actor, id: items.delete_items(db, actor=actor, ids=[id]),
}


@pytest.fixture
def world(workspace: Workspace) -> Iterator[World]:
    with Store.open(workspace) as db:
        kim = Actor(users.add_user(db, actor=OWNER, username="kim", role="editor").id, "editor", "kim")
        mira = characters.add_character(db, actor=kim, name="Mira", trigger_word="mira7x").id
        dataset = datasets.add_dataset(db, actor=kim, name="Set", trigger_word="mira7x", character_id=mira).id
        picture = pictures.add_picture(
            db, actor=kim, dataset_id=dataset, file="a", original_name="a", sha256="a", width=1, height=1,
            bytes=1, caption="",
        )  # fmt: skip
        run = runs.add_run(db, actor=kim, name="R", base="pocket", family="flux", config={}, character_id=mira).id
        sample = runs.add_sample(db, actor=kim, run_id=run, step=1, prompt="", seed=1, file="s").id
        model = models.add_model(db, actor=kim, kind="adapter", name="M", character_id=mira).id
        item = add_item(db, kim, mira)
        job = jobs.add_job(
            db, actor=kim, kind="draw_images", lane="gpu", title="J", request={}, params={}, character_id=mira
        ).id
        assert picture is not None
        ids = {
            "character": mira, "dataset": dataset, "picture": picture.id, "run": run, "sample": sample,
            "model": model, "item": item, "job": job, "events": job, "metrics": run, "samples": run,
            "pictures": dataset,
        }  # fmt: skip
        yield World(db, kim, ids, dataset, add_item(db, kim, None))


def add_item(db: Store, actor: Actor, character_id: int | None) -> int:
    return items.add_item(
        db, actor=actor, file="f", width=1, height=1, prompt="", seed=1, settings={}, character_id=character_id
    ).id


def newcomer(db: Store, role: Any = "editor", name: str = "lee") -> Actor:
    return Actor(users.add_user(db, actor=OWNER, username=name, role=role).id, role, name)


def share(world: World, to: Actor, kind: Any, object_id: int = 0) -> None:
    from masuka.store import shares

    shares.add_share(world.store, actor=world.kim, user_id=to.user_id, kind=kind, object_id=object_id)


@pytest.mark.parametrize("kind", READ)
def test_a_stranger_to_it_sees_nothing_of_it(world: World, kind: str) -> None:
    for role in ("viewer", "editor"):
        other = newcomer(world.store, role, name=role)
        with pytest.raises(NotFound):
            READ[kind](world.store, other, world.ids[kind])
        assert kind not in LISTED or LISTED[kind](world.store, other) == []
        assert jobs.count_jobs(world.store, actor=other) == {}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("what", ["all", "character"])
def test_what_is_shared_is_seen_with_all_that_hangs_on_it(world: World, kind: str, what: str) -> None:
    looker = newcomer(world.store, "viewer")
    share(world, looker, what, 0 if what == "all" else world.ids["character"])
    READ[kind](world.store, looker, world.ids[kind])
    if kind in LISTED:
        assert world.ids[kind] in [row.id for row in LISTED[kind](world.store, looker)]
    assert jobs.count_jobs(world.store, actor=looker) == {"queued": 1}


@pytest.mark.parametrize("kind", CHANGED)
def test_viewers_look_and_editors_change_what_is_shared(world: World, kind: str) -> None:
    looker, maker = newcomer(world.store, "viewer", "vera"), newcomer(world.store, "editor", "eda")
    for other in (looker, maker):
        share(world, other, "character", world.ids["character"])
    with pytest.raises(NotAllowed):
        CHANGED[kind](world.store, looker, world.ids[kind])
    CHANGED[kind](world.store, maker, world.ids[kind])


@pytest.mark.parametrize("kind", [*CHANGED, *(f"delete {kind}" for kind in DELETED)])
def test_an_editor_changes_and_deletes_nothing_that_is_not_shared(world: World, kind: str) -> None:
    act = DELETED[kind.removeprefix("delete ")] if kind.startswith("delete ") else CHANGED[kind]
    id = world.ids[kind.removeprefix("delete ")]
    with pytest.raises(NotFound):
        act(world.store, newcomer(world.store), id)


@pytest.mark.parametrize("kind", DELETED)
def test_a_viewer_deletes_nothing(world: World, kind: str) -> None:
    looker = newcomer(world.store, "viewer")
    share(world, looker, "all")
    with pytest.raises(NotAllowed):
        DELETED[kind](world.store, looker, world.ids[kind])


def test_a_shared_character_does_not_open_the_rest(world: World) -> None:
    looker = newcomer(world.store, "viewer")
    share(world, looker, "character", world.ids["character"])
    with pytest.raises(NotFound):
        items.get_item(world.store, actor=looker, id=world.alone_item_id)
    share(world, looker, "all")
    items.get_item(world.store, actor=looker, id=world.alone_item_id)


def test_a_shared_data_set_opens_its_pictures_only(world: World) -> None:
    looker = newcomer(world.store, "viewer")
    share(world, looker, "dataset", world.dataset_id)
    READ["dataset"](world.store, looker, world.ids["dataset"])
    READ["picture"](world.store, looker, world.ids["picture"])
    for kind in ("character", "run", "model", "item", "job"):
        with pytest.raises(NotFound):
            READ[kind](world.store, looker, world.ids[kind])


def test_what_an_editor_makes_of_a_shared_character_its_owner_sees(world: World) -> None:
    maker = newcomer(world.store)
    share(world, maker, "character", world.ids["character"])
    made, private = add_item(world.store, maker, world.ids["character"]), add_item(world.store, maker, None)
    items.get_item(world.store, actor=world.kim, id=made)
    with pytest.raises(NotFound):
        items.get_item(world.store, actor=world.kim, id=private)


def test_what_was_shared_can_be_taken_back(world: World) -> None:
    from masuka.store import shares

    looker = newcomer(world.store, "viewer")
    share(world, looker, "all")
    with pytest.raises(NotAllowed):
        shares.delete_share(world.store, actor=looker, user_id=looker.user_id, kind="all")
    shares.delete_share(world.store, actor=newcomer(world.store, name="x"), user_id=looker.user_id, kind="all")
    READ["item"](world.store, looker, world.ids["item"])  # another person's word changes nothing
    shares.delete_share(world.store, actor=world.kim, user_id=looker.user_id, kind="all")
    with pytest.raises(NotFound):
        READ["item"](world.store, looker, world.ids["item"])


def test_an_owner_takes_back_their_own_share_of_everything(settings: Settings) -> None:
    with Studio.open(settings) as studio:
        otto = users.add_user(studio.store, actor=OWNER, username="otto", role="owner").id
        kim = users.add_user(studio.store, actor=OWNER, username="kim", role="viewer").id
        ottos = studio.acting_as(Actor(otto, "owner", "otto")).people
        studio.people.share(kim, "all")
        ottos.share(kim, "all")
        ottos.unshare(kim, "all")
        assert [s.by_user_id for s in studio.people.shares(user_id=kim)] == [1]
        ottos.unshare(kim, "all", by_user_id=1)
        assert studio.people.shares(user_id=kim) == []
        with pytest.raises(NotAllowed):
            studio.acting_as(Actor(kim, "editor", "kim")).people.unshare(kim, "all", by_user_id=otto)


def test_the_button_ends_the_share_that_it_names(settings: Settings) -> None:
    from masuka.ui import people
    from masuka.ui.view import View

    with Studio.open(settings) as studio:
        otto = users.add_user(studio.store, actor=OWNER, username="otto", role="owner").id
        kim = users.add_user(studio.store, actor=OWNER, username="kim", role="viewer").id
        for by in (OWNER, Actor(otto, "owner", "otto")):
            studio.acting_as(by).people.share(kim, "all")
        assert "Stop sharing everything of otto" in people.draw_people(studio, View())
        people.on_share_all(studio, {"id": kim, "by": otto}, View())
        assert [s.by_user_id for s in studio.people.shares(user_id=kim)] == [1]
        people.on_share_all(studio, {"id": kim, "on": False}, View())
        assert studio.people.shares(user_id=kim) == []


def test_anothers_sample_is_told_like_one_that_is_not_there(world: World) -> None:
    with pytest.raises(NotFound) as other:
        runs.get_sample(world.store, actor=newcomer(world.store), id=world.ids["sample"])
    with pytest.raises(NotFound) as missing:
        runs.get_sample(world.store, actor=OWNER, id=999)
    assert str(other.value).replace(str(world.ids["sample"]), "999") == str(missing.value)


def test_an_editor_takes_in_what_they_uploaded_and_nothing_else_of_the_machine(settings: Settings) -> None:
    with Studio.open(settings) as studio:
        eda = Actor(users.add_user(studio.store, actor=OWNER, username="eda", role="editor").id, "editor", "eda")
        theirs, uploads = studio.acting_as(eda).datasets, studio.workspace.uploads
        dataset = theirs.create(name="d", trigger_word="dxx").id
        own = uploads / f"{eda.user_id}-{'a' * 24}"
        other = uploads / f"{eda.user_id}1-{'a' * 24}"
        for folder in (own, other):
            folder.mkdir(parents=True)
        (own / "link").symlink_to("/etc")
        for wrong in ("/etc", uploads, other, own / ".." / other.name, own / "link", studio.workspace.root):
            with pytest.raises(NotAllowed):
                theirs.add_pictures(dataset, [own, wrong])
        assert theirs.add_pictures(dataset, [own], forget_sources=True).state == "queued"
        assert studio.datasets.add_pictures(dataset, ["/etc"]).state == "queued"


def test_only_an_owner_is_told_about_the_machine_at_home(settings: Settings) -> None:
    from masuka.ui import home
    from masuka.ui.view import View

    with Studio.open(settings) as studio:
        studio.store.notices.append("The database lies in /some/folder.")
        assert "/some/folder" in home.draw_machine(studio, View())
        assert "/some/folder" not in home.draw_machine(studio.acting_as(Actor(1, "editor")), View())


def test_so_many_pictures_are_taken_out_at_once(settings: Settings) -> None:
    from masuka.ui import library
    from masuka.ui.view import View

    with Studio.open(settings) as studio:
        one = add_item(studio.store, OWNER, None)
        assert library.on_export(studio, {"ids": [one] * 3000}, View()).fetch == f"download/items?ids={one}"
        with pytest.raises(InvalidInput):
            library.on_export(studio, {"ids": list(range(1, 2002))}, View())


@pytest.mark.parametrize("wrong", ["", "0", "-1", "1.0", "²", "１", "9" * 19, "9" * 5000, str(2**63), None, True, [1]])
def test_what_is_no_id(wrong: object) -> None:
    assert id_in(wrong) is None
    assert (id_in("7"), id_in(7), id_in(str(2**63 - 1))) == (7, 7, 2**63 - 1)


def test_nobody_shares_what_is_not_theirs(world: World) -> None:
    from masuka.store import shares

    maker, third = newcomer(world.store), newcomer(world.store, name="tia")
    give = {"db": world.store, "user_id": third.user_id, "kind": "character", "object_id": world.ids["character"]}
    with pytest.raises(NotFound):
        shares.add_share(actor=maker, **give)  # type: ignore[arg-type]
    share(world, maker, "character", world.ids["character"])
    with pytest.raises(NotAllowed):
        shares.add_share(actor=maker, **give)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        share(world, world.kim, "character", world.ids["character"])
    shares.add_share(actor=OWNER, **give)  # type: ignore[arg-type]
    READ["item"](world.store, third, world.ids["item"])
    with pytest.raises(NotFound):
        shares.add_share(world.store, actor=OWNER, user_id=999, kind="all")


def test_shares_end_with_what_they_name_and_with_people(world: World) -> None:
    from masuka.store import shares

    looker = newcomer(world.store, "viewer")
    share(world, looker, "character", world.ids["character"])
    share(world, looker, "dataset", world.dataset_id)
    datasets.delete_dataset(world.store, actor=world.kim, id=world.dataset_id)
    characters.delete_character(world.store, actor=world.kim, id=world.ids["character"])
    assert shares.list_shares(world.store, actor=OWNER) == []
    share(world, looker, "all")
    users.delete_user(world.store, actor=OWNER, id=world.kim.user_id)
    assert shares.list_shares(world.store, actor=OWNER) == []


def test_an_editor_empties_only_their_own_bin(world: World) -> None:
    maker = newcomer(world.store)
    share(world, maker, "all")
    mine = add_item(world.store, maker, None)
    items.delete_items(world.store, actor=maker, ids=[mine, world.ids["item"]])
    assert [i.id for i in items.purge_items(world.store, actor=maker)] == [mine]
    assert [i.id for i in items.purge_items(world.store, actor=world.kim)] == [world.ids["item"]]


def test_a_job_that_is_not_shared_is_not_stopped_or_deleted(world: World) -> None:
    from masuka.jobs import queue

    other, looker = newcomer(world.store), newcomer(world.store, "viewer", "vera")
    share(world, looker, "all")
    for ask in (queue.ask_cancel, queue.ask_pause, queue.delete):
        with pytest.raises(NotFound):
            ask(world.store, actor=other, job_id=world.ids["job"])
        with pytest.raises(NotAllowed):
            ask(world.store, actor=looker, job_id=world.ids["job"])
    assert jobs.get_job(world.store, actor=OWNER, id=world.ids["job"]).state == "queued"


def test_each_table_of_people_is_scoped() -> None:
    """A table that people fill and that `visible` does not know would be each person's own."""
    tables = {"characters", "datasets", "pictures", "jobs", "runs", "models", "items"}
    for table in tables:
        condition = rows.visible(Actor(7, "editor"), table)
        assert "user_id = 7" in condition and "shares" in condition, table
        assert rows.visible(OWNER, table) == "1"


def test_no_studio_call_of_a_viewer_changes_anything(settings: Settings) -> None:
    """Each public method of the studio's parts, tried by a viewer who sees everything."""
    with Studio.open(settings) as studio:
        mira = studio.characters.create(name="Mira", trigger_word="mira7x")
        dataset = studio.datasets.create(name="Set", trigger_word="mira7x", character_id=mira.id)
        looker = Actor(users.add_user(studio.store, actor=OWNER, username="vera").id, "viewer", "vera")
        studio.people.share(looker.user_id, "all")
        theirs = studio.acting_as(looker)
        assert theirs.datasets.get(dataset.id).name == "Set"
        before = _contents(studio.store)
        for part in ("characters", "datasets", "training", "images", "jobs", "library", "models"):
            for name, method in inspect.getmembers(getattr(theirs, part), inspect.ismethod):
                if not name.startswith("_"):
                    _try(method, dataset.id)
        assert _contents(studio.store) == before
        assert dataset.id in [d.id for d in studio.datasets.list()]


def _try(method: Callable[..., Any], id: int) -> None:
    """Calls it with as many plausible values as it wants; a refusal is well."""
    wanted = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty and p.kind < 2]
    values: Mapping[str, Any] = {"name": "x", "text": "x", "to": None, "kind": "item", "on": True}
    given = [values.get(p.name, [id] if "ids" in p.name or p.name == "paths" else id) for p in wanted]
    try:
        method(*given)
    except (MasukaError, TypeError, AttributeError):
        return


def _contents(db: Store) -> dict[str, list[tuple[Any, ...]]]:
    with db.read() as conn:
        names = [t for t in conn.table_names() if t not in ("audit", "sessions")]
        return {name: [tuple(row) for row in conn.execute(f"SELECT * FROM {name}")] for name in names}
