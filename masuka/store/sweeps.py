"""Sweeps: trainings that differ in a few settings, made to be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, delete_row, get_row, list_rows, now_at, set_row


@dataclass(frozen=True)
class Sweep:
    """Its runs carry its number; `request` is what was asked for, and how far it is."""

    id: int
    user_id: int
    name: str
    request: dict[str, Any]
    created_at: str
    change: int


def add_sweep(db: Store, *, actor: Actor, name: str, request: Mapping[str, Any]) -> Sweep:
    """The new sweep, still without runs."""
    actor.must_edit()
    values = {"user_id": actor.user_id, "name": name, "request": request, "created_at": now_at()}
    with db.write():
        return get_sweep(db, actor=actor, id=add_row(db, "sweeps", values))


def get_sweep(db: Store, *, actor: Actor, id: int) -> Sweep:
    """The sweep; raises NotFound."""
    return get_row(db, Sweep, table="sweeps", noun="sweep", id=id, actor=actor)


def list_sweeps(db: Store, *, actor: Actor, limit: int | None = None) -> list[Sweep]:
    """Sweeps, the newest first."""
    return list_rows(db, Sweep, table="sweeps", actor=actor, limit=limit)


def set_sweep(db: Store, *, actor: Actor, id: int, request: Mapping[str, Any]) -> Sweep:
    """The sweep with what is known of it now; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_sweep(db, actor=actor, id=id)
        set_row(db, "sweeps", id, {"request": request})
        return get_sweep(db, actor=actor, id=id)


def delete_sweep(db: Store, *, actor: Actor, id: int) -> Sweep:
    """The sweep that is gone now; its runs stay, on their own."""
    actor.must_edit()
    with db.write():
        sweep = get_sweep(db, actor=actor, id=id)
        delete_row(db, "sweeps", id)
        return sweep
