"""Drive: a folder that appears, or one of the ways in which Google's own mount fails."""

from __future__ import annotations

from pathlib import Path

from google.colab import note, told

FAILURES = {
    # As google.colab.drive raises them (colabtools, Apr 2026), the first by way of the browser.
    "refused": (RuntimeError, "Error: credential propagation was unsuccessful"),
    "timeout": (ValueError, "mount failed: timeout during initial read of root folder; for more info: …"),
    "files": (ValueError, "Mountpoint must not already contain files"),
    "policy": (ValueError, "The domain policy has disabled Drive File Stream: …"),
    "kernel": (AttributeError, "'NoneType' object has no attribute 'kernel'"),
    "other": (ValueError, "mount failed"),
}


def mount(mountpoint: str, force_remount: bool = False, timeout_ms: int = 120000, readonly: bool = False) -> None:
    note("mount", at=mountpoint)
    how = told().get("mount", "ok")
    if how != "ok":
        kind, text = FAILURES[how]
        raise kind(text)
    (Path(mountpoint) / "MyDrive").mkdir(parents=True, exist_ok=True)
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms: int = 24 * 60 * 60 * 1000) -> None:
    note("flush")
    if told().get("flush") == "fails":
        raise ValueError("flush_and_unmount failed")
