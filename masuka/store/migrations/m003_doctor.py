"""What the doctor measured and found, how pictures are edited, and captions to go back to.

`scores` are measurements of a picture, `edits` its recipe; the stored file never changes.
A caption change keeps what was there before, so that it can be undone.
"""

from __future__ import annotations

from sqlite_utils import Database

TABLES = """
CREATE TABLE findings (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset_id INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE,
    picture_id INTEGER NOT NULL REFERENCES pictures ON DELETE CASCADE,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('bad', 'doubtful')),
    other_id INTEGER REFERENCES pictures ON DELETE CASCADE,
    about TEXT NOT NULL DEFAULT '{}',
    UNIQUE (picture_id, kind)
) STRICT;

CREATE TABLE caption_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset_id INTEGER NOT NULL REFERENCES datasets ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    what TEXT NOT NULL,
    before TEXT NOT NULL,
    created_at TEXT NOT NULL
) STRICT
"""

INDEXES = {
    "findings": ("dataset_id, kind", "other_id"),
    "caption_changes": ("dataset_id", "user_id"),
}

COLUMNS = (
    "scores TEXT NOT NULL DEFAULT '{}'",
    "aside INTEGER NOT NULL DEFAULT 0 CHECK (aside IN (0, 1))",
    "edits TEXT NOT NULL DEFAULT '{}'",
    "caption_from TEXT NOT NULL DEFAULT ''",
    "caption_problem TEXT NOT NULL DEFAULT ''",
)

ORDERS = {
    "sharpness": "-COALESCE(json_extract(scores, '$.sharpness'), -1)",
    "exposure": "COALESCE(json_extract(scores, '$.exposure'), 2)",
    "size": "-(width * height)",
    "quality": "-COALESCE(json_extract(scores, '$.jpeg_quality'), 101)",
    "face": "-COALESCE(json_extract(scores, '$.faces[0][2]') * json_extract(scores, '$.faces[0][3]'), 0)",
}
"""What pictures are sorted by; an index serves a query only where both expressions are alike."""


def m003_doctor(db: Database) -> None:
    """What the doctor measured, recipes, where captions are from and what they were."""
    for column in COLUMNS:
        db.execute(f"ALTER TABLE pictures ADD COLUMN {column}")
    for statement in TABLES.split(";\n\n"):
        db.execute(statement)
    for table, indexes in INDEXES.items():
        for columns in indexes:
            db.table(table).create_index([c.strip() for c in columns.split(",")])
    db.table("pictures").create_index(["dataset_id", "aside", "id"])
    for name, expression in ORDERS.items():
        db.execute(f"CREATE INDEX idx_pictures_by_{name} ON pictures (dataset_id, {expression}, id)")
    db.execute("CREATE INDEX idx_pictures_unmeasured ON pictures (dataset_id, aside) WHERE scores = '{}'")
