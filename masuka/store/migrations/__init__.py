"""The schema: `m001_initial` and its successors, and how they are applied.

A migration is never edited once it is released; a change is a new file, added at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlite_utils import Database, Migrations

from masuka.store.migrations.m001_initial import m001_initial
from masuka.store.migrations.m002_access import m002_access
from masuka.store.migrations.m003_doctor import m003_doctor
from masuka.store.migrations.m004_training import m004_training

Migration = Callable[[Database], None]

MIGRATIONS: tuple[Migration, ...] = (m001_initial, m002_access, m003_doctor, m004_training)


def as_set(migrations: Sequence[Migration]) -> Migrations:
    """The migrations as sqlite-utils applies and records them, by their names."""
    collected = Migrations("masuka")
    for migration in migrations:
        collected()(migration)
    return collected


def names_of(migrations: Sequence[Migration]) -> list[str]:
    """The names under which the migrations are recorded, in order."""
    return [migration.__name__ for migration in migrations]
