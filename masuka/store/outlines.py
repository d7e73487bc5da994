"""What a page asks of all pictures of a set at once, read without their measures.

A whole row has some two kilobytes of measures to decode; ten thousand take a second.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.caption_changes import ONLY
from masuka.store.connect import Store
from masuka.store.datasets import get_dataset
from masuka.store.rows import contains, visible


@dataclass(frozen=True)
class Outline:
    """A picture as `datasets.check` and whoever names many of them asks for it."""

    id: int
    file: str
    original_name: str
    sha256: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True)
class Sized:
    """How many pictures have this size and this recipe."""

    width: int
    height: int
    edits: dict[str, Any]
    count: int


def list_outlines(db: Store, *, actor: Actor, dataset_id: int) -> list[Outline]:
    """The pictures of a set that are not set aside, as they came; raises NotFound."""
    columns = "id, file, original_name, sha256, width, height, caption"
    return [Outline(*row) for row in _rows(db, actor, dataset_id, columns, "NOT aside ORDER BY id")]


def list_sizes(db: Store, *, actor: Actor, dataset_id: int) -> list[Sized]:
    """Each size and recipe among the pictures that are not set aside; raises NotFound."""
    rows = _rows(
        db, actor, dataset_id, "width, height, edits, count(*)", "NOT aside GROUP BY width, height, edits"
    )
    return [Sized(width, height, json.loads(edits), count) for width, height, edits, count in rows]


def list_captions(
    db: Store, *, actor: Actor, dataset_id: int, search: str = "", only: str = "kept"
) -> dict[int, str]:
    """Captions by picture id where they or the name hold the text, as they came.

    `only` is one of `caption_changes.ONLY`. Raises NotFound for the set.
    """
    asked = ["caption || ' ' || original_name LIKE ? ESCAPE '!'"] if search else []
    more = [contains(search)] if search else []
    rows = _rows(
        db, actor, dataset_id, "id, caption", f"{' AND '.join([ONLY[only], *asked])} ORDER BY id", *more
    )
    return dict(rows)


def list_caption_problems(db: Store, *, actor: Actor, dataset_id: int) -> dict[int, str]:
    """Why a captioner could not write a caption, by the ids of kept pictures."""
    where = f"{ONLY['problem']} AND NOT aside ORDER BY id"
    return dict(_rows(db, actor, dataset_id, "id, caption_problem", where))


def _rows(
    db: Store, actor: Actor, dataset_id: int, columns: str, where: str, *more: Any
) -> list[tuple[Any, ...]]:
    get_dataset(db, actor=actor, id=dataset_id)
    sql = f"SELECT {columns} FROM pictures WHERE dataset_id = ? AND {visible(actor, 'pictures')} AND {where}"  # noqa: S608 - no text from outside
    with db.read() as conn:
        return [tuple(row) for row in conn.execute(sql, [dataset_id, *more])]
