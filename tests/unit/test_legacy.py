"""A MASUKA 2 installation comes over whole, in every older shape, and stays as it was."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from masuka.config import Workspace
from masuka.errors import Conflict, Damaged, Locked, NotFound
from masuka.jobs.queue import retry
from masuka.requests.actor import Actor
from masuka.store import (
    characters,
    datasets,
    items,
    jobs,
    legacy,
    models,
    pictures,
    runs,
    settings,
    users,
)
from masuka.store.connect import Store, connect
from masuka.store.migrations.runner import check
from tests.unit.masuka2 import BCRYPT, LATER, SHAPES, build, clean_rows, installation

OWNER = Actor(1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def total_rows(store: Store) -> dict[str, int]:
    with store.read() as db:
        return {name: db.table(name).count for name in db.table_names()}


@pytest.fixture
def store(workspace: Workspace) -> Iterator[Store]:
    with Store.open(workspace) as store:
        yield store


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_comes_over_with_every_row(
    shape: str, store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    old = installation(tmp_path / "MASUKA", shape)
    before = digest(old)

    report = legacy.import_masuka2(store, old, workspace=workspace)

    assert digest(old) == before
    assert sorted(p.name for p in old.parent.iterdir()) == ["masuka.db"]
    rows = clean_rows(tmp_path / "MASUKA")
    with closing(sqlite3.connect(old)) as db:
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table, count in report.counts.items():
        expected = len(rows[table]) if table in tables else 0
        assert (table, count.found, count.added, count.left_out) == (table, expected, expected, 0)
    assert len(users.list_users(store, actor=OWNER)) == 2
    assert len(characters.list_characters(store, actor=OWNER)) == 2
    assert len(runs.list_runs(store, actor=OWNER)) == 5
    assert len(jobs.list_jobs(store, actor=OWNER)) == 6
    assert check(store.path).ok


def test_what_each_row_becomes(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    legacy.import_masuka2(store, old, workspace=workspace)

    sam, kim = users.list_users(store, actor=OWNER)
    assert (sam.id, sam.username, sam.email, sam.password_hash, sam.role) == (
        1, "sam", "sam@example.org", BCRYPT, "owner",
    )  # fmt: skip
    assert (kim.username, kim.role, kim.active, kim.password_hash) == ("kim", "editor", False, BCRYPT)

    [dataset] = datasets.list_datasets(store, actor=OWNER)
    assert (dataset.name, dataset.trigger_word, dataset.status, dataset.picture_count) == (
        "Mira set",
        "mira7",
        "ready",
        2,
    )
    assert dataset.created_at == "2025-10-12T14:03:11.123456+00:00"
    assert dataset.options == {
        "auto_caption": True, "resize_images": False, "crop_images": True, "flip_images": True,
        "quality_filter": "strict", "imported_from": "MASUKA 2",
    }  # fmt: skip
    first, second = pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id)
    picture = tmp_path / "MASUKA/media/1/aaa.png"
    assert (first.file, first.sha256, first.width, first.bytes) == (
        str(picture), digest(picture), 64, picture.stat().st_size,
    )  # fmt: skip
    assert (first.original_name, first.caption, second.caption) == ("IMG 1.png", "mira7 smiles", "")

    zoe, mira = characters.list_characters(store, actor=OWNER)
    assert (mira.name, mira.trigger_word, mira.status, mira.dataset_id) == (
        "mira",
        "mira7",
        "completed",
        dataset.id,
    )
    assert (mira.completed_at, mira.picture) == ("2025-10-12T15:03:11.000000+00:00", str(picture))
    assert dataset.character_id == mira.id
    assert (zoe.user_id, zoe.status, zoe.picture) == (kim.id, "created", "/gone/zoe.png")

    by_status = {run.status: run for run in runs.list_runs(store, actor=OWNER, character_id=mira.id)}
    assert by_status.keys() == {"done", "failed", "cancelled"}
    done = by_status["done"]
    assert (done.config["steps"], done.config["learning_rate"], done.config["rank"]) == (1000, 0.0004, 16)
    assert done.folder == str(tmp_path / "MASUKA/scratch/mira")
    job = jobs.get_job(store, actor=OWNER, id=done.job_id)
    assert (job.state, job.step, job.total, job.run_id) == ("done", 1000, 1000, done.id)
    assert (job.started_at, job.finished_at) == (
        "2025-10-12T14:03:11.123456+00:00", "2025-10-12T15:03:11.000000+00:00",
    )  # fmt: skip
    [stopped] = jobs.list_jobs(store, actor=OWNER, character_id=zoe.id)
    assert (stopped.state, stopped.step) == ("failed", 200)
    assert stopped.error["message"] == "MASUKA 2 stopped while this was running."
    reasons = {j.error["message"] for j in jobs.list_jobs(store, actor=OWNER, states=["failed"])}
    assert "CUDA out of memory" in reasons

    [adapter] = models.list_models(store, actor=OWNER, kind="adapter")
    lora = tmp_path / "MASUKA/scratch/mira/char/char.safetensors"
    assert (adapter.name, adapter.path, adapter.sha256) == ("mira", str(lora), digest(lora))
    assert (adapter.character_id, adapter.trigger_word, adapter.run_id) == (mira.id, "mira7", done.id)

    [item] = items.list_items(store, actor=OWNER)
    assert (item.file, item.width, item.prompt) == (
        str(tmp_path / "MASUKA/media/results/out1.png"),
        32,
        "mira7 at sea",
    )
    assert (item.character_id, item.adapter_id) == (mira.id, adapter.id)
    assert (item.settings["optimized_prompt"], item.settings["lora_weight"]) == ("mira7, sea, wide", 0.8)

    assert settings.get_setting(store, actor=OWNER, key="HF_HOME").value == "/data/hf"


def test_no_imported_job_waits_or_runs(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    states = {job.state for job in jobs.list_jobs(store, actor=OWNER)}
    assert states == {"done", "failed", "cancelled"}
    assert jobs.claim_job(store, lane="gpu") is None
    failed = jobs.list_jobs(store, actor=OWNER, states=["failed"])[0]
    with pytest.raises(Conflict, match="comes from MASUKA 2"):
        retry(store, actor=OWNER, job_id=failed.id)


def test_each_oddity_is_a_sentence(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    report = legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    assert set(report.oddities) == {
        "characters 4: its training had stopped without saying so; it is created again.",
        "characters 4: its picture /gone/zoe.png is not there any more.",
        "inference_jobs 1: its picture /gone/out2.png is not there any more.",
    }
    assert report.summary == (
        "Copied 2 users, 1 datasets, 2 characters, 2 dataset images, 5 training sessions, 1 inference jobs, "
        "1 app settings from masuka.db."
    )


def test_a_second_import_adds_nothing(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    legacy.import_masuka2(store, old, workspace=workspace)
    before = total_rows(store)
    again = legacy.import_masuka2(store, old, workspace=workspace)
    assert again.added == 0
    assert again.summary == "There was nothing new to copy."
    assert total_rows(store) == before
    assert legacy.nothing_new(store, old)


def test_a_copy_elsewhere_is_the_same_installation(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    old = installation(tmp_path / "MASUKA")
    legacy.import_masuka2(store, old, workspace=workspace)
    copy = tmp_path / "copy.db"
    copy.write_bytes(old.read_bytes())
    assert legacy.import_masuka2(store, copy, workspace=workspace).added == 0


def test_rows_that_came_later_are_added(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    legacy.import_masuka2(store, old, workspace=workspace)
    with closing(sqlite3.connect(old)) as db:
        db.execute(
            "INSERT INTO training_sessions (id, character_id, user_id, status, created_at) VALUES (9, 3, 1, 'completed', ?)",
            [LATER],
        )
        db.commit()
    assert not legacy.nothing_new(store, old)
    report = legacy.import_masuka2(store, old, workspace=workspace)
    assert report.added == 1
    newest = runs.list_runs(store, actor=OWNER)[0]
    assert characters.get_character(store, actor=OWNER, id=newest.character_id).name == "mira"


def test_what_a_person_deleted_stays_deleted(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    legacy.import_masuka2(store, old, workspace=workspace)
    mira = next(c for c in characters.list_characters(store, actor=OWNER) if c.name == "mira")
    characters.delete_character(store, actor=OWNER, id=mira.id)
    with closing(sqlite3.connect(old)) as db:
        db.execute(
            "INSERT INTO training_sessions (id, character_id, user_id, status) VALUES (9, 3, 1, 'failed')"
        )
        db.commit()
    report = legacy.import_masuka2(store, old, workspace=workspace)
    assert [c.name for c in characters.list_characters(store, actor=OWNER)] == ["zoe"]
    assert report.added == 1
    assert runs.list_runs(store, actor=OWNER)[0].character_id is None
    assert "training_sessions 9: its character 3 is gone." in report.oddities


def test_missing_files_are_found_by_a_later_import(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    root = tmp_path / "MASUKA"
    old = installation(root)
    away = tmp_path / "away"
    (root / "media").rename(away)
    report = legacy.import_masuka2(store, old, workspace=workspace)
    [dataset] = datasets.list_datasets(store, actor=OWNER)
    assert [p.width for p in pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id)] == [0, 0]
    assert "dataset_images 1: the file aaa.png is not there any more; its caption is kept." in report.oddities
    assert items.list_items(store, actor=OWNER) == []

    away.rename(root / "media")
    legacy.import_masuka2(store, old, workspace=workspace)
    assert [p.width for p in pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id)] == [64, 48]
    assert len(items.list_items(store, actor=OWNER)) == 1


def test_files_that_moved_with_the_database_are_found(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    installation(tmp_path / "content/MASUKA")
    moved = tmp_path / "drive/MASUKA"
    moved.parent.mkdir()
    (tmp_path / "content/MASUKA").rename(moved)
    legacy.import_masuka2(store, moved / "database/masuka.db", workspace=workspace)
    [item] = items.list_items(store, actor=OWNER)
    assert item.file == str(moved / "media/results/out1.png")
    [adapter] = models.list_models(store, actor=OWNER)
    assert adapter.path == str(moved / "scratch/mira/char/char.safetensors")


def test_loras_and_odd_files_in_the_media_folder(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    root = tmp_path / "MASUKA"
    old = installation(root)
    lora = root / "media/loras/Zoe.safetensors"
    lora.parent.mkdir()
    lora.write_bytes(b"other weights")
    (root / "media/loras/stranger.safetensors").write_bytes(b"of nobody")
    (root / "media/1/bbb.png").write_bytes(b"no picture at all")
    legacy.import_masuka2(store, old, workspace=workspace)
    adapters = {model.name: model.path for model in models.list_models(store, actor=OWNER)}
    assert adapters == {"mira": str(root / "scratch/mira/char/char.safetensors"), "zoe": str(lora)}
    [dataset] = datasets.list_datasets(store, actor=OWNER)
    odd = pictures.list_pictures(store, actor=OWNER, dataset_id=dataset.id)[1]
    assert (odd.width, odd.bytes) == (0, len(b"no picture at all"))


def test_files_inside_the_workspace_are_stored_relative(workspace: Workspace) -> None:
    old = installation(workspace.root / "old")
    with Store.open(workspace) as store:
        legacy.import_masuka2(store, old, workspace=workspace)
        [item] = items.list_items(store, actor=OWNER)
    assert item.file == "old/media/results/out1.png"


def test_find_looks_in_the_usual_places(tmp_path: Path, workspace: Workspace) -> None:
    drive = installation(tmp_path / "drive/MASUKA")
    colab = installation(tmp_path / "drive/CharForgeData", "first")
    lone = installation(tmp_path / "elsewhere", "with errors")
    (tmp_path / "drive/masuka.db").write_bytes(b"not a database at all, but long enough to be looked at")
    with Store.open(workspace) as ours:
        found = legacy.find(
            [tmp_path / "drive", lone, ours.path, tmp_path / "nowhere", tmp_path / "drive/MASUKA"]
        )
    assert found == [drive, colab, lone]


def test_what_is_no_database_is_refused(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        legacy.import_masuka2(store, tmp_path / "no.db", workspace=workspace)
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"junk" * 500)
    with pytest.raises(Damaged):
        legacy.import_masuka2(store, junk, workspace=workspace)


def test_a_database_url_of_masuka_2_is_brought_over(tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    before = digest(old)
    workspace = Workspace(tmp_path / "new", database_file=old).create()
    with Store.open(workspace) as store:
        assert store.path == tmp_path / "new/masuka.db"
        assert {c.name for c in characters.list_characters(store, actor=OWNER)} == {"mira", "zoe"}
        assert (
            f"{old} belongs to MASUKA 2 and stays as it is. This studio works in {store.path}."
            in store.notices
        )
        assert any(notice.startswith("Copied 2 users") for notice in store.notices)
    with Store.open(workspace) as again:
        assert len(again.notices) == 1
        assert len(characters.list_characters(again, actor=OWNER)) == 2
    assert digest(old) == before


def test_an_old_file_in_use_is_waited_for_and_told(tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    workspace = Workspace(tmp_path / "new", database_file=old).create()
    # Not the standard library's SQLite: two copies in one process do not see each other's locks.
    with closing(connect(old)) as busy:
        busy.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Locked):
            Store.open(workspace)
    with Store.open(workspace) as store:
        assert len(characters.list_characters(store, actor=OWNER)) == 2


def test_a_masuka_2_file_in_the_new_place_stays_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home").create()
    old = build(workspace.root / "masuka.db", SHAPES["first"], clean_rows(tmp_path))
    before = digest(old)
    with Store.open(workspace) as store:
        assert store.path == workspace.root / "masuka-3.db"
        assert len(characters.list_characters(store, actor=OWNER)) == 2
    assert digest(old) == before
