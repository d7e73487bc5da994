"""Who is signed in, who is invited, what is shared, and who did what.

Tokens are stored as their SHA-256 only. `epoch` of a person grows when every session of
theirs has to end: a session is good while its own epoch is the person's.
"""

from __future__ import annotations

from sqlite_utils import Database

TABLES = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    epoch INTEGER NOT NULL,
    device TEXT NOT NULL DEFAULT '',
    idle_s INTEGER NOT NULL CHECK (idle_s > 0),
    created_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,
    idle_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE invites (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_hash TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('owner', 'editor', 'viewer')),
    note TEXT NOT NULL DEFAULT '',
    shares TEXT NOT NULL DEFAULT '[]',
    by_user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    used_at TEXT,
    used_by_user_id INTEGER REFERENCES users ON DELETE SET NULL,
    revoked_at TEXT
) STRICT;

CREATE TABLE shares (
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('all', 'character', 'dataset')),
    object_id INTEGER NOT NULL CHECK ((object_id = 0) = (kind = 'all')),
    by_user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    PRIMARY KEY (user_id, kind, object_id, by_user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    user_id INTEGER REFERENCES users ON DELETE SET NULL,
    name TEXT NOT NULL DEFAULT '',
    action TEXT NOT NULL,
    about TEXT NOT NULL DEFAULT '',
    address TEXT NOT NULL DEFAULT ''
) STRICT
"""

INDEXES = {
    "sessions": ("user_id", "expires_at"),
    "invites": ("by_user_id", "used_by_user_id"),
    "shares": ("kind, object_id", "by_user_id"),
    "audit": ("user_id",),
}


def m002_access(db: Database) -> None:
    """Tables of sessions, invites, shares and the audit; people get an epoch."""
    for statement in TABLES.split(";\n\n"):
        db.execute(statement)
    for table, indexes in INDEXES.items():
        for columns in indexes:
            db.table(table).create_index([c.strip() for c in columns.split(",")])
    db.execute("ALTER TABLE users ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0")
    # A share must not outlive what it names: a new row never gets an old number, but a
    # list of shares should not name what is gone.
    for kind, table in (("character", "characters"), ("dataset", "datasets")):
        db.execute(
            f"CREATE TRIGGER shares_of_{table}_deleted AFTER DELETE ON {table} BEGIN "  # noqa: S608 - of the pairs above
            f"DELETE FROM shares WHERE kind = '{kind}' AND object_id = old.id; END"
        )
