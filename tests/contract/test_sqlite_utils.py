"""What the store relies on in sqlite-utils, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlite_utils import Database, Migrations

from masuka.store.connect import connect
from masuka.store.driver import sqlite3
from masuka.store.migrations import as_set


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    opened = connect(tmp_path / "x.db")
    opened.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT")
    yield opened
    opened.close()


def names(db: Database) -> list[str]:
    return [row["name"] for row in db.execute("SELECT name FROM things ORDER BY id")]


def test_both_sides_use_one_sqlite(db: Database) -> None:
    """pysqlite3's errors are classes of their own: `except sqlite3.Error` must be of the same module."""
    assert isinstance(db.conn, sqlite3.Connection)
    with pytest.raises(sqlite3.OperationalError):
        db.execute("SELECT * FROM nowhere")


def test_it_begins_no_transaction_of_its_own(db: Database) -> None:
    """`Store.write` begins and ends them; a connection in autocommit must be left so."""
    assert db.conn.isolation_level is None
    db.execute("INSERT INTO things (name) VALUES ('a')")
    assert not db.conn.in_transaction
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO things (name) VALUES ('b')")
    assert db.conn.in_transaction
    db.execute("ROLLBACK")
    assert names(db) == ["a"]


def test_the_connections_own_settings_stay(db: Database) -> None:
    """Rows by name, and cascades."""
    assert isinstance(db.execute("SELECT 1 AS one").fetchone(), sqlite3.Row)
    assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert db.execute("PRAGMA recursive_triggers").fetchone()[0] == 0


def test_an_inner_atomic_undoes_its_own_part_only(db: Database) -> None:
    """`Store.write` inside `Store.write` joins it: a savepoint, not a transaction."""
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO things (name) VALUES ('outer')")
    with pytest.raises(sqlite3.IntegrityError), db.atomic():
        db.execute("INSERT INTO things (name) VALUES ('inner')")
        db.execute("INSERT INTO things (name) VALUES ('outer')")
    with db.atomic():
        db.execute("INSERT INTO things (name) VALUES ('second')")
    assert db.conn.in_transaction
    db.execute("COMMIT")
    assert names(db) == ["outer", "second"]


def test_an_outer_atomic_takes_the_schema_back_too(db: Database) -> None:
    """All pending migrations succeed together or leave the file as it was."""
    with pytest.raises(RuntimeError), db.atomic():
        db.execute("CREATE TABLE more (id INTEGER)")
        db.execute("ALTER TABLE things ADD COLUMN colour TEXT")
        raise RuntimeError("the next one fails")
    assert db.table_names() == ["things"]
    assert [column.name for column in db["things"].columns] == ["id", "name"]


def m001_one(db: Database) -> None:
    db.execute("INSERT INTO things (name) VALUES ('one')")


def m002_two(db: Database) -> None:
    db.execute("INSERT INTO things (name) VALUES ('two')")


def test_migrations_are_applied_once_in_order_and_known_by_name(db: Database) -> None:
    """Ours are functions; `as_set` registers them, and the file remembers their names."""
    first = as_set([m001_one])
    assert [m.name for m in first.pending(db)] == ["m001_one"]
    first.apply(db)
    both = as_set([m001_one, m002_two])
    assert [m.name for m in both.applied(db)] == ["m001_one"]
    assert [m.name for m in both.pending(db)] == ["m002_two"]
    both.apply(db)
    both.apply(db)
    assert names(db) == ["one", "two"]
    assert Migrations.migrations_table in db.table_names()


def test_names_that_this_program_does_not_know_are_told(db: Database) -> None:
    """How a file of a newer MASUKA is recognised."""
    as_set([m001_one, m002_two]).apply(db)
    assert [m.name for m in as_set([m001_one]).applied(db)] == ["m001_one", "m002_two"]


def test_migrations_join_a_transaction_that_is_open(db: Database) -> None:
    """`_apply` checks foreign keys after them and before it commits."""
    with pytest.raises(RuntimeError), db.atomic():
        as_set([m001_one]).apply(db)
        raise RuntimeError("a key is broken")
    assert names(db) == []
    assert [m.name for m in as_set([m001_one]).pending(db)] == ["m001_one"]
