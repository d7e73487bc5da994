"""Joins the page that is served with the link for collaborators."""

from __future__ import annotations

from contextlib import suppress

from masuka import logs
from masuka.access.gate import Door
from masuka.access.password import owner_has_one
from masuka.config import Settings
from masuka.errors import NotAllowed, NotFound
from masuka.hosting.addresses import Addresses
from masuka.hosting.runtime import Runtime
from masuka.hosting.sharing import Rules, Sharing
from masuka.hosting.tunnels.budget import Budget
from masuka.hosting.ways import opens_by_itself, ways
from masuka.jobs.secrets import stored_secrets
from masuka.requests import Actor
from masuka.store import settings as rows
from masuka.store.connect import Store
from masuka.ui import live

OWNER = Actor(user_id=1)
USAGE_KEY = "link-usage"


def budget_of(store: Store) -> Budget:
    """The month's count of a metered link, as the workspace keeps it."""

    def load() -> str:
        with suppress(NotFound):
            return rows.get_setting(store, actor=OWNER, key=USAGE_KEY).value
        return ""

    return Budget(load, lambda text: _keep(store, text))


def start(
    settings: Settings,
    store: Store,
    host: Runtime,
    *,
    address: str,
    budget: Budget,
    door: Door,
) -> Sharing:
    """The running watch over the link; it opens one where the settings want it.

    Keys are read when a link is opened, so that one typed on the page counts at once.
    """

    def secrets() -> dict[str, str]:
        return {**stored_secrets(store, settings, OWNER.user_id), **settings.secrets}

    rules = Rules(
        may_open=lambda: must_have_password(store),
        # ngrok's agent adds the visitor's address itself, so that it can be believed.
        allow_host=lambda link: door.allow_host(link.host, tells_address=link.provider == "ngrok"),
        forget_host=lambda link: door.forget_host(link.host),
        tunnels=lambda: ways(settings, secrets(), start=live.start, stop=live.stop),
        budget=budget,
        share=settings.share,
        public_address=host.public_address,
        say=say,
    )
    sharing = Sharing(settings.workspace, address, rules)
    sharing.start(open_now=opens_by_itself(settings, secrets(), host))
    return sharing


def must_have_password(store: Store) -> None:
    """Raises NotAllowed while no owner has a password."""
    if not owner_has_one(store):
        raise NotAllowed(
            "A link needs an owner's password first, so none was opened.",
            "Set one in Settings → You, or run: masuka password",
        )


def say(told: Addresses) -> None:
    """Prints what became of the link, for whoever started the app."""
    if told.state == "open":
        print(f"Collaborators reach it at {told.public_url}", flush=True)  # noqa: T201 - read by the person who started it
    elif told.state == "failed":
        print(logs.redact(f"No link for collaborators: {told.message} {told.hint}".strip()), flush=True)  # noqa: T201


def _keep(store: Store, text: str) -> None:
    rows.set_setting(store, actor=OWNER, key=USAGE_KEY, value=text)
