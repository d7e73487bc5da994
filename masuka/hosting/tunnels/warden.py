"""Agents that outlive their app: ended by a small program beside it, or by the next app.

Nothing can be done at the end of an app that is killed. So a program of its own holds one
end of a pipe; when the other end is gone without a word, it ends the app's agents. Linux's
signal at a parent's death would not do: it follows the thread that started the agent, and
that one ends first.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import masuka
from masuka.config import bare_environment
from masuka.hosting.tunnels import agents, marks

MODULE = "masuka.hosting.tunnels.warden"
BYE = b"bye"
LEAVE_S = 5.0

log = logging.getLogger(__name__)


def end_left(folder: Path, *, before_s: float | None = None) -> int:
    """How many agents of this workspace were ended; `folder` is the one for secrets.

    With `before_s` (seconds since 1970) only those that began before.
    """
    return sum(agents.end(known, before_s=before_s) for known in marks.of_workspace(folder))


class Warden:
    """The program that ends this workspace's agents when the app was killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begins to look after them; without it the next app does."""
        self.stop()
        package = str(Path(masuka.__file__).parent.parent)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(self._folder)], stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                env=bare_environment({"PYTHONPATH": package}),
            )  # fmt: skip
        except OSError as error:
            log.warning("nobody ends the link's program if the app is killed: %s", error)

    def stop(self) -> None:
        """Leaves the agents alone; again does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(BYE, timeout=LEAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def main(folder: Path) -> int:
    """0 once the app has gone, and its agents with it."""
    said = sys.stdin.buffer.read()
    if said != BYE:
        # What began later belongs to the next app.
        end_left(folder, before_s=time.time())
    return os.EX_OK


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
