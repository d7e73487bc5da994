"""Data sets of Hugging Face: fetched and taken in, and put there as an imagefolder.

The token is the hub client's own affair; a stand-in of the hub is named by `endpoint`.
"""

from __future__ import annotations

import io
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from masuka.datasets import intake
from masuka.datasets.exchange import About, Entry, entries_in, forget_asked, imagefolder, packed
from masuka.datasets.sidecars import CAPTION_ENDINGS, DATASET_NAME, METADATA_NAME, TABLE_NAME
from masuka.datasets.sources import ARCHIVE_ENDINGS, MOST_FILES, PICTURE_ENDINGS
from masuka.errors import AccessDenied, Conflict, DownloadFailed, MasukaError, OutOfDisk
from masuka.jobs.reporter import Reporter
from masuka.models.fetch import Plan, RemoteFile, as_masuka_error, fetch_file, plan, size_of

LARGEST_BYTES = 16_000_000_000
ROOM_BYTES = 2**30
"""What stays free on the disk after a download."""
FILES_AT_ONCE = 20
"""So many pictures are sent between two looks whether to stop."""
_MIB = 2**20
_SIDECARS = (METADATA_NAME, TABLE_NAME, DATASET_NAME)


def fetch(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The job: fetches a data set's pictures and captions, then takes them in.

    Returns what `intake.run` does. Fetched parts stay in `incoming` until all is done.
    Raises AccessDenied, DownloadFailed, RemoteUnavailable, OutOfDisk.
    """
    incoming = Path(params["incoming"])
    incoming.mkdir(parents=True, exist_ok=True)
    reporter.stage(f"Downloading {params['repo']}")
    reporter.check()
    listed = plan(
        params["repo"], params["revision"], ["*"], endpoint=params.get("endpoint"), repo_type="dataset"
    )
    files = wanted(listed)
    total = sum(file.size for file in files)
    _must_fit(params["repo"], files, incoming, total)
    done = 0
    for file in files:

        def tell(here: int, before: int = done) -> None:
            reporter.check()
            reporter.progress((before + here) // _MIB, max(1, total // _MIB))

        fetch_file(listed, file, incoming, tell)
        done += file.size
        tell(0, done)
    return intake.run({**params, "sources": [str(incoming)], "forget_sources": False}, reporter)


def wanted(listed: Plan) -> list[RemoteFile]:
    """The repository's pictures, captions and archives; raises DownloadFailed."""
    files = [file for file in listed.files if _is_wanted(file.path)]
    if any(_ending(file.path) in PICTURE_ENDINGS or _is_packed(file.path) for file in files):
        return files
    if any(_ending(file.path) == ".parquet" for file in listed.files):
        raise DownloadFailed(
            f"{listed.repo} keeps its pictures in Parquet tables, which are not read here.",
            "Take a data set that holds picture files, or turn it into one.",
        )
    raise DownloadFailed(f"{listed.repo} holds no pictures.", "Take another data set.")


def push(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The job: puts the set on the hub in one commit; returns {repo, url, pictures}.

    Raises Conflict where it would become public without being asked to, AccessDenied.
    """
    entries, about = entries_in(params), About(**params["about"])
    reporter.stage("Preparing the place on Hugging Face")
    reporter.check()
    try:
        result = _push(params, entries, about, reporter)
    except MasukaError:
        raise
    except Exception as error:  # the client's own errors, which differ by version
        raise _refusal(error, params["repo"]) from error
    forget_asked(params)
    return result


def _push(
    params: dict[str, Any], entries: Sequence[Entry], about: About, reporter: Reporter
) -> dict[str, Any]:
    from huggingface_hub import CommitOperationAdd, HfApi

    repo: str = params["repo"]
    api = HfApi(endpoint=params.get("endpoint"))
    url = api.create_repo(repo, repo_type="dataset", private=params["private"], exist_ok=True)
    if params["private"] and not api.dataset_info(repo).private:
        raise Conflict(
            f"The data set {repo} is there already, and everybody can see it.",
            "Take another name, or make it private on Hugging Face first.",
        )
    reporter.stage("Sending pictures")

    def tell(number: int) -> None:
        reporter.check()
        reporter.progress(number, len(entries))

    operations: list[CommitOperationAdd] = []
    for group in _groups(imagefolder(about, packed(entries, tell))):
        # As streams they go over plain HTTP; other data takes native code that nothing here can stop.
        made = [CommitOperationAdd(name, io.BytesIO(data)) for name, data in group]
        reporter.check()
        api.preupload_lfs_files(repo, made, repo_type="dataset", num_threads=2)
        operations += made
    card = _card(params, about, len(entries)).encode()
    reporter.check()
    api.create_commit(
        repo,
        [*operations, CommitOperationAdd("README.md", card)],
        repo_type="dataset",
        commit_message=f"Put {len(entries)} pictures here",
    )
    return {"repo": repo, "url": str(url), "pictures": len(entries)}


def _card(params: dict[str, Any], about: About, count: int) -> str:
    """The README that the hub shows: licence, tags, what it is, who agreed."""
    head = {
        "license": params["licence"],
        "pretty_name": about.name,
        "tags": ["masuka", "image"],
        "task_categories": ["text-to-image"],
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items()]
    return (
        "---\n" + "\n".join(lines) + "\n---\n\n"
        f"# {about.name}\n\n"
        f"{count} pictures with captions, for training a text-to-image model; an imagefolder with "
        "`metadata.jsonl`.\n\n"
        f"The word `{about.trigger_word}` calls what they show ({about.class_word}).\n\n"
        f"Consent: {params['consent']}\n"
    )


def _groups(files: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    while group := list(itertools.islice(files, FILES_AT_ONCE)):
        yield group


def _refusal(error: Exception, repo: str) -> MasukaError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return AccessDenied(
            f"Hugging Face does not let you write to {repo}.",
            "Enter a token with write access in Settings, and look whose name is before the slash.",
        )
    told = as_masuka_error(error, repo, "dataset")
    if isinstance(told, DownloadFailed):
        return DownloadFailed(f"{repo} was not sent: {type(error).__name__}.", "Try again.")
    return told


def _must_fit(repo: str, files: Sequence[RemoteFile], incoming: Path, total: int) -> None:
    if len(files) > MOST_FILES or total > LARGEST_BYTES:
        raise DownloadFailed(
            f"{repo} has {len(files):,} files with {total / 1e9:,.1f} GB.",
            f"At most {MOST_FILES:,} files with {LARGEST_BYTES // 10**9} GB are taken.",
        )
    here = sum(size_of(incoming / file.path) for file in files)
    needed, free = total - here + ROOM_BYTES, shutil.disk_usage(incoming).free
    if needed > free:
        raise OutOfDisk(
            f"{repo} needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free.",
            "Delete models or pictures that you do not need.",
        )


def _is_wanted(path: str) -> bool:
    name = PurePosixPath(path).name.lower()
    # A repository's own texts are no captions.
    own = name in ("license.txt", "readme.txt", "requirements.txt")
    known = _ending(path) in PICTURE_ENDINGS or _ending(path) in CAPTION_ENDINGS or name in _SIDECARS
    return not own and (known or _is_packed(path))


def _is_packed(path: str) -> bool:
    return path.lower().endswith(ARCHIVE_ENDINGS)


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()
