"""Models: installed bases and trained adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, Unpack

from masuka.requests.actor import Actor
from masuka.store.connect import Store
from masuka.store.rows import add_row, delete_row, get_row, list_rows, now_at, set_row

ModelKind = Literal["base", "adapter"]


@dataclass(frozen=True)
class Model:
    """`config` is everything it was trained with; an inactive one is hidden, not gone."""

    id: int
    user_id: int
    kind: ModelKind
    name: str
    base: str
    family: str
    task: str
    strategy: str
    provider: str
    tier: str
    path: str
    sha256: str
    trigger_word: str
    class_word: str
    character_id: int | None
    run_id: int | None
    best_weight: float | None
    config: dict[str, Any]
    active: bool
    created_at: str
    updated_at: str
    change: int


class ModelChanges(TypedDict, total=False):
    """The columns of a model that may be changed."""

    name: str
    base: str
    family: str
    task: str
    strategy: str
    provider: str
    tier: str
    path: str
    sha256: str
    trigger_word: str
    class_word: str
    character_id: int | None
    run_id: int | None
    best_weight: float | None
    config: Mapping[str, Any]
    active: bool


USED_AT = "used_at"
"""In a LoRA's settings: when somebody said that this version is the one to use."""


def order_of(model: Model) -> tuple[str, int]:
    """By what LoRAs are ordered: when somebody chose it, else when it was made."""
    return str(model.config.get(USED_AT) or model.created_at), model.id


def add_model(
    db: Store,
    *,
    actor: Actor,
    kind: ModelKind,
    name: str,
    base: str = "",
    family: str = "",
    task: str = "",
    strategy: str = "",
    provider: str = "",
    tier: str = "",
    path: str = "",
    sha256: str = "",
    trigger_word: str = "",
    class_word: str = "",
    character_id: int | None = None,
    run_id: int | None = None,
    best_weight: float | None = None,
    config: Mapping[str, Any] | None = None,
    active: bool = True,
    created_at: str | None = None,
) -> Model:
    """The new model."""
    actor.must_edit()
    created_at = created_at or now_at()
    values = {
        "user_id": actor.user_id, "kind": kind, "name": name, "base": base, "family": family, "task": task,
        "strategy": strategy, "provider": provider, "tier": tier, "path": path, "sha256": sha256,
        "trigger_word": trigger_word, "class_word": class_word, "character_id": character_id,
        "run_id": run_id, "best_weight": best_weight, "config": config or {}, "active": active,
        "created_at": created_at, "updated_at": created_at,
    }  # fmt: skip
    with db.write():
        return get_model(db, actor=actor, id=add_row(db, "models", values))


def get_model(db: Store, *, actor: Actor, id: int) -> Model:
    """The model, also an inactive one; raises NotFound."""
    return get_row(db, Model, table="models", noun="model", id=id, actor=actor)


def list_models(
    db: Store,
    *,
    actor: Actor,
    kind: ModelKind | None = None,
    character_id: int | None = None,
    run_id: int | None = None,
    active: bool | None = True,
) -> list[Model]:
    """Models, the newest first; `active=None` lists hidden ones too."""
    filters = {"kind = ?": kind, "character_id = ?": character_id, "run_id = ?": run_id, "active = ?": active}
    where = {condition: value for condition, value in filters.items() if value is not None}
    return list_rows(db, Model, table="models", actor=actor, where=where)


def set_model(db: Store, *, actor: Actor, id: int, **changes: Unpack[ModelChanges]) -> Model:
    """The changed model; raises NotFound."""
    actor.must_edit()
    with db.write():
        get_model(db, actor=actor, id=id)
        set_row(db, "models", id, {**changes, "updated_at": now_at()})
        return get_model(db, actor=actor, id=id)


def delete_model(db: Store, *, actor: Actor, id: int) -> Model:
    """The model whose row is gone now; its files are the caller's. Items forget it."""
    actor.must_edit()
    with db.write():
        model = get_model(db, actor=actor, id=id)
        delete_row(db, "models", id)
        return model
