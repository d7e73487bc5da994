"""Keys for outside services that a job may use."""

from __future__ import annotations

from masuka.config import SECRET_NAMES, Settings
from masuka.jobs.kinds import Kind
from masuka.requests.actor import Actor
from masuka.store import settings as rows
from masuka.store.connect import Store

OWNER_ID = 1


def stored_secrets(store: Store, settings: Settings, user_id: int) -> dict[str, str]:
    """Keys typed on the page, for the studio; the environment's win.

    What a MASUKA 2 database kept for this person alone fills the gaps.
    """
    found: dict[str, str] = {}
    for person in dict.fromkeys((user_id, OWNER_ID)):
        for setting in rows.list_settings(store, actor=Actor(user_id=person)):
            if setting.key in SECRET_NAMES and setting.value:
                found[setting.key] = setting.value
    return {name: value for name, value in found.items() if name not in settings.secrets}


def keys_for(store: Store, settings: Settings, user_id: int, kind: Kind) -> dict[str, str]:
    """The keys that such a job of this person gets; the environment's win."""
    known = {**stored_secrets(store, settings, user_id), **settings.secrets}
    return {name: known[name] for name in kind.keys if name in known}
