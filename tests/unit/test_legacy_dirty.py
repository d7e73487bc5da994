"""Dirty, damaged and half-written MASUKA 2 databases lose no row that can be kept."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import (
    characters,
    datasets,
    legacy,
    pictures,
    runs,
    settings,
)
from masuka.store.connect import Store
from masuka.store.migrations.runner import check
from tests.unit.masuka2 import AT, BCRYPT, LATER, SHAPES, build, clean_rows, installation

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
