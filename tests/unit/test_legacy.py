"""A MASUKA 2 installation comes over whole, in every older shape, and stays as it was."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from tests.unit.masuka2 import AT, BCRYPT, LATER, SHAPES, build, clean_rows, installation

from masuka.config import Workspace
from masuka.errors import Damaged, NotFound
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
from masuka.store.connect import Store
from masuka.store.migrations.runner import check

OWNER = Actor(1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def total_rows(store: Store) -> dict[str, int]:
    with store.read() as db:
        return {name: db.table(name).count for name in db.table_names()}


@pytest.fixture
def store(workspace: Workspace) -> Store:
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
    legacy.import_masuka2(store, old, workspace=workspace)
    assert [c.name for c in characters.list_characters(store, actor=OWNER)] == ["zoe"]


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


def test_files_inside_the_workspace_are_stored_relative(workspace: Workspace) -> None:
    old = installation(workspace.root / "old")
    with Store.open(workspace) as store:
        legacy.import_masuka2(store, old, workspace=workspace)
        [item] = items.list_items(store, actor=OWNER)
    assert item.file == "old/media/results/out1.png"


DIRTY = {
    "users": [
        {"id": 7, "username": "SAM", "email": "SAM@example.org", "hashed_password": BCRYPT, "is_active": "perhaps", "created_at": "yesterday"},
    ],
    "datasets": [
        {"id": 6, "user_id": 99, "name": "n" * 150, "trigger_word": "x\x00y", "caption_template": None, "status": "weird", "created_at": AT},
    ],
    "dataset_images": [
        {"id": 10, "dataset_id": 77, "filename": "lost.png", "original_filename": "lost.png", "caption": "kept", "created_at": AT},
        {"id": 11, "dataset_id": 77, "filename": "lost2.png", "original_filename": "lost2.png", "caption": "kept too", "created_at": AT},
        {"id": 12, "dataset_id": 5, "filename": "../../../../etc/passwd", "original_filename": "x", "created_at": AT},
        {"id": 13, "dataset_id": 5, "filename": b"\xff\xfe", "original_filename": "bytes", "created_at": AT},
        {"id": 14, "dataset_id": 5, "filename": "aaa.png", "original_filename": "twice", "created_at": LATER},
    ],
    "characters": [
        {"id": 8, "name": "mira", "user_id": 1, "input_image_path": "", "work_dir": "", "status": "completed", "created_at": LATER},
        {"id": 9, "name": "", "user_id": "me", "input_image_path": "a\x00b", "work_dir": "relative/dir", "status": 3, "dataset_id": 1234, "created_at": None},
    ],
    "training_sessions": [
        {"id": 20, "character_id": 555, "user_id": 1, "steps": "many", "learning_rate": float("inf"), "progress": -3, "status": None, "created_at": "??"},
        {"id": 21, "character_id": "mira", "user_id": 12, "steps": -5, "status": "exploded", "progress": 400, "created_at": 1760278000},
    ],
    "inference_jobs": [
        {"id": 30, "character_id": 3, "user_id": 1, "prompt": "a", "status": "completed", "output_paths": "{not json", "created_at": AT},
        {"id": 31, "character_id": 3, "user_id": 1, "prompt": "b", "status": "completed", "output_paths": "['x.png', 'y.png']", "created_at": AT},
        {"id": 32, "character_id": 3, "user_id": 1, "prompt": "c", "status": "completed", "output_paths": '{"a": 1}', "created_at": AT},
        {"id": 33, "character_id": 3, "user_id": 1, "prompt": "d", "status": "completed", "output_paths": "[" * 5000, "created_at": AT},
    ],
    "app_settings": [
        {"id": 40, "user_id": 1, "key": "HF_HOME", "value": "/newer", "is_encrypted": "no", "updated_at": LATER},
        {"id": 41, "user_id": 1, "key": "", "value": "x", "is_encrypted": 0, "updated_at": LATER},
        {"id": 42, "user_id": 1, "key": "NULLED", "value": None, "is_encrypted": 1, "updated_at": None},
    ],
}  # fmt: skip


def test_dirty_rows_are_kept_and_told(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA", **DIRTY)
    report = legacy.import_masuka2(store, old, workspace=workspace)

    assert check(store.path).ok
    left_out = {table: count.left_out for table, count in report.counts.items() if count.left_out}
    assert left_out == {"dataset_images": 1, "app_settings": 1}
    for count in report.counts.values():
        assert count.found == count.added + count.left_out
    told = "\n".join(report.oddities)
    for sentence in (
        "users 7: the name 'SAM' is taken; it is 'SAM (2)' now.",
        "users 7: the address SAM@example.org belongs to another account and was left out.",
        "users 7: is_active was 'perhaps'; yes is used.",
        "users 7: created_at was 'yesterday', which is no time.",
        "datasets 6: its account 99 is gone; the owner has it now.",
        "datasets 6: its name was longer than 100 characters and was cut.",
        "datasets 6: its status was 'weird'.",
        "dataset_images 10: its data set 77 is gone; its pictures are in 'Recovered pictures 77'.",
        "dataset_images 14: aaa.png is the same picture as another one of Mira set; it is kept once.",
        "characters 8: there is another 'mira'; it is 'mira (2)' now.",
        "characters 9: its data set 1234 is gone.",
        "characters 9: user_id was 'me', which names nothing.",
        "training_sessions 20: its character 555 is gone.",
        "training_sessions 20: steps was 'many'; 800 is used.",
        "training_sessions 20: learning_rate was inf; 0.0008 is used.",
        "training_sessions 20: progress was -3.0; 0 is used.",
        "training_sessions 21: its status was 'exploded'; it counts as failed.",
        "inference_jobs 30: its list of pictures was no JSON; each line was taken for a path.",
        "app_settings 40: HF_HOME was there more than once; the newest counts.",
        "app_settings 41: it has no name and was left out.",
    ):
        assert sentence in told
    assert settings.get_setting(store, actor=OWNER, key="HF_HOME").value == "/newer"
    recovered = next(
        d for d in datasets.list_datasets(store, actor=OWNER) if d.name == "Recovered pictures 77"
    )
    assert [p.caption for p in pictures.list_pictures(store, actor=OWNER, dataset_id=recovered.id)] == [
        "kept",
        "kept too",
    ]
    for picture in pictures.list_pictures(store, actor=OWNER, dataset_id=2, limit=None):
        assert "passwd" not in picture.file or not picture.bytes
    assert legacy.import_masuka2(store, old, workspace=workspace).added == 0


def test_every_old_row_is_kept_as_it_was(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    with store.read() as db:
        rows = {(r["old_table"], r["old_id"]): r["row"] for r in db.table("imported").rows}
    assert '"work_dir": "/gone/scratch/zoe"' in rows["characters", 4]
    assert "$2b$" not in "".join(rows.values())
    assert "/data/hf" not in rows["app_settings", 1]


def test_tables_without_a_primary_key_may_repeat_numbers(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    loose = "CREATE TABLE characters (id, name, user_id, work_dir, status, created_at)"
    rows = clean_rows(tmp_path)
    rows["characters"] = [
        {"id": 3, "name": "one", "user_id": 1, "work_dir": "", "status": "created"},
        {"id": 3, "name": "two", "user_id": 1, "work_dir": "", "status": "created"},
        {"id": None, "name": "three", "user_id": 1, "work_dir": "", "status": "created"},
        {"id": 3, "name": "one", "user_id": 1, "work_dir": "", "status": "created"},
    ]
    tables = [loose, *(s for s in SHAPES["last"] if "TABLE characters" not in s)]
    old = build(tmp_path / "masuka.db", tables, rows)
    report = legacy.import_masuka2(store, old, workspace=workspace)
    assert sorted(c.name for c in characters.list_characters(store, actor=OWNER)) == [
        "one",
        "one (2)",
        "three",
        "two",
    ]
    trained = {run.character_id for run in runs.list_runs(store, actor=OWNER)}
    one = next(c for c in characters.list_characters(store, actor=OWNER) if c.name == "one")
    assert one.id in trained
    assert report.counts["characters"].left_out == 0
    assert legacy.import_masuka2(store, old, workspace=workspace).added == 0


def test_missing_tables_and_strange_ones(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    from tests.unit.masuka2 import CHARACTERS, USERS

    old = build(
        tmp_path / "masuka.db",
        [USERS, CHARACTERS, "CREATE TABLE notes (text)"],
        {"characters": clean_rows(tmp_path)["characters"]},
    )
    report = legacy.import_masuka2(store, old, workspace=workspace)
    assert report.counts["characters"].added == 2
    assert "The table notes is none of MASUKA 2's; it was not copied." in report.oddities
    assert {c.user_id for c in characters.list_characters(store, actor=OWNER)} == {1}


SECRET = "an old SECRET_KEY of more than thirty-two characters"


def ciphers() -> dict[str, tuple[Fernet, str]]:
    made = Fernet.generate_key()
    hashed = base64.urlsafe_b64encode(hashlib.sha256(SECRET.encode()).digest())
    cut = base64.urlsafe_b64encode(SECRET.encode()[:32])
    padded = base64.urlsafe_b64encode(b"short".ljust(32, b"0"))
    return {
        "the key itself": (Fernet(made), made.decode()),
        "hashed": (Fernet(hashed), SECRET),
        "cut": (Fernet(cut), SECRET),
        "padded": (Fernet(padded), "short"),
    }


@pytest.mark.parametrize("way", ciphers())
def test_encrypted_settings_open_with_the_old_key(
    way: str, store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    cipher, secret_key = ciphers()[way]
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[{"id": 2, "user_id": 1, "key": "HF_TOKEN", "value": cipher.encrypt(b"hf_canary").decode(),
                       "is_encrypted": 1, "updated_at": AT}],
    )  # fmt: skip
    if way == "the key itself":
        report = legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key)
        assert report.enter_again == ()
    else:
        report = legacy.import_masuka2(store, old, workspace=workspace)
        assert report.enter_again == ("HF_TOKEN",)
        shut = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
        assert (shut.value, shut.needs_reentry) == ("", True)
        wrong = legacy.import_masuka2(store, old, workspace=workspace, secret_key="another")
        assert wrong.enter_again == ("HF_TOKEN",)
        assert not legacy.nothing_new(store, old, secret_key=secret_key)
        assert legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key).enter_again == ()
    opened = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
    assert (opened.value, opened.encrypted, opened.needs_reentry) == ("hf_canary", True, False)
    assert b"hf_canary" not in store.path.read_bytes()


def test_the_key_file_beside_the_old_database_is_used(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    key = Fernet.generate_key()
    token = Fernet(key).encrypt(b"hf_canary").decode()
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[
            {"id": 2, "user_id": 1, "key": "FAL_KEY", "value": token, "is_encrypted": 1, "updated_at": AT}
        ],
    )
    (tmp_path / "MASUKA/encryption.key").write_bytes(key)
    legacy.import_masuka2(store, old, workspace=workspace)
    assert settings.get_setting(store, actor=OWNER, key="FAL_KEY").value == "hf_canary"


def test_a_key_that_was_stored_in_the_open_is_encrypted(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    old = installation(
        tmp_path / "MASUKA",
        app_settings=[{"id": 2, "user_id": 1, "key": "HF_TOKEN", "value": "hf_open_canary", "is_encrypted": 0, "updated_at": AT}],
    )  # fmt: skip
    legacy.import_masuka2(store, old, workspace=workspace)
    setting = settings.get_setting(store, actor=OWNER, key="HF_TOKEN")
    assert (setting.value, setting.encrypted) == ("hf_open_canary", True)
    store.close()
    files = [p for p in store.path.parent.glob("masuka.db*") if p.is_file()]
    assert files
    assert all(b"hf_open_canary" not in p.read_bytes() for p in files)


def test_settings_made_here_win(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    settings.set_setting(store, actor=OWNER, key="HF_HOME", value="mine")
    report = legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    assert settings.get_setting(store, actor=OWNER, key="HF_HOME").value == "mine"
    assert "app_settings 1: HF_HOME is set here already; ours is kept." in report.oddities


def test_an_owner_with_a_password_keeps_it(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    users.set_user(store, actor=OWNER, id=1, username="boss", password_hash="mine")
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    owner = users.get_user(store, actor=OWNER, id=1)
    assert (owner.username, owner.password_hash) == ("boss", "mine")


def test_characters_with_taken_names_get_a_number(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    characters.add_character(store, actor=OWNER, name="mira", trigger_word="mm")
    legacy.import_masuka2(store, installation(tmp_path / "MASUKA"), workspace=workspace)
    assert sorted(c.name for c in characters.list_characters(store, actor=OWNER)) == [
        "mira",
        "mira (2)",
        "zoe",
    ]


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


def test_a_half_damaged_file_gives_what_can_be_read(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    many = [
        {"id": n, "character_id": 3, "user_id": 1, "prompt": "p" * 400 + str(n), "status": "completed", "created_at": AT}
        for n in range(100, 300)
    ]  # fmt: skip
    old = installation(tmp_path / "MASUKA", inference_jobs=many)
    raw = bytearray(old.read_bytes())
    with closing(sqlite3.connect(old)) as db:
        size = db.execute("PRAGMA page_size").fetchone()[0]
    hurt = raw.find(b"p" * 400 + b"250") // size * size
    raw[hurt : hurt + size] = b"\xee" * size
    old.write_bytes(bytes(raw))
    report = legacy.import_masuka2(store, old, workspace=workspace)
    assert 100 < report.counts["inference_jobs"].added < 200
    assert any("is damaged after" in text for text in report.oddities)
    assert report.counts["characters"].added == 2


def test_a_failing_import_leaves_nothing(store: Store, workspace: Workspace, tmp_path: Path) -> None:
    old = installation(tmp_path / "MASUKA")
    before = total_rows(store)
    with store.write() as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON items BEGIN SELECT RAISE(ABORT, 'no space for this'); END"
        )
    with pytest.raises(Exception, match="no space for this"):
        legacy.import_masuka2(store, old, workspace=workspace)
    assert total_rows(store) == before


def test_an_unfinished_write_of_the_old_program_is_undone_in_the_copy(
    store: Store, workspace: Workspace, tmp_path: Path
) -> None:
    """A hot journal belongs to the database; reading without it would see half a transaction."""
    old = installation(tmp_path / "MASUKA")
    crashed = tmp_path / "crashed/masuka.db"
    crashed.parent.mkdir()
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        db.execute("PRAGMA cache_size = 1")
        db.execute("BEGIN")
        db.execute("UPDATE characters SET name = 'half'")
        for n in range(400):
            db.execute(
                "INSERT INTO app_settings (user_id, key, value) VALUES (1, ?, ?)", [f"k{n}", "x" * 500]
            )
        crashed.write_bytes(old.read_bytes())
        crashed.with_name("masuka.db-journal").write_bytes(old.with_name("masuka.db-journal").read_bytes())
        db.execute("ROLLBACK")
    legacy.import_masuka2(store, crashed, workspace=workspace)
    assert {c.name for c in characters.list_characters(store, actor=OWNER)} == {"mira", "zoe"}


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


def test_a_masuka_2_file_in_the_new_place_stays_too(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "home").create()
    old = build(workspace.root / "masuka.db", SHAPES["first"], clean_rows(tmp_path))
    before = digest(old)
    with Store.open(workspace) as store:
        assert store.path == workspace.root / "masuka-3.db"
        assert len(characters.list_characters(store, actor=OWNER)) == 2
    assert digest(old) == before
