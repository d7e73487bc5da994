"""Keys for outside services that the owner entered for good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masuka.config import SECRET_NAMES
from masuka.errors import InvalidInput, NotFound
from masuka.hosting import keys as services
from masuka.requests.text import without_control
from masuka.store import settings as rows
from masuka.studio.context import Context

BASE_URL = "OPENAI_BASE_URL"


@dataclass(frozen=True)
class Key:
    """What is told about a key: where it is from, and its last four characters.

    `source` is 'environment', 'stored', 'enter again' (its lock is gone) or ''.
    """

    name: str
    source: str
    ending: str = ""


class Preferences:
    """Keys are stored encrypted and never shown again."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def set_key(self, name: str, value: str, *, base_url: str | None = None) -> None:
        """Keeps an outside service's key, encrypted; an empty value forgets it.

        `base_url` is the address of a service that speaks OpenAI's language. Raises
        InvalidInput for what does not look like a key of that service.
        """
        self._context.actor.must_own()
        if name not in SECRET_NAMES:
            raise InvalidInput(
                f"There is no key named {name!r}.", f"Known are: {', '.join(SECRET_NAMES)}.", field="name"
            )
        value = without_control(value).strip()
        store, actor = self._context.store, self._context.actor
        address = self.base_url() if base_url is None else services.clean_base_url(base_url)
        if value and name in services.SERVICES:
            services.must_look_right(name, value, base_url=address)
        if name == "OPENAI_API_KEY" and base_url is not None:
            rows.set_setting(store, actor=actor, key=BASE_URL, value=address)
        if value:
            rows.set_setting(store, actor=actor, key=name, value=value, encrypted=True)
        else:
            rows.delete_setting(store, actor=actor, key=name)

    def keys(self) -> dict[str, str]:
        """Where each known key comes from: environment, stored, enter again or ''."""
        return {key.name: key.source for key in self.list_keys()}

    def list_keys(self) -> list[Key]:
        """Every known key, with the end of those that are there."""
        stored = {s.key: s for s in rows.list_settings(self._context.store, actor=self._context.actor)}
        given = self._context.settings.secrets
        found = []
        for name in SECRET_NAMES:
            setting = stored.get(name)
            if name in given:
                found.append(Key(name, "environment", services.ending(given[name])))
            elif setting is None:
                found.append(Key(name, ""))
            elif setting.needs_reentry:
                found.append(Key(name, "enter again"))
            else:
                found.append(Key(name, "stored", services.ending(setting.value)))
        return found

    def base_url(self) -> str:
        """The address of the service that speaks OpenAI's language; '' is OpenAI."""
        try:
            stored = rows.get_setting(self._context.store, actor=self._context.actor, key=BASE_URL).value
        except NotFound:
            stored = ""
        return stored or self._context.settings.openai_base_url

    def test_key(self, name: str, *, bases: Mapping[str, str] | None = None) -> str:
        """A sentence that the service accepts the key that is kept for it.

        Raises NotFound without one, AccessDenied when it is refused, RemoteUnavailable
        when the service did not say. `bases` are addresses to ask instead.
        """
        self._context.actor.must_own()
        if not services.can_be_tested(name):
            raise InvalidInput(f"{name} cannot be tested by a request.", "It is tested when it is used.", field="name")
        value = self._context.settings.secrets.get(name) or self._stored(name)
        if name in services.BY_PROGRAM:
            # Loads the tunnels' libraries, which nothing else here needs.
            from masuka.hosting.ways import prove_ngrok

            services.must_look_right(name, value)
            prove_ngrok(self._context.settings, value)
        else:
            services.must_be_accepted(name, value, base_url=self.base_url(), bases=bases)
        return f"{services.SERVICES[name].title} accepts the key."

    def _stored(self, name: str) -> str:
        setting = rows.get_setting(self._context.store, actor=self._context.actor, key=name)
        if setting.needs_reentry:
            raise NotFound("This key can no longer be read on this machine.", "Enter it again.")
        return setting.value
