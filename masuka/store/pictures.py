"""Pictures of data sets, with their captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from masuka.errors import InvalidInput
from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.datasets import get_dataset
from masuka.store.rows import add_row, decode, get_row, list_rows, now_at, set_row, visible


@dataclass(frozen=True)
class Picture:
    """`file` is a path; `sha256` is of the file's bytes, `bytes` their number.

    `scores` are what `datasets.measures` measured, {} before it did. `aside` pictures are
    kept but not trained on. `edits` is the recipe of `requests.edits`, {} for none.
    `caption_from` says who wrote the caption: template, file, person or a captioner's
    name, '' where nobody knows; `caption_problem` is why a captioner could not.
    """

    id: int
    dataset_id: int
    user_id: int
    file: str
    original_name: str
    sha256: str
    width: int
    height: int
    bytes: int
    caption: str
    created_at: str
    updated_at: str
    scores: dict[str, Any]
    aside: bool
    edits: dict[str, Any]
    caption_from: str
    caption_problem: str


def add_picture(
    db: Store,
    *,
    actor: Actor,
    dataset_id: int,
    file: str,
    original_name: str,
    sha256: str,
    width: int,
    height: int,
    bytes: int,
    caption: str,
    caption_from: str = "",
    scores: Mapping[str, Any] | None = None,
    created_at: str | None = None,
) -> Picture | None:
    """The new picture; None when the data set has one with that sha256 already.

    It belongs to the person whose data set it is. Raises NotFound for the data set.
    """
    actor.must_edit()
    with db.write() as conn:
        dataset = get_dataset(db, actor=actor, id=dataset_id)
        if conn.table("pictures").count_where("dataset_id = ? AND sha256 = ?", [dataset_id, sha256]):
            return None
        created_at = created_at or now_at()
        values = {
            "dataset_id": dataset_id, "user_id": dataset.user_id, "file": file, "original_name": original_name,
            "sha256": sha256, "width": width, "height": height, "bytes": bytes, "caption": caption,
            "caption_from": caption_from, "scores": scores or {}, "created_at": created_at,
            "updated_at": created_at,
        }  # fmt: skip
        return get_picture(db, actor=actor, id=add_row(db, "pictures", values))


def get_picture(db: Store, *, actor: Actor, id: int) -> Picture:
    """The picture; raises NotFound."""
    return get_row(db, Picture, table="pictures", noun="picture", id=id, actor=actor)


def get_pictures(db: Store, *, actor: Actor, ids: Iterable[int]) -> list[Picture]:
    """The pictures in that order, each once; raises NotFound for one that is gone."""
    wanted = list(dict.fromkeys(ids))
    where = {"id IN (SELECT value FROM json_each(?))": json.dumps(wanted)}
    found = {p.id: p for p in list_rows(db, Picture, table="pictures", actor=actor, where=where)}
    return [found[id] if id in found else get_picture(db, actor=actor, id=id) for id in wanted]


def every_sha256(db: Store) -> set[str]:
    """The hashes of every picture of everybody, to know what is nobody's any more."""
    with db.read() as conn:
        return {row["sha256"] for row in conn.query("SELECT DISTINCT sha256 FROM pictures")}


ONLY = ("all", "kept", "aside", "doubtful")
"""What a listing shows, besides the pictures with one kind of finding."""
SORTS = {
    "added": "id",
    "sharpness": "-COALESCE(json_extract(scores, '$.sharpness'), -1)",
    "exposure": "COALESCE(json_extract(scores, '$.exposure'), 2)",
    "size": "-(width * height)",
    "quality": "-COALESCE(json_extract(scores, '$.jpeg_quality'), 101)",
    "face": "-COALESCE(json_extract(scores, '$.faces[0][2]') * json_extract(scores, '$.faces[0][3]'), 0)",
    "worst": "-COALESCE((SELECT sum(1 + (severity = 'bad')) FROM findings WHERE picture_id = pictures.id), 0)",
}
"""Orders of a listing, each the best or the first on top: sharpest, darkest, largest, least
compressed, largest face, most findings. m003_doctor has an index of each expression."""


