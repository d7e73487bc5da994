"""What decides which torch fits: the NVIDIA driver, and which indexes answer."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request

from masuka.errors import ResourceError

DRIVER_PATIENCE_S = 60.0


def nvidia_driver() -> int | None:
    """Major version of the NVIDIA driver; None without a GPU.

    Raises ResourceError when the driver does not answer: a torch for the CPU would stay
    for good.
    """
    version = ask_driver("driver_version")
    number = version.split(".")[0]
    return int(number) if number.isdigit() else None


def ask_driver(field: str) -> str:
    """The first GPU's value of that field, as nvidia-smi names it; '' without a GPU."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    query = [tool, f"--query-gpu={field}", "--format=csv,noheader"]
    with tempfile.TemporaryFile("w+") as said:
        asked = subprocess.Popen(query, stdout=said, stderr=subprocess.DEVNULL)
        try:
            code = asked.wait(DRIVER_PATIENCE_S)
        except subprocess.TimeoutExpired:
            asked.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                # A process that hangs inside the driver cannot even be killed.
                asked.wait(5)
            raise ResourceError(
                "The NVIDIA driver does not answer (nvidia-smi hangs).",
                "Restart this machine, then run this again.",
            ) from None
        said.seek(0)
        return said.readline().strip() if code == 0 else ""


def reachable(address: str, timeout_s: float = 6.0) -> bool:
    """Whether that address answers in time."""
    request = urllib.request.Request(address, method="HEAD")  # noqa: S310 - our own constant
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
