"""How MASUKA settles on a host that brings its own proxy: a Space, a pod, a container.

ZeroGPU is the one Space where the GPU belongs to each request and not to the process.
Pictures borrow it (`hosting.zero`); workers are processes of their own and cannot, so
there the built-in model trains on the CPU, and to train a large one is refused with the
reason.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from masuka.config import Settings
from masuka.errors import NoAccelerator
from masuka.hosting.runtime import Runtime

EVERYWHERE = "0.0.0.0"  # noqa: S104 - behind the host's own proxy; the gate stands before every route
UNREACHABLE_NAMES = frozenset({"0.0.0.0", "::"})  # noqa: S104 - listened on, never a name to open
RUNPOD_VOLUME = Path("workspace")


def settled(settings: Settings, host: Runtime, *, root: Path = Path("/")) -> Settings:
    """The settings as this host needs them, with the vault that a person has named."""
    if host.name == "space":
        device = "cpu" if host.zero_gpu else settings.device
        return replace(settings, host=EVERYWHERE, device=device, open_browser=False)
    if host.name == "runpod":
        volume = root / RUNPOD_VOLUME
        # A network volume outlives the pod and is no place for a live database.
        kept = settings.vault or (volume / "masuka" if volume.is_dir() else None)
        return replace(settings, host=EVERYWHERE, vault=kept)
    return settings


def local_address(address: str) -> str:
    """The address under which this machine itself reaches what the app listens on."""
    parts = urlsplit(address)
    if (parts.hostname or "") not in UNREACHABLE_NAMES:
        return address
    return parts._replace(netloc=f"localhost:{parts.port}").geturl()


def must_have_gpu_for_long(host: Runtime, title: str) -> None:
    """Raises NoAccelerator where a training of a large model could never end."""
    if host.zero_gpu:
        raise NoAccelerator(
            f"{title} cannot be trained in this Space: ZeroGPU lends its GPU for minutes, to single requests.",
            "Give the Space a GPU of its own in its settings. Pictures are drawn here, and the built-in model trains.",
        )
