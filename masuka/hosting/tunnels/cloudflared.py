"""A link through a named Cloudflare tunnel: the person's own account and domain.

Only named tunnels: a quick one holds back event streams until they end, and Gradio's
answers come in those. Where the tunnel leads is set in Cloudflare's dashboard.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
from pathlib import Path

from masuka import logs
from masuka.config import bare_environment
from masuka.errors import AccessDenied, RemoteUnavailable
from masuka.hosting.tunnels import Link, agents, marks

DEADLINE_S = 40.0
LOG_NAME = "cloudflared.log"
READY = "Registered tunnel connection"
_LOOK_EVERY_S = 0.2

log = logging.getLogger(__name__)


class Cloudflared:
    """The tunnel of one token, reached under `host_name`; `folder` is for secrets."""

    provider = "cloudflared"

    def __init__(
        self, *, token: str, host_name: str, folder: Path, program: Path | None = None, deadline_s: float = DEADLINE_S
    ) -> None:
        self._token = token
        self._host_name = host_name
        self._log = folder / LOG_NAME
        self._program = program
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None
        self._marks = marks.of_cloudflared(folder)
        logs.redact.learn([token])

    def open(self, host: str, port: int) -> Link:
        """The link; raises AccessDenied for a wrong token, RemoteUnavailable otherwise."""
        self.close()
        agents.end(self._marks)
        found = str(self._program) if self._program else shutil.which("cloudflared")
        if not found:
            raise RemoteUnavailable("cloudflared is not installed on this machine.", "Install it, or use another way.")
        command = [found, *self._marks, "--no-autoupdate", "--metrics", "127.0.0.1:0", "run"]
        self._log.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                    env=bare_environment({"TUNNEL_TOKEN": self._token}),
                )  # fmt: skip
        except OSError as error:
            raise RemoteUnavailable("cloudflared does not run on this machine.", "Install it again.") from error
        self._wait(port)
        return Link(f"https://{self._host_name}", self.provider)

    def close(self) -> None:
        """Ends the program."""
        if self._process is not None:
            agents.end(self._marks)
            self._process.wait()
            self._process = None

    def alive(self) -> bool:
        """Whether the program runs; it reconnects by itself."""
        return self._process is not None and self._process.poll() is None

    def _wait(self, port: int) -> None:
        """Returns once the tunnel is up; closes and raises when it ends or takes too long."""
        until = time.monotonic() + self._deadline_s
        while time.monotonic() < until:
            said = self._log.read_text(encoding="utf-8", errors="replace")
            if READY in said:
                return
            if not self.alive():
                break
            time.sleep(_LOOK_EVERY_S)
        said = self._log.read_text(encoding="utf-8", errors="replace").lower()
        self.close()
        if "token is not valid" in said or "unauthorized" in said:
            raise AccessDenied(
                "Cloudflare does not accept this tunnel's token.",
                "Copy it again from the tunnel's page in Cloudflare's dashboard.",
            )
        log.warning("cloudflared did not connect; %s tells more", LOG_NAME)
        raise RemoteUnavailable(
            "Cloudflare's tunnel did not come up.",
            f"In its dashboard the host name must lead to http://127.0.0.1:{port}.",
        )
