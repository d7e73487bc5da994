"""The addresses of the running app: where it is reached, and its link for collaborators."""

from __future__ import annotations

from masuka.errors import Conflict, RemoteUnavailable
from masuka.hosting import addresses
from masuka.hosting.addresses import Addresses
from masuka.hosting.runtime import detect
from masuka.studio.context import Context


class Links:
    """Tells, opens and closes the link; all of it belongs to an owner."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def now(self) -> Addresses:
        """What the running app says; an empty one when none runs."""
        self._context.actor.must_own()
        return addresses.read(self._context.workspace)

    def public_base(self) -> str:
        """Where people from outside reach the app, with a '/'; '' where no place is known."""
        told = addresses.read(self._context.workspace)
        known = told.public_url if told.state == "open" else detect().public_address
        return f"{known.rstrip('/')}/" if known else ""

    def open(self, provider: str = "", *, wait_s: float = addresses.ANSWER_S) -> Addresses:
        """What the app says after it was asked to open a link, once it is there.

        Raises Conflict when the app does not run.
        """
        self._context.actor.must_own()
        wish = addresses.ask(self._context.workspace, "open", provider=provider)
        return addresses.answer_to(self._context.workspace, wish, timeout_s=wait_s)

    def close(self, *, wait_s: float = addresses.ANSWER_S) -> Addresses:
        """What the app says after it has closed its link.

        Raises Conflict when the app does not run, RemoteUnavailable while the link may
        still be open.
        """
        self._context.actor.must_own()
        wish = addresses.ask(self._context.workspace, "close")
        told = addresses.answer_to(self._context.workspace, wish, timeout_s=wait_s)
        if not told.address:
            raise Conflict("The app ended meanwhile.", "Look again in a moment: masuka share status")
        if told.answered != wish.id:
            raise RemoteUnavailable("The app has not closed the link yet.", "Look again in a moment, or stop the app.")
        if told.state != "closed":
            known = told.message or "The link was opened again meanwhile."
            raise RemoteUnavailable(known, told.hint or "Close it again.")
        return told
