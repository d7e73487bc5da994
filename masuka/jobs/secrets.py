"""Keys for outside services that a job may use, as its person stored them."""

from __future__ import annotations

from masuka.config import SECRET_NAMES, Settings
from masuka.requests.actor import Actor
from masuka.store import settings as rows
from masuka.store.connect import Store

OWNER_ID = 1


def stored_secrets(store: Store, settings: Settings, user_id: int) -> dict[str, str]:
    """Keys typed on the page, the owner's and the person's; the environment wins."""
    found: dict[str, str] = {}
    for person in dict.fromkeys((OWNER_ID, user_id)):
        for setting in rows.list_settings(store, actor=Actor(user_id=person)):
            if setting.key in SECRET_NAMES and setting.value:
                found[setting.key] = setting.value
    return {name: value for name, value in found.items() if name not in settings.secrets}
