"""A link at gradio.live: no account, a new random address each time, for a week at most.

Gradio itself stays in the page's package; what starts and stops its program is given.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from masuka.errors import RemoteUnavailable
from masuka.hosting.tunnels import Link, agents, marks

DEADLINE_S = 60.0
Start = Callable[[str, int, str], str]
"""(host, port, name) → the address; the name is in the program's command line."""

log = logging.getLogger(__name__)


class GradioLive:
    """The tunnel of Gradio's share servers; `folder` is the one for secrets."""

    provider = "gradio"

    def __init__(
        self, *, start: Start, stop: Callable[[str], None], folder: Path, deadline_s: float = DEADLINE_S
    ) -> None:
        self._start = start
        self._stop = stop
        self._name_file = folder / marks.GRADIO_FILE
        self._deadline_s = deadline_s
        self._name = ""

    def open(self, host: str, port: int) -> Link:
        """The link; raises RemoteUnavailable when the share servers give none."""
        self.close()
        self._name = name = self._own_name()
        agents.end(marks.of_gradio(name))
        try:
            address = agents.within(
                self._deadline_s, lambda: self._start(host, port, name), lambda: self._end(name), title="gradio.live"
            )
        except RemoteUnavailable:
            self.close()
            raise
        except Exception as error:
            # Gradio raises whatever went wrong: no network, no program for this machine, no server.
            log.warning("gradio.live did not open a link: %s: %s", type(error).__name__, str(error)[:300])
            self.close()
            raise RemoteUnavailable("gradio.live did not open a link.", "Try again later, or use ngrok.") from error
        # Its servers speak https, whatever the program says of itself.
        return Link(f"https://{urlsplit(address).netloc}", self.provider)

    def close(self) -> None:
        """Ends the program; the address is gone with it."""
        if self._name:
            self._end(self._name)
            self._name = ""

    def alive(self) -> bool:
        """Whether the program runs."""
        return bool(self._name) and bool(agents.find(marks.of_gradio(self._name)))

    def _end(self, name: str) -> None:
        self._stop(name)
        agents.end(marks.of_gradio(name))

    def _own_name(self) -> str:
        """This workspace's name among the share servers' links; nobody can guess it."""
        if not self._name_file.exists():
            agents.write_secret(self._name_file, secrets.token_urlsafe(32))
        return self._name_file.read_text(encoding="utf-8").strip()
