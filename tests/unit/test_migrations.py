"""The database file: migrated once, backed up before, checked, restored."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlite_utils import Database

from masuka.config import Workspace
from masuka.errors import Conflict, Damaged, Locked, NotFound, SchemaTooNew
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store, connect
from masuka.store.migrations import MIGRATIONS, names_of
from masuka.store.migrations.runner import (
    Step,
    alone,
    backup,
    check,
    list_backups,
    migrate,
    renew_backups,
    restore,
    thin_backups,
)

OWNER = Actor(1)
NAMES = tuple(names_of(MIGRATIONS))


def schema(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [str(row[0]) for row in db.execute("SELECT sql FROM sqlite_master ORDER BY name")]


def add_name(path: Path, name: str) -> None:
    with Store(path) as store:
        characters.add_character(store, actor=OWNER, name=name, trigger_word="t1")


def names(path: Path) -> list[str]:
    with Store(path) as store:
        return sorted(c.name for c in characters.list_characters(store, actor=OWNER))


def m998_colour(db: Database) -> None:
    db.execute("ALTER TABLE characters ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")


def m999_fails(db: Database) -> None:
    db.execute("ALTER TABLE characters ADD COLUMN size INTEGER")
    raise RuntimeError("a mistake in a migration")


def m999_breaks_keys(db: Database) -> None:
    db.execute("INSERT INTO pictures (dataset_id, user_id, file, sha256, created_at, updated_at) "
               "VALUES (77, 1, 'a', 'b', 'c', 'd')")  # fmt: skip


def test_the_second_time_everything_is_already_done(workspace: Workspace) -> None:
    path = workspace.database
    assert migrate(path, backups=workspace.backups) == [Step(name, "done") for name in NAMES]
    before = schema(path)
    assert migrate(path, backups=workspace.backups) == [Step(name, "already done") for name in NAMES]
    assert schema(path) == before
    assert list_backups(workspace.backups) == []


def test_opening_twice_changes_nothing(workspace: Workspace) -> None:
    Store.open(workspace).close()
    before = schema(workspace.database)
    with Store.open(workspace) as store:
        assert store.notices == []
        assert store.migrations == tuple(f"{name}: already done" for name in NAMES)
    assert schema(workspace.database) == before


def test_every_table_is_strict_and_every_reference_has_an_index(workspace: Workspace) -> None:
    with Store.open(workspace) as store, store.read() as db:
        for table in db.tables:
            if table.name.startswith(("_", "sqlite_")):
                continue
            assert table.strict, table.name
            first_columns = {index.columns[0] for index in table.indexes}
            first_columns |= set(table.pks[:1])
            for key in table.foreign_keys:
                assert key.column in first_columns, f"{table.name}.{key.column}"


def test_a_backup_is_taken_before_a_pending_migration(workspace: Workspace) -> None:
    path = workspace.database
    migrate(path, backups=workspace.backups)
    add_name(path, "Mira")
    steps = migrate(path, backups=workspace.backups, migrations=[*MIGRATIONS, m998_colour])
    assert steps == [*(Step(name, "already done") for name in NAMES), Step("m998_colour", "done")]
    [saved] = list_backups(workspace.backups)
    assert names(saved) == ["Mira"]
    assert "colour" not in "".join(schema(saved))
    assert "colour" in "".join(schema(path))


@pytest.mark.parametrize(("bad", "error"), [(m999_fails, RuntimeError), (m999_breaks_keys, Damaged)])
def test_a_failing_migration_changes_nothing(bad, error, workspace: Workspace) -> None:
    path = workspace.database
    migrate(path, backups=workspace.backups)
    add_name(path, "Mira")
    before = schema(path)
    with pytest.raises(error):
        migrate(path, backups=workspace.backups, migrations=[*MIGRATIONS, m998_colour, bad])
    assert schema(path) == before
    assert names(path) == ["Mira"]
    with Store.open(workspace) as store:
        assert store.notices == []


def test_keys_that_were_broken_before_do_not_stop_a_migration(workspace: Workspace) -> None:
    path = workspace.database
    migrate(path, backups=workspace.backups)
    with closing(sqlite3.connect(path)) as db:
        m999_breaks_keys(Database(db, execute_plugins=False))
        db.commit()
    steps = migrate(path, backups=workspace.backups, migrations=[*MIGRATIONS, m998_colour])
    assert steps[-1] == Step("m998_colour", "done")
    assert check(path).problems[0] == "Row 1 of pictures names a row of datasets that is gone."


def test_a_newer_database_is_refused_and_left_alone(workspace: Workspace) -> None:
    path = workspace.database
    migrate(path, backups=workspace.backups, migrations=[*MIGRATIONS, m998_colour])
    before = path.read_bytes()
    with pytest.raises(SchemaTooNew, match="m998_colour"):
        Store.open(workspace)
    assert path.read_bytes() == before
    assert check(path).problems == ("It was written by a newer MASUKA (m998_colour).",)


def test_another_programs_database_is_refused(workspace: Workspace) -> None:
    with closing(sqlite3.connect(workspace.database)) as db:
        db.execute("CREATE TABLE songs (title TEXT)")
    before = schema(workspace.database)
    with pytest.raises(Conflict, match="another program"):
        Store.open(workspace)
    assert schema(workspace.database) == before


def test_check_finds_nothing_wrong_in_a_fresh_database(workspace: Workspace) -> None:
    Store.open(workspace).close()
    health = check(workspace.database)
    assert health.ok
    assert health.applied == NAMES
    assert check(backup(workspace.database, backups=workspace.backups)).ok


def test_check_names_what_is_missing(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(NotFound):
        check(tmp_path / "no.db")
    Store.open(workspace).close()
    with closing(sqlite3.connect(workspace.database)) as db:
        db.execute("DELETE FROM _sqlite_migrations")
        db.commit()
    health = check(workspace.database)
    assert (health.pending, health.ok) == (NAMES, False)


@pytest.mark.parametrize("hurt", ["header", "middle", "truncated"])
def test_check_tells_damage(hurt: str, workspace: Workspace) -> None:
    path = workspace.database
    with Store.open(workspace) as store:
        for number in range(200):
            characters.add_character(store, actor=OWNER, name=f"name {number}" * 20, trigger_word="t1")
    raw = bytearray(path.read_bytes())
    if hurt == "header":
        raw[:16] = b"x" * 16
    elif hurt == "middle":
        start = len(raw) // 2 // 4096 * 4096
        raw[start : start + 4096] = b"\xee" * 4096
    else:
        raw = raw[: len(raw) // 2]
    path.write_bytes(bytes(raw))
    health = check(path)
    assert health.problems
    assert not health.whole


def test_a_damaged_database_says_how_to_go_back(workspace: Workspace) -> None:
    Store.open(workspace).close()
    workspace.database.write_bytes(b"no database" * 1000)
    with pytest.raises(Damaged) as caught:
        Store.open(workspace)
    assert "db restore" in caught.value.hint


def test_restore_brings_the_backup_back_and_keeps_what_was_there(workspace: Workspace) -> None:
    path = workspace.database
    Store.open(workspace).close()
    add_name(path, "first")
    saved = backup(path, backups=workspace.backups)
    add_name(path, "second")
    replaced = restore(path, saved, backups=workspace.backups)
    assert names(path) == ["first"]
    assert replaced in list_backups(workspace.backups)
    restore(path, replaced, backups=workspace.backups)
    assert names(path) == ["first", "second"]
    with Store.open(workspace) as store:
        add_name(store.path, "third")
    assert names(path) == ["first", "second", "third"]


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000])
def test_restore_over_a_damaged_file(damage: bytes, workspace: Workspace) -> None:
    path = workspace.database
    Store.open(workspace).close()
    add_name(path, "Mira")
    saved = backup(path, backups=workspace.backups)
    path.write_bytes(damage)
    kept = restore(path, saved, backups=workspace.backups)
    assert names(path) == ["Mira"]
    if damage:
        assert kept.read_bytes() == damage


def test_restore_where_the_database_is_gone(workspace: Workspace) -> None:
    Store.open(workspace).close()
    add_name(workspace.database, "Mira")
    saved = backup(workspace.database, backups=workspace.backups)
    workspace.database.unlink()
    assert restore(workspace.database, saved, backups=workspace.backups) is None
    assert names(workspace.database) == ["Mira"]


def test_restore_refuses_while_the_database_is_open(workspace: Workspace) -> None:
    with Store.open(workspace) as store:
        add_name(store.path, "Mira")
        saved = backup(store.path, backups=workspace.backups)
        characters.list_characters(store, actor=OWNER)
        with pytest.raises(Locked, match="is open"):
            restore(store.path, saved, backups=workspace.backups)
        characters.add_character(store, actor=OWNER, name="after", trigger_word="t1")
    assert names(workspace.database) == ["Mira", "after"]


def test_restore_without_wal(workspace: Workspace) -> None:
    """A reader is seen and waited for; an idle program goes on with the restored rows."""
    path = workspace.database
    Store.open(workspace).close()
    add_name(path, "Mira")
    saved = backup(path, backups=workspace.backups)
    add_name(path, "Zoe")
    with closing(connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    with Store(path) as idle, closing(connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM characters").fetchone()
        with pytest.raises(Locked, match="is open"):
            restore(path, saved, backups=workspace.backups)
        reader.execute("ROLLBACK")
        assert len(characters.list_characters(idle, actor=OWNER)) == 2
        restore(path, saved, backups=workspace.backups)
        assert [c.name for c in characters.list_characters(idle, actor=OWNER)] == ["Mira"]
        characters.add_character(idle, actor=OWNER, name="after", trigger_word="t1")
    assert names(path) == ["Mira", "after"]


def test_restore_refuses_what_is_no_good(workspace: Workspace, tmp_path: Path) -> None:
    path = workspace.database
    Store.open(workspace).close()
    add_name(path, "Mira")
    with pytest.raises(NotFound):
        restore(path, tmp_path / "no.db", backups=workspace.backups)
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"junk" * 2000)
    with pytest.raises(Damaged):
        restore(path, junk, backups=workspace.backups)
    empty = tmp_path / "empty.db"
    sqlite3.connect(empty).close()
    empty.touch()
    with pytest.raises(Conflict):
        restore(path, empty, backups=workspace.backups)
    newer = tmp_path / "newer.db"
    migrate(newer, backups=workspace.backups, migrations=[*MIGRATIONS, m998_colour])
    with pytest.raises(SchemaTooNew):
        restore(path, newer, backups=workspace.backups)
    assert names(path) == ["Mira"]


def test_backups_never_reuse_a_name(workspace: Workspace) -> None:
    Store.open(workspace).close()
    made = [backup(workspace.database, backups=workspace.backups) for _ in range(4)]
    assert len(set(made)) == 4
    assert list_backups(workspace.backups) == made[::-1]
    assert not [p for p in workspace.backups.iterdir() if p.name.startswith(".")]
    for saved in made:
        assert not saved.with_name(saved.name + "-wal").exists()


def test_other_files_among_the_backups_are_none(workspace: Workspace) -> None:
    Store.open(workspace).close()
    kept = backup(workspace.database, backups=workspace.backups)
    for name in ("masuka-old.db", "masuka-before-the-move.db", "masuka-20260101T000000Z-1 copy.db"):
        (workspace.backups / name).write_bytes(kept.read_bytes())
    assert list_backups(workspace.backups) == [kept]


def test_a_backup_of_a_database_in_use_is_whole(workspace: Workspace) -> None:
    with Store.open(workspace) as store, store.write():
        characters.add_character(store, actor=OWNER, name="not yet", trigger_word="t1")
        saved = backup(store.path, backups=workspace.backups)
    assert names(saved) == []
    assert check(saved).ok
    with pytest.raises(NotFound):
        backup(workspace.root / "no.db", backups=workspace.backups)


def test_only_one_program_migrates_at_a_time(workspace: Workspace) -> None:
    with (
        alone(workspace.database),
        pytest.raises(Locked, match="opening or restoring"),
        alone(workspace.database, timeout_s=0.1),
    ):
        pytest.fail("two held the lock")  # fmt: skip


OPEN = """
import sys
from pathlib import Path
from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store, connect
sys.stdin.readline()
with Store.open(Workspace(Path(sys.argv[1]))) as store:
    characters.add_character(store, actor=Actor(1), name=sys.argv[2], trigger_word="t1")
    print(len(store.notices))
