"""Connections, transactions and what happens when the file or the library is not as it should be."""

from __future__ import annotations

import sqlite3 as system_sqlite
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from masuka.config import Workspace
from masuka.errors import Conflict, Damaged, Locked, OutOfDisk, StoreError
from masuka.requests.actor import Actor
from masuka.store import changes, characters
from masuka.store.connect import Store, connect
from masuka.store.driver import in_words, sqlite3, version, wal_is_safe

OWNER = Actor(1)


@pytest.fixture
def store(workspace: Workspace):
    with Store.open(workspace) as store:
        yield store


def add(store: Store, name: str) -> None:
    characters.add_character(store, actor=OWNER, name=name, trigger_word="t1")


def names(store: Store) -> list[str]:
    return sorted(c.name for c in characters.list_characters(store, actor=OWNER))


def test_a_write_is_kept_whole_or_not_at_all(store: Store) -> None:
    with store.write():
        add(store, "one")
        add(store, "two")
    with pytest.raises(KeyError), store.write():
        add(store, "three")
        raise KeyError
    assert names(store) == ["one", "two"]


def test_an_inner_write_joins_the_outer_one(store: Store) -> None:
    with pytest.raises(KeyError), store.write():
        with store.write():
            add(store, "inner")
        assert names(store) == ["inner"]
        raise KeyError
    assert names(store) == []


def test_an_inner_failure_undoes_its_own_part(store: Store) -> None:
    with store.write():
        add(store, "kept")
        with pytest.raises(Conflict), store.write():
            add(store, "gone")
            add(store, "kept")
        add(store, "also kept")
    assert names(store) == ["also kept", "kept"]


def test_a_reader_does_not_see_what_is_not_committed(store: Store) -> None:
    seen: list[list[str]] = []

    def look() -> None:
        seen.append(names(store))

    with store.write():
        add(store, "one")
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert names(store) == ["one"]
    assert seen == [[]]
    assert names(store) == ["one"]


def test_every_connection_has_our_settings(store: Store) -> None:
    found: list[tuple[int, int, int, str]] = []

    def look() -> None:
        with store.read() as db:
            found.append(tuple(db.execute(f"PRAGMA {name}").fetchone()[0]  # type: ignore[arg-type]
                for name in ("foreign_keys", "busy_timeout", "synchronous", "journal_mode")))  # fmt: skip

    look()
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert wal_is_safe(version()), "the test environment has a safe SQLite"
    assert found == [(1, 5000, 1, "wal")] * 2


def test_threads_write_beside_each_other(store: Store) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(20):
                with store.write() as db:
                    value = db.execute("SELECT number FROM changes").fetchone()[0]
                    db.execute("UPDATE changes SET number = ?", [value + 1])
                add(store, f"{number}-{n}")
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(names(store)) == 120
    assert changes.now(store) == 240


def test_connections_of_finished_threads_are_closed(store: Store) -> None:
    for _ in range(5):
        thread = threading.Thread(target=names, args=(store,))
        thread.start()
        thread.join()
    add(store, "one")
    # This thread's connection, and that of the last thread, which goes when the next one comes.
    assert sum(Path(f.path) == store.path for f in psutil.Process().open_files()) <= 2


def test_close_is_for_every_thread_and_may_be_repeated(workspace: Workspace) -> None:
    store = Store.open(workspace)
    used, leave = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def work() -> None:
        names(store)
        used.set()
        leave.wait()
        try:
            names(store)
        except StoreError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    used.wait()
    store.close()
    store.close()
    leave.set()
    thread.join()
    assert [str(error) for error in raised] == ["The database is closed. Open the studio again."]
    with pytest.raises(StoreError):
        names(store)
    assert not workspace.database.with_name("masuka.db-wal").exists()


