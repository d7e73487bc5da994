"""Keys for outside services that an owner entered for good, for the whole studio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masuka import outside
from masuka.config import SECRET_NAMES
from masuka.errors import InvalidInput, NotFound
from masuka.hosting import keys as services
from masuka.requests.actor import Actor
from masuka.requests.text import without_control
from masuka.store import settings as rows
from masuka.store.users import OWNER_ID
from masuka.studio.context import Context

BASE_URL = "OPENAI_BASE_URL"
WITH_ADDRESS = "OPENAI_API_KEY"
"""The key that belongs to an address of its own."""
_STUDIO = Actor(user_id=OWNER_ID)
"""Whichever owner enters a key, it is kept here, where jobs and the link find it."""


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

        `base_url` is the address of a service that speaks OpenAI's language; a new one
        needs its key again. Raises InvalidInput for what does not look like a key of that
        service, or for an address where the environment gives the key.
        """
        self._context.actor.must_own()
        if name not in SECRET_NAMES:
            raise InvalidInput(
                f"There is no key named {name!r}.", f"Known are: {', '.join(SECRET_NAMES)}.", field="name"
            )
        value = without_control(value).strip()
        store = self._context.store
        address = self.base_url() if base_url is None else services.clean_base_url(base_url, local=self.local)
        if value and name in services.SERVICES:
            services.must_look_right(name, value, base_url=address)
        if name == WITH_ADDRESS and base_url is not None:
            if self._is_given and address != self.base_url():
                raise InvalidInput(
                    "The key of the environment is sent to the environment's address alone.",
                    "Set OPENAI_BASE_URL there, or remove OPENAI_API_KEY from it.", field="base_url",
                )  # fmt: skip
            rows.set_setting(store, actor=_STUDIO, key=BASE_URL, value=address)
        if value:
            rows.set_setting(store, actor=_STUDIO, key=name, value=value, encrypted=True)
        else:
            rows.delete_setting(store, actor=_STUDIO, key=name)

    def keys(self) -> dict[str, str]:
        """Where each known key comes from: environment, stored, enter again or ''."""
        return {key.name: key.source for key in self.list_keys()}

    def list_keys(self) -> list[Key]:
        """Every known key, with the end of those that are there; an owner's to see."""
        self._context.actor.must_own()
        stored = {s.key: s for s in rows.list_settings(self._context.store, actor=_STUDIO)}
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
        """The address of the service that speaks OpenAI's language; '' is OpenAI.

        Key and address belong together: the environment's key is sent to its address.
        """
        if self._is_given:
            return self._context.settings.openai_base_url.rstrip("/")
        try:
            stored = rows.get_setting(self._context.store, actor=_STUDIO, key=BASE_URL).value
        except NotFound:
            stored = ""
        return stored or self._context.settings.openai_base_url

    def value(self, name: str) -> str:
        """The key itself, for the studio's own use; '' where there is none to use."""
        given = self._context.settings.secrets.get(name)
        if given:
            return given
        try:
            return self._stored(name)
        except NotFound:
            return ""

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
            services.must_be_accepted(name, value, base_url=self.base_url(), local=self.local, bases=bases)
        return f"{services.SERVICES[name].title} accepts the key."

    @property
    def local(self) -> frozenset[str]:
        """Hosts that are asked although they are not outside: those the environment names."""
        return outside.named(self._context.settings.openai_base_url, *self._context.settings.local_addresses)

    @property
    def _is_given(self) -> bool:
        """Whether the environment gives the key that belongs to an address."""
        return WITH_ADDRESS in self._context.settings.secrets

    def _stored(self, name: str) -> str:
        setting = rows.get_setting(self._context.store, actor=_STUDIO, key=name)
        if setting.needs_reentry:
            raise NotFound("This key can no longer be read on this machine.", "Enter it again.")
        return setting.value