"""


def test_four_programs_open_a_fresh_workspace_together(workspace: Workspace) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, str(workspace.root), f"name {n}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=120) for process in started]
    assert [(out.strip(), err) for out, err in ended] == [("0", "")] * 4
    assert names(workspace.database) == [f"name {n}" for n in range(4)]
    assert check(workspace.database).ok
    assert list_backups(workspace.backups) == []


def test_a_workspace_that_was_copied_opens(workspace: Workspace, tmp_path: Path) -> None:
    with Store.open(workspace) as store:
        characters.add_character(store, actor=OWNER, name="Mira", trigger_word="t1")
    copy = tmp_path / "copy"
    shutil.copytree(workspace.root, copy)
    with Store.open(Workspace(copy)) as store:
        assert [c.name for c in characters.list_characters(store, actor=OWNER)] == ["Mira"]


def test_old_backups_go_and_one_of_each_recent_day_stays(tmp_path: Path) -> None:
    stamps = [
        *(f"20260315T12000{second}Z" for second in range(10)),  # the ten newest
        "20260315T115900Z",
        "20260314T080000Z", "20260314T090000Z",
        "20260309T230000Z",
        "20260308T230000Z",  # the eighth day
        "20250101T000000Z",
    ]  # fmt: skip
    for stamp in stamps:
        (tmp_path / f"masuka-{stamp}-1.db").touch()
    for other in ("before-the-update.db", "masuka-20250101T000000Z-1.db-wal", "masuka-20250101T000000Z-1.txt"):
        (tmp_path / other).touch()
    gone = thin_backups(tmp_path, now=datetime(2026, 3, 15, 13, tzinfo=UTC))
    assert sorted(file.name[7:23] for file in gone) == [
        "20250101T000000Z", "20260308T230000Z", "20260314T080000Z", "20260315T115900Z"
    ]  # fmt: skip
    left = {file.name for file in tmp_path.iterdir()}
    assert left - {file.name for file in list_backups(tmp_path)} == {
        "before-the-update.db",
        "masuka-20250101T000000Z-1.txt",
    }
    assert thin_backups(tmp_path, now=datetime(2026, 3, 15, 13, tzinfo=UTC)) == []
    # Nobody looked for a year: the ten newest are still there.
    assert len(thin_backups(tmp_path, now=datetime(2027, 3, 15, tzinfo=UTC))) == 2
    assert len(list_backups(tmp_path)) == 10


def test_renewed_backups_hold_only_what_is_there(workspace: Workspace) -> None:
    migrate(workspace.database, backups=workspace.backups)
    assert renew_backups(workspace.database, backups=workspace.backups) is None, "where none was, none is made"
    add_name(workspace.database, "deleted for good")
    for _ in range(3):
        backup(workspace.database, backups=workspace.backups)
    mine = workspace.backups / "before-the-exhibition.db"
    list_backups(workspace.backups)[0].replace(mine)
    with Store(workspace.database) as store:
        characters.delete_character(store, actor=OWNER, id=1)
        add_name(workspace.database, "kept")
        renewed = renew_backups(workspace.database, backups=workspace.backups)
    assert renewed is not None and list_backups(workspace.backups) == [renewed]
    assert names(renewed) == ["kept"] and b"deleted for good" not in renewed.read_bytes()
    assert mine.exists(), "a name of one's own is kept for ever"


def test_no_backup_goes_before_the_new_one_is_there(workspace: Workspace) -> None:
    migrate(workspace.database, backups=workspace.backups)
    kept = backup(workspace.database, backups=workspace.backups)
    (workspace.backups / f".part-{os.getpid()}.db").mkdir()  # nothing can be written there
    with pytest.raises(OSError, match="directory"):
        renew_backups(workspace.database, backups=workspace.backups)
    assert list_backups(workspace.backups) == [kept]


def test_backing_up_thins_and_keeps_the_new_one(workspace: Workspace) -> None:
    migrate(workspace.database, backups=workspace.backups)
    for year in range(2001, 2021):
        (workspace.backups / f"masuka-{year}0101T000000Z-1.db").touch()
    written = backup(workspace.database, backups=workspace.backups)
    assert list_backups(workspace.backups)[0] == written
    assert len(list_backups(workspace.backups)) == 10
