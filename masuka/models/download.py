"""The job that downloads a base model, with true progress; ended early, the next one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from masuka.errors import Conflict, OutOfDisk
from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import FINISHED
from masuka.models.fetch import Plan, fetch_file, part_of, plan, size_of

PIPELINE_FILES = (
    "model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model", "LICENSE*", "README.md",
)  # fmt: skip
"""A diffusers folder's own parts; the single-file copies beside them are left out."""
ADAPTER_FILES = ("*.safetensors", "*.json", "README.md", "LICENSE*")
ROOM_BYTES = 2**30
"""What stays free on the disk after a download."""
MIB = 2**20


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fetches a base after its training adapter, where it has one.

    `patterns` are the files of the repository that are needed; a pipeline's by default.
    Returns {folder, bytes}. Raises AccessDenied, RemoteUnavailable, DownloadFailed,
    OutOfDisk, or Conflict when another job is fetching the same.
    """
    endpoint = params.get("endpoint")
    total = 0
    if params.get("training_repo"):
        # The small one first: what is wrong with it shows before the long wait.
        folder = Path(params["training_adapter"])
        total += _fetch(params["training_repo"], None, folder, ADAPTER_FILES, endpoint, reporter)
    patterns = tuple(params.get("patterns") or PIPELINE_FILES)
    total += _fetch(params["repo"], params["revision"], Path(params["folder"]), patterns, endpoint, reporter)
    return {"folder": params["folder"], "bytes": total}


def _fetch(
    repo: str,
    revision: str | None,
    folder: Path,
    patterns: tuple[str, ...],
    endpoint: str | None,
    reporter: Reporter,
) -> int:
    """Fetches one repository unless it is there whole; returns its bytes."""
    with _alone(folder):
        if (folder / FINISHED).is_file():
            return int(json.loads((folder / FINISHED).read_text(encoding="utf-8"))["bytes"])
        reporter.stage(f"Downloading {repo}")
        reporter.check()
        wanted = plan(repo, revision, patterns, endpoint=endpoint)
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(wanted, folder)
        done = 0
        for file in wanted.files:

            def tell(here: int, before: int = done) -> None:
                reporter.check()
                reporter.progress((before + here) // MIB, max(1, wanted.size // MIB))

            fetch_file(wanted, file, folder, tell)
            done += file.size
            tell(0, done)
        _finish(wanted, folder)
        return wanted.size


def _check_room(wanted: Plan, folder: Path) -> None:
    here = sum(size_of(folder / file.path) + size_of(part_of(folder, file)) for file in wanted.files)
    needed, free = wanted.size - here + ROOM_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OutOfDisk(
            f"{wanted.repo} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free.",
            "Delete models or pictures that you do not need, or use another workspace.",
        )


def _finish(wanted: Plan, folder: Path) -> None:
    about = {
        "repo": wanted.repo,
        "commit": wanted.commit,
        "files": {file.path: file.sha256 or file.git_id for file in wanted.files},
        "bytes": wanted.size,
        "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    staged = folder / f"{FINISHED}.part"
    staged.write_text(json.dumps(about, indent=1, sort_keys=True), encoding="utf-8")
    staged.replace(folder / FINISHED)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise Conflict(f"{folder.name} is being downloaded already.", "Wait for that job.") from None
