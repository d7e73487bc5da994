"""What every noun's rows have in common: dataclass in, dataclass out, and who may see them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from masuka.errors import Conflict, InvalidInput, NotFound
from masuka.requests.actor import Actor
from masuka.store.connect import IntegrityError, Store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RowT = TypeVar("RowT", bound="DataclassInstance")


def now_at() -> str:
    """This moment in UTC, for example 2026-03-01T12:00:00.000000+00:00; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def decode(kind: type[RowT], row: Mapping[str, Any]) -> RowT:
    """The dataclass of a row; columns it does not have are left out.

    A field annotated as dict or list is decoded from JSON, one annotated as bool from 0 or 1.
    """
    values: dict[str, Any] = {}
    for column in fields(kind):
        name, annotation = column.name, str(column.type)
        value = row[name]
        if annotation.startswith(("dict", "list")) and value is not None:
            value = json.loads(value)
        elif annotation == "bool":
            value = bool(value)
        values[name] = value
    return kind(**values)


def encode(values: Mapping[str, Any]) -> dict[str, Any]:
    """Column values: JSON for dicts and sequences, 0 or 1 for bools.

    Raises InvalidInput for what JSON cannot hold, such as NaN.
    """
    return {name: _encoded(name, value) for name, value in values.items()}


HANGING = frozenset({"datasets", "jobs", "runs", "models", "items"})
"""Tables whose rows may belong to a character."""


def visible(actor: Actor, table: str) -> str:
    """The SQL condition for the rows of a table that this person may see.

    Every query is scoped by this one function. An owner of the studio sees all, for it is
    their machine. Anybody else sees what is theirs, what was shared with them, and what
    hangs on a character they see; an editor may change all of that.
    """
    if actor.role == "owner":
        return "1"
    me = int(actor.user_id)
    theirs = f"SELECT by_user_id FROM shares WHERE user_id = {me} AND kind = 'all'"  # noqa: S608 - a number
    own = f"{table}.user_id = {me} OR {table}.user_id IN ({theirs})"
    shared = f"SELECT object_id FROM shares WHERE user_id = {me} AND kind"  # noqa: S608 - a number
    if table == "characters":
        return f"({own} OR characters.id IN ({shared} = 'character'))"
    if table == "datasets":
        own = f"{own} OR datasets.id IN ({shared} = 'dataset')"
    if table == "pictures":
        return f"pictures.dataset_id IN (SELECT id FROM datasets WHERE {visible(actor, 'datasets')})"  # noqa: S608
    if table in HANGING:
        seen = f"SELECT id FROM characters WHERE {visible(actor, 'characters')}"  # noqa: S608 - as above
        return f"({own} OR {table}.character_id IN ({seen}))"
    return f"{table}.user_id = {me}"


def get_row(db: Store, kind: type[RowT], *, table: str, noun: str, id: int, actor: Actor) -> RowT:
    """The row, if it is there and the actor may see it; raises NotFound."""
    with db.read() as conn:
        row = next(
            conn.table(table).rows_where(
                f"id = ? AND {visible(actor, table)}",
                [id],
            ),
            None,
        )
    if row is None:
        raise NotFound(f"There is no {noun} with the number {id}.", "It may have been deleted.")
    return decode(kind, row)


def list_rows(
    db: Store,
    kind: type[RowT],
    *,
    table: str,
    actor: Actor,
    where: Mapping[str, Any] | None = None,
    order_by: str = "id DESC",
    limit: int | None = None,
) -> list[RowT]:
    """The rows the actor may see; each key of `where` is a condition with one '?'."""
    conditions = dict(where or {})
    with db.read() as conn:
        found = conn.table(table).rows_where(
            " AND ".join([visible(actor, table), *conditions]),
            list(conditions.values()),
            order_by=order_by,
            limit=limit,
        )
        return [decode(kind, row) for row in found]


def add_row(db: Store, table: str, values: Mapping[str, Any]) -> int:
    """The id of the new row; raises Conflict, NotFound or InvalidInput."""
    with db.write() as conn, broken_rules():
        return int(conn.table(table).insert(encode(values)).last_pk)


def set_row(db: Store, table: str, id: int, changes: Mapping[str, Any]) -> None:
    """Changes the named columns of a row that is known to exist."""
    if not changes:
        return
    with db.write() as conn, broken_rules():
        conn.table(table).update(id, encode(changes))


def delete_row(db: Store, table: str, id: int) -> None:
    """Deletes a row; what hangs on it goes with it or forgets it, as the schema says."""
    with db.write() as conn:
        conn.table(table).delete_where("id = ?", [id])


def contains(text: str) -> str:
    """A LIKE pattern (with ESCAPE '!') that finds the text anywhere."""
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return f"%{escaped}%"


@contextmanager
def broken_rules() -> Iterator[None]:
    """Turns a broken rule of the schema into a sentence."""
    try:
        yield
    except IntegrityError as error:
        # By its words: pysqlite3 0.6 gives no extended error code.
        if str(error).startswith("UNIQUE"):
            raise Conflict("Something with this name or number exists already.", "Choose another.") from error
        if str(error).startswith("FOREIGN KEY"):
            raise NotFound("What this belongs to does not exist.", "It may have been deleted.") from error
        raise InvalidInput(f"The value cannot be stored: {error}.", "Correct it and try again.") from error


def _encoded(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Mapping | list | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"The {name} cannot be stored: {error}.", "Use plain numbers and text.", field=name
            ) from error
    return value
