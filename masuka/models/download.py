"""The job that downloads a base model, with true progress; ended early, the next one goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from masuka.errors import Conflict, DownloadFailed, OutOfDisk
from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import FINISHED, INDEXES, parts_in
from masuka.models.fetch import Plan, fetch_file, part_of, plan, read_small, size_of
from masuka.models.files import IN_FULL, autoencoder_files, pipeline_files

ADAPTER_FILES = ("*.safetensors", "*.json", "README.md", "LICENSE*")
ROOM_BYTES = 2**30
"""What stays free on the disk after a download."""
MIB = 2**20


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Fetches a base after its training adapter, where it has one.

    `patterns` are the files of the repository that are needed; without them it is a
    diffusers folder, of which only the parts are taken that its index names. With
    `autoencoder_repo` that VAE takes the place of the base's own. An empty `repo` leaves
    the base as it is. Returns {folder, bytes}. Raises AccessDenied, RemoteUnavailable,
    DownloadFailed, OutOfDisk, or Conflict when another job is fetching the same.
    """
    endpoint = params.get("endpoint")
    total = 0
    if params.get("training_repo"):
        # The small one first: what is wrong with it shows before the long wait.
        repo, folder = params["training_repo"], Path(params["training_adapter"])
        total += fetch(repo, folder, lambda: [plan(repo, None, ADAPTER_FILES, endpoint=endpoint)], reporter)
    if params["repo"]:
        total += fetch(params["repo"], Path(params["folder"]), lambda: plans_of(params), reporter)
    return {"folder": params["folder"], "bytes": total}


def plans_of(params: Mapping[str, Any], *, token: str | None = None) -> list[Plan]:
    """What a base consists of: its files first, then the VAE that replaces its own."""
    repo, revision, endpoint = params["repo"], params["revision"], params.get("endpoint")
    if params.get("patterns"):
        return [plan(repo, revision, tuple(params["patterns"]), endpoint=endpoint, token=token)]
    listed = plan(repo, revision, ("*",), endpoint=endpoint, token=token)
    index = index_in(listed, token=token)
    replacement = params.get("autoencoder_repo")
    parts = parts_in(index)
    found = [replace(listed, files=pipeline_files(listed.files, parts, without=[IN_FULL] if replacement else []))]
    if replacement:
        vae = plan(replacement, None, ("*",), endpoint=endpoint, token=token)
        found.append(replace(vae, files=autoencoder_files(vae.files)))
    return found


def index_in(listed: Plan, *, token: str | None = None) -> dict[str, Any]:
    """The index of a repository in diffusers' layout; raises DownloadFailed."""
    names = {file.path for file in listed.files}
    name = next((name for name in INDEXES if name in names), None)
    if name is None:
        raise DownloadFailed(
            f"{listed.repo} is no diffusers folder: it has no {INDEXES[0]}.",
            "Take a repository whose page says Diffusers, or import its single safetensors file.",
        )
    try:
        index = json.loads(read_small(listed, name, token=token))
    except (ValueError, RecursionError) as error:
        raise DownloadFailed(f"{name} of {listed.repo} cannot be read.", "Take another repository.") from error
    if not isinstance(index, dict):
        raise DownloadFailed(f"{name} of {listed.repo} is no index.", "Take another repository.")
    return index


def fetch(name: str, folder: Path, plans: Callable[[], Sequence[Plan]], reporter: Reporter) -> int:
    """Fetches what is planned unless it is there whole; returns its bytes."""
    with alone(folder):
        if (folder / FINISHED).is_file():
            return int(json.loads((folder / FINISHED).read_text(encoding="utf-8")).get("bytes", 0))
        reporter.stage(f"Downloading {name}")
        reporter.check()
        wanted = plans()
        folder.mkdir(parents=True, exist_ok=True)
        _check_room(name, wanted, folder)
        size, done = sum(each.size for each in wanted), 0
        for each in wanted:
            for file in each.files:

                def tell(here: int, before: int = done) -> None:
                    reporter.check()
                    reporter.progress((before + here) // MIB, max(1, size // MIB))

                fetch_file(each, file, folder, tell)
                done += file.size
                tell(0, done)
        _finish(wanted, folder)
        return size


def must_have_room(name: str, needed_bytes: int, folder: Path) -> None:
    """Raises OutOfDisk, with both figures, where that much does not fit."""
    while not folder.exists():
        folder = folder.parent
    needed, free = needed_bytes + ROOM_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OutOfDisk(
            f"{name} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free.",
            "Delete models or pictures that you do not need, or use another workspace.",
        )


def finish(folder: Path, about: Mapping[str, Any]) -> None:
    """Writes down that the folder is whole, with what it is made of."""
    staged = folder / f"{FINISHED}.part"
    told = {**about, "downloaded_at": datetime.now(UTC).isoformat(timespec="seconds")}
    staged.write_text(json.dumps(told, indent=1, sort_keys=True), encoding="utf-8")
    staged.replace(folder / FINISHED)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within it nobody else fills or empties the folder; raises Conflict."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise Conflict(f"{folder.name} is being downloaded already.", "Wait for that job.") from None


def _check_room(name: str, plans: Sequence[Plan], folder: Path) -> None:
    here = sum(size_of(folder / f.place) + size_of(part_of(folder, f)) for each in plans for f in each.files)
    must_have_room(name, sum(each.size for each in plans) - here, folder)


def _finish(plans: Sequence[Plan], folder: Path) -> None:
    first = plans[0]
    about: dict[str, Any] = {
        "repo": first.repo,
        "commit": first.commit,
        "files": {file.place: file.sha256 or file.git_id for each in plans for file in each.files},
        "bytes": sum(each.size for each in plans),
    }
    if len(plans) > 1:
        about["autoencoder"] = {"repo": plans[1].repo, "commit": plans[1].commit}
    finish(folder, about)
