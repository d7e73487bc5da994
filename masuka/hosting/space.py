"""How MASUKA settles on a host that brings its own proxy: a Space, a pod, a container.

ZeroGPU is the one Space where the GPU belongs to each request and not to the process:
a call is forked, limited to minutes, and nothing stays loaded. Workers are processes of
their own and cannot borrow it, so there the built-in model works on the CPU, and the large
ones are refused with the reason.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
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


def must_have_gpu(host: Runtime, title: str) -> None:
    """Raises NoAccelerator where a large model can never have a GPU."""
    if host.zero_gpu:
        raise NoAccelerator(
            f"{title} cannot work in this Space: ZeroGPU lends its GPU for minutes, to single requests.",
            "Give the Space a GPU of its own in its settings. The built-in model works here.",
        )


def register_with_zero_gpu() -> None:
    """Tells ZeroGPU that this Space borrows a GPU; it starts none that never does.

    Must come before gradio is imported (spaces 0.51 says why). Only there is this package
    installed.
    """
    import_module("spaces").GPU(_gpu_name)


def _gpu_name() -> str:
    """What a request would get; the smallest thing that can be asked for."""
    return str(import_module("torch").cuda.get_device_name())