def list_pictures(
    db: Store,
    *,
    actor: Actor,
    dataset_id: int,
    after_id: int | None = None,
    limit: int | None = 60,
    only: str = "all",
    sort: str = "added",
) -> list[Picture]:
    """Pictures of a data set in that order, after the picture `after_id` in it.

    `only` is one of ONLY or a kind of finding. After a picture that is not there any
    more the list goes on where its number would stand. Raises InvalidInput for `sort`.
    """
    if sort not in SORTS:
        raise InvalidInput(f"There is no order named {sort!r}.", f"Choose one of: {', '.join(SORTS)}.")
    key, place = SORTS[sort], ""
    values: dict[str, Any] = {"dataset": dataset_id, "after": after_id or 0, "limit": limit or -1, "kind": only}
    with db.read() as conn:
        if after_id is not None and sort != "added":
            at = next(conn.query(f"SELECT {key} AS at FROM pictures WHERE id = ?", [after_id]), None)  # noqa: S608
            key, values["at"] = (key, at["at"]) if at else ("id", after_id)
            place = f"AND ({key}, id) > (:at, :after)"
        elif after_id is not None:
            place = "AND id > :after"
        found = conn.query(
            f"SELECT * FROM pictures WHERE dataset_id = :dataset AND {visible(actor, 'pictures')} "  # noqa: S608
            f"AND {_shown(only)} {place} ORDER BY {key}, id LIMIT :limit",
            values,
        )
        return [decode(Picture, row) for row in found]


def _shown(only: str) -> str:
    """The condition for what a listing shows; a kind of finding is the parameter :kind."""
    if only == "all":
        return "1"
    if only in ("kept", "aside"):
        return f"aside = {int(only == 'aside')}"
    kind = "1" if only == "doubtful" else "findings.kind = :kind"
    return f"aside = 0 AND id IN ({LIVE_FINDINGS} AND {kind})"


LIVE_FINDINGS = (
    "SELECT picture_id FROM findings LEFT JOIN pictures AS other ON other.id = other_id "
    "WHERE findings.dataset_id = :dataset AND (other_id IS NULL OR NOT other.aside)"
)
"""Pictures with findings; being like another one is none once that is set aside."""


def count_pictures(db: Store, *, actor: Actor, dataset_id: int) -> int:
    """How many pictures the data set has; raises NotFound."""
    return get_dataset(db, actor=actor, id=dataset_id).picture_count


def count_shown(db: Store, *, actor: Actor, dataset_id: int) -> dict[str, int]:
    """How many are kept, aside, doubtful (kept, with a finding) and not measured yet."""
    get_dataset(db, actor=actor, id=dataset_id)
    # Each part reads an index alone; whole rows, with their measures, would be megabytes.
    of_set = "SELECT count(*) FROM pictures WHERE dataset_id = :dataset"
    sql = f"""
        SELECT ({of_set} AND aside = 0) AS kept, ({of_set} AND aside = 1) AS aside,
            ({of_set} AND aside = 0 AND id IN ({LIVE_FINDINGS})) AS doubtful,
            ({of_set} AND aside = 0 AND scores = '{{}}') AS unmeasured
    """
    with db.read() as conn:
        return dict(next(conn.query(sql, {"dataset": dataset_id})))


def list_picture_ids(db: Store, *, actor: Actor, dataset_id: int, only: str = "all") -> list[int]:
    """The numbers of the pictures that `list_pictures` would list, as they came."""
    sql = (
        f"SELECT id FROM pictures WHERE dataset_id = :dataset AND {visible(actor, 'pictures')} "  # noqa: S608
        f"AND {_shown(only)} ORDER BY id"
    )
    with db.read() as conn:
        return [row["id"] for row in conn.query(sql, {"dataset": dataset_id, "kind": only})]


