"""The job that downloads a base model, with true progress; ended early, the next one goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from masuka.errors import Conflict, DownloadFailed, from_dict
from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import FINISHED

PIPELINE_FILES = (
    "model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model", "LICENSE*", "README.md",
)  # fmt: skip
"""A diffusers folder's own parts; the single-file copies beside them are left out."""
ADAPTER_FILES = ("*.safetensors", "*.json", "README.md", "LICENSE*")
SECONDS_BETWEEN_LOOKS = 0.25
MIB = 2**20


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fetches a base and, where it has one, its training adapter.

    Returns {folder, bytes}. Raises AccessDenied, RemoteUnavailable, DownloadFailed,
    OutOfDisk, or Conflict when another job is fetching the same.
    """
    orders: list[tuple[str, str | None, Path, tuple[str, ...]]] = [
        (params["repo"], params["revision"], Path(params["folder"]), PIPELINE_FILES)
    ]
    if params.get("training_repo"):
        orders.append((params["training_repo"], None, Path(params["training_adapter"]), ADAPTER_FILES))
    total = 0
    for repo, revision, folder, patterns in orders:
        with _alone(folder):
            total += _fetch(
                {
                    "repo": repo,
                    "revision": revision,
                    "folder": str(folder),
                    "patterns": list(patterns),
                    "endpoint": params.get("endpoint"),
                },
                reporter,
            )
    return {"folder": params["folder"], "bytes": total}


def _fetch(order: dict[str, Any], reporter: Reporter) -> int:
    """Fetches one repository unless it is there whole; returns its bytes."""
    folder = Path(order["folder"])
    if (folder / FINISHED).is_file():
        return sum(json.loads((folder / FINISHED).read_text(encoding="utf-8"))["files"].values())
    reporter.stage(f"Downloading {order['repo']}")
    reporter.check()
    said: list[dict[str, Any]] = []
    with _process(order) as process:
        listener = threading.Thread(target=_listen, args=(process, said), daemon=True)
        listener.start()
        while listener.is_alive():
            reporter.check()
            listener.join(SECONDS_BETWEEN_LOOKS)
            plan = next((line["plan"] for line in said if "plan" in line), None)
            if plan:
                arrived = min(_bytes_under(folder), plan["total"])
                reporter.progress(arrived // MIB, max(1, plan["total"] // MIB))
        process.wait()
    last = said[-1] if said else {}
    if "error" in last:
        raise from_dict(last["error"])
    if "done" not in last:
        raise DownloadFailed(f"The download of {order['repo']} broke off.", "Try again: it goes on.")
    return _finish(folder, order, last["done"])


def _finish(folder: Path, order: dict[str, Any], done: dict[str, Any]) -> int:
    about = {
        "repo": order["repo"],
        "commit": done["commit"],
        "files": done["files"],
        "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    staged = folder / f"{FINISHED}.part"
    staged.write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
    staged.replace(folder / FINISHED)
    return sum(done["files"].values())


@contextmanager
def _process(order: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """The fetching process; whatever happens, it does not outlive this block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "masuka.models.fetch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    with process:
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


def _listen(process: subprocess.Popen[str], said: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            said.append(json.loads(line))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise Conflict(f"{folder.name} is being downloaded already.", "Wait for that job.") from None


def _bytes_under(folder: Path) -> int:
    """Bytes on the disk; parts of files count, and so do files that vanish while we look."""
    total = 0
    for file in folder.rglob("*"):
        try:
            about = file.stat()
        except FileNotFoundError:  # a part was just renamed to its file
            continue
        total += min(about.st_size, about.st_blocks * 512) if file.is_file() else 0
    return total
