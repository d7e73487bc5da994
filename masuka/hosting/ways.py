"""The ways to a link that settings and keys make possible, and whether one opens by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from filelock import FileLock, Timeout

from masuka.config import Settings
from masuka.errors import Conflict
from masuka.hosting.runtime import Runtime
from masuka.hosting.tunnels import Tunnel, marks
from masuka.hosting.tunnels.cloudflared import Cloudflared
from masuka.hosting.tunnels.gradio_live import GradioLive, Start
from masuka.hosting.tunnels.ngrok import Ngrok

LOCK_NAME = "tunnel.lock"
"""Held among the secrets by whoever has an agent running: one of a workspace at a time."""
PROVE_S = 20.0


def ways(
    settings: Settings, secrets: Mapping[str, str], *, start: Start, stop: Callable[[str], None]
) -> list[Tunnel]:
    """The tunnels that these settings and keys make possible, in their order.

    `start` and `stop` are Gradio's part, which needs no key.
    """
    folder = settings.workspace.secrets
    found: list[Tunnel] = []
    if token := secrets.get("NGROK_AUTHTOKEN"):
        found.append(
            Ngrok(token=token, folder=folder, domain=settings.ngrok_domain, program=settings.ngrok_program)
        )
    found.append(GradioLive(start=start, stop=stop, folder=folder))
    if (token := secrets.get("CLOUDFLARED_TOKEN")) and settings.cloudflared_host:
        found.append(Cloudflared(token=token, host_name=settings.cloudflared_host, folder=folder))
    return found


def opens_by_itself(settings: Settings, secrets: Mapping[str, str], host: Runtime) -> bool:
    """Whether a link is wanted at the start without anybody asking for it.

    A host with a public address of its own needs none. Kaggle's rules leave it open
    whether one is allowed, so there it must be asked for.
    """
    if settings.share == "off" or host.public_address or host.name == "space":
        return False
    if settings.share != "auto":
        return True
    named = bool(secrets.get("CLOUDFLARED_TOKEN") and settings.cloudflared_host)
    return host.name != "kaggle" and (named or bool(secrets.get("NGROK_AUTHTOKEN")))


def prove_ngrok(settings: Settings, token: str, *, deadline_s: float = PROVE_S) -> None:
    """Returns when ngrok accepts the authtoken, else raises what ngrok meant.

    An agent signs in and opens nothing. Raises Conflict while a link is open: one program
    of this workspace at a time.
    """
    folder = settings.workspace.secrets
    lock = FileLock(folder / LOCK_NAME, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise Conflict("A link is open.", "Close it first, then test the key.") from error
    try:
        Ngrok(
            token=token, folder=folder, program=settings.ngrok_program, deadline_s=deadline_s,
            config_name=marks.NGROK_TEST_FILE,
        ).prove()  # fmt: skip
    finally:
        lock.release()