def sample_pictures(db: Store, *, actor: Actor, dataset_id: int, most: int) -> list[Picture]:
    """About `most` measured pictures of the kept ones, evenly; raises NotFound."""
    step = max(1, get_dataset(db, actor=actor, id=dataset_id).picture_count // most)
    with db.read() as conn:
        found = conn.query(
            "SELECT * FROM pictures WHERE dataset_id = ? AND NOT aside AND id % ? = 0 AND scores != '{}' "
            "ORDER BY id LIMIT ?",
            [dataset_id, step, 2 * most],
        )
        return [decode(Picture, row) for row in found]


def set_scores(db: Store, *, actor: Actor, id: int, scores: Mapping[str, Any]) -> None:
    """Records what was measured of a picture; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_picture(db, actor=actor, id=id)
        set_row(db, "pictures", id, {"scores": dict(scores)})


def set_edits(db: Store, *, actor: Actor, id: int, edits: Mapping[str, Any]) -> Picture:
    """The picture with its new recipe; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_picture(db, actor=actor, id=id)
        set_row(db, "pictures", id, {"edits": dict(edits), "updated_at": now_at()})
        return get_picture(db, actor=actor, id=id)


def set_aside(db: Store, *, actor: Actor, ids: Iterable[int], aside: bool) -> int:
    """How many pictures were set aside, or taken back; raises NotFound, then none was."""
    actor.must_edit()
    wanted = list(dict.fromkeys(ids))
    listed = json.dumps(wanted)
    with db.write() as conn:
        there = "SELECT value FROM json_each(?)"
        found = {
            row["id"]: row["aside"]
            for row in conn.query(
                f"SELECT id, aside FROM pictures WHERE id IN ({there}) AND {visible(actor, 'pictures')}",  # noqa: S608
                [listed],
            )
        }
        for id in wanted:
            if id not in found:
                get_picture(db, actor=actor, id=id)
        conn.execute(
            f"UPDATE pictures SET aside = ?, updated_at = ? WHERE id IN ({there}) AND aside != ?",  # noqa: S608
            [int(aside), now_at(), listed, int(aside)],
        )
    return sum(bool(before) != aside for before in found.values())


def set_caption(db: Store, *, actor: Actor, id: int, caption: str) -> Picture:
    """The picture with its new caption; raises NotFound."""
    set_captions(db, actor=actor, captions={id: caption})
    return get_picture(db, actor=actor, id=id)


def set_captions(
    db: Store, *, actor: Actor, captions: Mapping[int, str], caption_from: str | None = "person"
) -> int:
    """How many captions were written, all or none, by picture id.

    None for `caption_from` leaves who wrote them as it is. Raises NotFound.
    """
    actor.must_edit()
    with db.write() as conn:
        get_pictures(db, actor=actor, ids=captions)
        # In one statement: whoever else writes waits for it, and gives up after five seconds.
        conn.execute(
            "UPDATE pictures SET caption = told.value, caption_from = COALESCE(?, caption_from), "
            "caption_problem = '', updated_at = ? FROM json_each(?) AS told WHERE pictures.id = told.key",
            [caption_from, now_at(), json.dumps({str(id): text for id, text in captions.items()})],
        )
    return len(captions)


def set_told_caption(
    db: Store, *, actor: Actor, id: int, caption: str | None, caption_from: str, problem: str
) -> None:
    """Records a captioner's caption, or with None only why there is no new one."""
    actor.must_edit()
    values: dict[str, Any] = {"caption_problem": problem, "updated_at": now_at()}
    if caption is not None:
        values |= {"caption": caption, "caption_from": caption_from}
    with db.write():
        get_picture(db, actor=actor, id=id)
        set_row(db, "pictures", id, values)


def delete_pictures(db: Store, *, actor: Actor, ids: Iterable[int]) -> list[Picture]:
    """The pictures that are gone now; ids that are not there are passed over.

    Deleting the files is the caller's part.
    """
    actor.must_edit()
    among = "id IN (SELECT value FROM json_each(?))"
    with db.write() as conn:
        where = {among: json.dumps(list(ids))}
        deleted = list_rows(db, Picture, table="pictures", actor=actor, where=where, order_by="id")
        conn.execute(f"DELETE FROM pictures WHERE {among}", [json.dumps([p.id for p in deleted])])  # noqa: S608
    return deleted
