"""Ways to give collaborators an address: one interface, one file for each provider.

A tunnel carries requests from outside to the app's own port and knows nothing of who may
come in; `hosting.sharing` decides whether one is opened at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

ORDER = ("ngrok", "gradio", "cloudflared")
"""The first that works is used."""
TITLES = {"ngrok": "ngrok", "gradio": "gradio.live", "cloudflared": "Cloudflare"}


@dataclass(frozen=True)
class Link:
    """A public address that leads to the app."""

    url: str
    provider: str

    @property
    def host(self) -> str:
        """The host name, as it comes in the requests."""
        return (urlsplit(self.url).hostname or "").lower()


class Tunnel(Protocol):
    """One provider; at most one link of it is open at a time."""

    @property
    def provider(self) -> str:
        """Its name in ORDER."""
        ...

    def open(self, host: str, port: int) -> Link:
        """The link, once it is there; raises ExternalError when it cannot be opened.

        `host` is where the app listens on this machine. Whatever an app that was killed
        left running is ended first.
        """
        ...

    def close(self) -> None:
        """Ends the program behind the link; again does nothing."""
        ...

    def alive(self) -> bool:
        """Whether the program behind the link still runs."""
        ...