def test_another_writer_is_waited_for_and_then_told(store: Store) -> None:
    with closing(connect(store.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with store.read() as db:
            db.execute("PRAGMA busy_timeout = 50")
        with pytest.raises(Locked) as caught, store.write():
            pytest.fail("two held the write lock")
        assert "Close other copies" in caught.value.hint
        assert names(store) == []
        other.execute("ROLLBACK")
    add(store, "now")
    assert names(store) == ["now"]


def test_a_full_disk_is_a_sentence_and_nothing_is_half_saved(store: Store) -> None:
    with store.read() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(OutOfDisk), store.write():
        for number in range(500):
            add(store, f"a rather long name for a character {number}")
    assert names(store) == []
    with store.read() as db:
        db.execute("PRAGMA max_page_count = 1000000")
    add(store, "again")
    assert names(store) == ["again"]


def test_damage_found_while_reading_is_told(workspace: Workspace) -> None:
    with Store.open(workspace) as store:
        for number in range(300):
            add(store, f"name {number}" * 10)
    raw = bytearray(workspace.database.read_bytes())
    raw[20 * 4096 :] = b"\xee" * (len(raw) - 20 * 4096)
    workspace.database.write_bytes(bytes(raw))
    with Store(workspace.database) as store, pytest.raises(Damaged, match=r"masuka\.db is damaged"):
        with store.read() as db:
            db.execute("PRAGMA cache_size = 0")
        names(store)


def test_a_mistake_of_ours_stays_what_it_is(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"), store.read() as db:
        db.execute("SELECT * FROM songs")


@pytest.mark.parametrize(
    ("library", "safe"),
    [
        ((3, 37, 2), False), ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 44, 9), True),
        ((3, 45, 0), False), ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True),
        ((3, 52, 0), True), ((3, 53, 4), True), ((4, 0, 0), True),
    ],
)  # fmt: skip
def test_which_versions_may_use_wal(library: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(library) is safe


def test_every_kind_of_error_has_its_sentence() -> None:
    def told(name: str) -> str:
        error = sqlite3.OperationalError("text")
        error.sqlite_errorname = name
        words = in_words(error, Path("masuka.db"))
        return type(words).__name__

    assert told("SQLITE_BUSY") == told("SQLITE_BUSY_SNAPSHOT") == told("SQLITE_LOCKED") == "Locked"
    assert told("SQLITE_CORRUPT") == told("SQLITE_NOTADB") == "Damaged"
    assert told("SQLITE_FULL") == "OutOfDisk"
    assert told("SQLITE_IOERR_WRITE") == told("SQLITE_CANTOPEN") == told("SQLITE_READONLY") == "StoreError"
    assert told("SQLITE_ERROR") == told("SQLITE_CONSTRAINT") == "NoneType"


WITHOUT_PYSQLITE3 = """
import sys
sys.modules["pysqlite3"] = None
from pathlib import Path
from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store
with Store.open(Workspace(Path(sys.argv[1])).create()) as store:
    characters.add_character(store, actor=Actor(1), name="Mira", trigger_word="t1")
    with store.read() as db:
        print(db.execute("PRAGMA journal_mode").fetchone()[0], db.execute("PRAGMA synchronous").fetchone()[0])
    print(*store.notices)
"""


def test_the_systems_own_sqlite_gets_the_journal_that_is_safe_with_it(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_PYSQLITE3, str(tmp_path / "w")],
        capture_output=True,
        text=True,
        check=True,
    )
    mode, notices = ran.stdout.splitlines()
    major, minor, patch = system_sqlite.sqlite_version_info
    if wal_is_safe((major, minor, patch)):
        assert (mode, notices) == ("wal 1", "")
    else:
        assert mode == "delete 2"
        assert notices.startswith(f"SQLite {system_sqlite.sqlite_version} has a bug in its fast journal")
    # And back: the better library opens what the other one wrote.
    with Store.open(Workspace(tmp_path / "w")) as store:
        assert names(store) == ["Mira"]
        with store.read() as db:
            assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_an_unreachable_database_is_replaced_by_a_fallback_and_said_aloud(tmp_path: Path) -> None:
    blocked = tmp_path / "drive"
    blocked.mkdir()
    (blocked / "masuka.db").mkdir()
    workspace = Workspace(tmp_path / "home", database_file=blocked / "masuka.db").create()
    with Store.open(workspace) as store:
        assert store.path == blocked / "masuka-fallback.db"
        [notice] = store.notices
        assert notice.startswith(f"The database {blocked}/masuka.db cannot be opened (")
        assert str(store.path) in notice
        add(store, "made meanwhile")

    (blocked / "masuka.db").rmdir()
    with Store.open(workspace) as store:
        assert store.path == blocked / "masuka.db"
        assert names(store) == []
        assert "What was made meanwhile is in" in store.notices[0]


def test_an_unreachable_folder_falls_back_to_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    workspace = Workspace(tmp_path / "home", database_file=tmp_path / "file" / "masuka.db").create()
    with Store.open(workspace) as store:
        assert store.path == tmp_path / "home/masuka-fallback.db"
        assert len(store.notices) == 1


def test_nowhere_to_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        Store.open(Workspace(tmp_path / "file" / "home"))


WRITER = """
import sys
from pathlib import Path
from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import characters
from masuka.store.connect import Store
with Store.open(Workspace(Path(sys.argv[1]))) as store:
    for number in range(100000):
        name = f"{sys.argv[2]}-{number}"
        characters.add_character(store, actor=Actor(1), name=name, trigger_word="t1")
        print(name, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_it_had_told(workspace: Workspace) -> None:
    told: set[str] = set()
    for round in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(workspace.root), str(round)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(9 * round + 1):
            told.add(process.stdout.readline().strip())
        process.kill()
        told |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
        process.stdout.close()
    with Store.open(workspace) as store:
        kept = set(names(store))
        with store.read() as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert told <= kept
    assert len(kept - told) <= 6
