"""Keeps captions as they were before a change, so that it can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from masuka.store import caption_changes as changes
from masuka.store.pictures import Picture
from masuka.studio.context import Context

TYPED = "what was typed"
TYPING = timedelta(minutes=1)
"""Each pause in typing saves; what one person types into one caption meanwhile is one change."""


def remember(context: Context, dataset_id: int, what: str, before: Sequence[Picture]) -> None:
    """Keeps these pictures' captions as one change; `what` completes 'Undone: …'."""
    store, actor = context.store, context.actor
    kept = {picture.id: (picture.caption, picture.caption_from) for picture in before}
    if what == TYPED and _goes_on(context, dataset_id, kept):
        return
    changes.add_change(store, actor=actor, dataset_id=dataset_id, what=what, before=kept)


def _goes_on(context: Context, dataset_id: int, kept: dict[int, tuple[str, str]]) -> bool:
    """Whether the same person typed into the same caption a moment ago."""
    last = changes.last_change(context.store, actor=context.actor, dataset_id=dataset_id)
    if last is None or (last.what, last.user_id) != (TYPED, context.actor.user_id):
        return False
    recent = datetime.now(UTC) - datetime.fromisoformat(last.created_at) < TYPING
    return recent and set(last.before) == {str(id) for id in kept}
