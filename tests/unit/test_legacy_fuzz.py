"""Whatever stands in the columns of a MASUKA 2 database, its rows come over or are accounted for."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masuka.config import Workspace
from masuka.requests.actor import Actor
from masuka.store import characters, jobs, legacy
from masuka.store.connect import Store
from masuka.store.migrations.runner import check
from tests.unit.masuka2 import SHAPES, build

OWNER = Actor(1)
LOOSE = [
    statement.replace(" NOT NULL PRIMARY KEY", "").replace(" NOT NULL", "") for statement in SHAPES["last"]
]
"""The last shape without its rules, as a file looks that other programs have written to."""

values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 4),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=20),
    st.sampled_from(["completed", "running", "1", "true", "[]", '["a.png"]', "2025-10-12 14:03:11", "mira", "gAAAAA"]),
)  # fmt: skip


def columns_of(statement: str) -> tuple[str, list[str]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(statement)
        [table] = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return table, [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def rows_of(columns: list[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(columns, values)), max_size=3).map(
        lambda found: [row for row in found if row]
    )


anything = st.fixed_dictionaries({table: rows_of(columns) for table, columns in map(columns_of, LOOSE)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Workspace, Path]]:
    folder = tmp_path_factory.mktemp("fuzz")
    workspace = Workspace(folder / "workspace").create()
    with Store.open(workspace) as store:
        yield store, workspace, folder / "old.db"


@pytest.mark.slow
@settings(max_examples=60)
@given(rows=anything, secret_key=st.none() | st.text(max_size=50))
def test_no_value_stops_an_import_or_loses_a_row(
    home: tuple[Store, Workspace, Path], rows: dict[str, list[dict[str, Any]]], secret_key: str | None
) -> None:
    store, workspace, old = home
    old.unlink(missing_ok=True)
    build(old, LOOSE, rows)
    report = legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key)
    for table, count in report.counts.items():
        assert count.found == len(rows[table]) == count.added + count.already + count.left_out
        told = [text for text in report.oddities if text.startswith(table)]
        assert len(told) >= bool(count.left_out)
    again = legacy.import_masuka2(store, old, workspace=workspace, secret_key=secret_key)
    assert again.added == 0
    assert {job.state for job in jobs.list_jobs(store, actor=OWNER)} <= {"done", "failed", "cancelled"}
    assert "training" not in {c.status for c in characters.list_characters(store, actor=OWNER)}
    assert check(store.path).ok
