"""A process of its own that fetches one hub repository, so that it can be ended at any moment.

    python -m masuka.models.fetch        # one JSON order on stdin, JSON lines on stdout

A download inside the worker could not be stopped: the hub's client moves the bytes in
threads, and in native code that swallows what a progress callback raises. Ended halfway,
the next one goes on from the files and the parts of files that are there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masuka.errors import AccessDenied, DownloadFailed, MasukaError, OutOfDisk, RemoteUnavailable

ROOM_BYTES = 2**30
"""What stays free on the disk after a download."""
_OFFLINE = {
    "ConnectError",
    "TimeoutException",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "ProxyError",
}


def main() -> None:
    """Carries out the order on stdin; ends when whoever gave it is gone."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _say(done=fetch(order))
    except MasukaError as error:
        _say(error=error.as_dict())
    except Exception as error:  # noqa: BLE001 (this process's edge: every failure becomes a sentence)
        _say(error=as_masuka_error(error, order["repo"]).as_dict())


def fetch(order: Mapping[str, Any]) -> dict[str, Any]:
    """Downloads {repo, revision, folder, patterns, endpoint}; returns {commit, files: {path: bytes}}.

    Says the plan first: {"plan": {"total": bytes}}. Raises OutOfDisk before the first byte.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        disable_progress_bars,
        filter_repo_objects,
    )

    disable_progress_bars()
    folder = Path(order["folder"])
    info = HfApi(endpoint=order["endpoint"]).model_info(
        order["repo"], revision=order["revision"], files_metadata=True
    )
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    files = {name: sizes[name] for name in filter_repo_objects(sizes, allow_patterns=order["patterns"])}
    if not files:
        raise DownloadFailed(f"{order['repo']} holds no files of the kind that is needed.")
    folder.mkdir(parents=True, exist_ok=True)
    _say(plan={"total": sum(files.values())})
    here = sum(_size(folder / name) for name in files)
    needed, free = sum(files.values()) - here + ROOM_BYTES, shutil.disk_usage(folder).free
    if needed > free:
        raise OutOfDisk(
            f"{order['repo']} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free.",
            "Delete models or pictures that you do not need, or use another workspace.",
        )
    snapshot_download(
        order["repo"], revision=info.sha, local_dir=folder, cache_dir=folder / ".cache",
        allow_patterns=order["patterns"], endpoint=order["endpoint"], max_workers=4,
    )  # fmt: skip
    short = [name for name, size in files.items() if _size(folder / name) != size]
    if short:
        raise DownloadFailed(f"{len(short)} files of {order['repo']} did not arrive whole.", "Try again.")
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {"commit": info.sha, "files": files}


def as_masuka_error(error: BaseException, repo: str) -> MasukaError:
    """The sentence for an error of the hub's client, told by class names: they outlive versions."""
    names = {kind.__name__ for seen in _chain(error) for kind in type(seen).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    page = f"https://huggingface.co/{repo}"
    if "GatedRepoError" in names or status == 403:
        return AccessDenied(
            f"{repo} asks everybody to accept its licence first.",
            f"Open {page}, accept it, and enter your Hugging Face token in Settings.",
        )
    if "RevisionNotFoundError" in names:
        return DownloadFailed(f"The version of {repo} that MASUKA knows is gone.", "Update MASUKA.")
    if "RepositoryNotFoundError" in names or status == 401:
        return AccessDenied(
            f"Hugging Face does not show {repo} to you.",
            f"Enter a valid Hugging Face token in Settings, and look whether {page} opens.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OutOfDisk(f"The disk is full; {repo} is half there.", "Make room and try again: it goes on.")
    if names & _OFFLINE or status == 429 or status >= 500:
        return RemoteUnavailable("Hugging Face cannot be reached.", "Try again later: it goes on.")
    return DownloadFailed(f"{repo} did not arrive: {type(error).__name__}.", "Try again: it goes on.")


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what it was raised from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(3)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


if __name__ == "__main__":
    main()
