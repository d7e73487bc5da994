"""What the doctor found about pictures of a data set: at most one row a picture and kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.datasets import get_dataset
from masuka.store.rows import decode, encode


@dataclass(frozen=True)
class Finding:
    """`other_id` is the picture it is compared with: the better of two alike."""

    id: int
    dataset_id: int
    picture_id: int
    kind: str
    severity: str
    other_id: int | None
    about: dict[str, Any]


def set_findings(
    db: Store,
    *,
    actor: Actor,
    dataset_id: int,
    rows: Sequence[Mapping[str, Any]],
    looked: Sequence[str] | None = None,
) -> int:
    """How many findings were kept; those of before about the same pictures are gone.

    `looked` names the pictures that were looked at, by SHA-256, None for all of the set:
    what came while a job looked keeps its findings. A row names its picture, and another
    one, by `sha256` and `other_sha256`; rows about pictures that are not there any more
    are passed over. Raises NotFound for the set.
    """
    actor.must_edit()
    with db.write() as conn:
        get_dataset(db, actor=actor, id=dataset_id)
        known = {
            row["sha256"]: row["id"]
            for row in conn.query("SELECT id, sha256 FROM pictures WHERE dataset_id = ?", [dataset_id])
        }
        gone = set(known if looked is None else looked)
        about = json.dumps([id for sha256, id in known.items() if sha256 in gone])
        conn.execute("DELETE FROM findings WHERE picture_id IN (SELECT value FROM json_each(?))", [about])
        kept = [row for row in rows if row["sha256"] in known and row.get("other_sha256", row["sha256"]) in known]
        conn.table("findings").insert_all(
            encode({
                "dataset_id": dataset_id, "picture_id": known[row["sha256"]], "kind": row["kind"],
                "severity": row["severity"], "other_id": known.get(row.get("other_sha256") or ""),
                "about": row.get("about", {}),
            })
            for row in kept
        )  # fmt: skip
        conn.execute(
            "UPDATE datasets SET status = status WHERE id = ?", [dataset_id]
        )  # a page that looks is told
    return len(kept)


def list_findings(
    db: Store, *, actor: Actor, dataset_id: int, picture_ids: Sequence[int] | None = None
) -> list[Finding]:
    """The findings of a set, or of some of its pictures; raises NotFound for the set.

    Being like another picture is no finding once that one is set aside.
    """
    get_dataset(db, actor=actor, id=dataset_id)
    where = "WHERE findings.dataset_id = ?"
    values: list[Any] = [dataset_id]
    if picture_ids is not None:
        where += f" AND picture_id IN ({', '.join('?' * len(picture_ids))})"
        values += list(picture_ids)
    sql = (
        "SELECT findings.* FROM findings LEFT JOIN pictures AS other ON other.id = other_id "  # noqa: S608
        f"{where} AND (other_id IS NULL OR NOT other.aside) ORDER BY findings.id"
    )
    with db.read() as conn:
        return [decode(Finding, row) for row in conn.query(sql, values)]


def count_findings(db: Store, *, actor: Actor, dataset_id: int) -> dict[str, int]:
    """How many pictures that are not set aside have each kind of finding."""
    get_dataset(db, actor=actor, id=dataset_id)
    sql = (
        "SELECT kind, count(*) AS number FROM findings JOIN pictures ON pictures.id = picture_id "
        "LEFT JOIN pictures AS other ON other.id = other_id "
        "WHERE findings.dataset_id = ? AND NOT pictures.aside AND (other_id IS NULL OR NOT other.aside) "
        "GROUP BY kind ORDER BY number DESC, kind"
    )
    with db.read() as conn:
        return {row["kind"]: row["number"] for row in conn.query(sql, [dataset_id])}


def list_alike(db: Store, *, actor: Actor, dataset_id: int) -> dict[int, int]:
    """For each kept picture that is like a better, kept one: that one's id."""
    get_dataset(db, actor=actor, id=dataset_id)
    sql = (
        "SELECT picture_id, other_id FROM findings JOIN pictures ON pictures.id = picture_id "
        "JOIN pictures AS other ON other.id = other_id "
        "WHERE findings.dataset_id = ? AND NOT pictures.aside AND NOT other.aside ORDER BY picture_id"
    )
    with db.read() as conn:
        return {row["picture_id"]: row["other_id"] for row in conn.query(sql, [dataset_id])}


def delete_findings(
    db: Store, *, actor: Actor, dataset_id: int, kind: str, picture_ids: Sequence[int]
) -> None:
    """Forgets one kind of finding of these pictures: what it was about was mended."""
    actor.must_edit()
    get_dataset(db, actor=actor, id=dataset_id)
    with db.write() as conn:
        for picture_id in picture_ids:
            conn.table("findings").delete_where(
                "dataset_id = ? AND picture_id = ? AND kind = ?", [dataset_id, picture_id, kind]
            )
        conn.execute(
            "UPDATE datasets SET status = status WHERE id = ?", [dataset_id]
        )  # a page that looks is told
