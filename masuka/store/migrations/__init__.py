"""The schema: `m001_initial` and its successors, and how they are applied.

A migration is never edited once it is released; a change is a new file, added to SET.
"""

from __future__ import annotations

from sqlite_utils import Migrations

from masuka.store.migrations.m001_initial import m001_initial

MIGRATIONS = (m001_initial,)
NAMES = tuple(migration.__name__ for migration in MIGRATIONS)
SET = Migrations("masuka")
for migration in MIGRATIONS:
    SET()(migration)
