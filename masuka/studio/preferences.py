"""Keys for outside services that the owner entered for good."""

from __future__ import annotations

from masuka.config import SECRET_NAMES
from masuka.errors import InvalidInput
from masuka.requests.text import without_control
from masuka.store import settings as rows
from masuka.studio.context import Context


class Preferences:
    """Keys are stored encrypted and never shown again."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def set_key(self, name: str, value: str) -> None:
        """Keeps an outside service's key, encrypted; an empty value forgets it."""
        self._context.actor.must_own()
        if name not in SECRET_NAMES:
            raise InvalidInput(
                f"There is no key named {name!r}.", f"Known are: {', '.join(SECRET_NAMES)}.", field="name"
            )
        value = without_control(value).strip()
        store, actor = self._context.store, self._context.actor
        if value:
            rows.set_setting(store, actor=actor, key=name, value=value, encrypted=True)
        else:
            rows.delete_setting(store, actor=actor, key=name)

    def keys(self) -> dict[str, str]:
        """Where each known key comes from: environment, stored, enter again or ''."""
        stored = {
            s.key: "enter again" if s.needs_reentry else "stored"
            for s in rows.list_settings(self._context.store, actor=self._context.actor)
        }
        given = self._context.settings.secrets
        return {n: "environment" if n in given else stored.get(n, "") for n in SECRET_NAMES}
