"""Files of a hub repository, fetched so that any of it may stop at any byte and go on there.

The hub's own `snapshot_download` moves bytes in threads and native code that no callback
can stop, and from huggingface_hub 2.4 on starts a broken-off file from its first byte;
the files here have ten gigabytes. Tokens and addresses are left to the hub's client.
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from masuka.errors import AccessDenied, DownloadFailed, MasukaError, OutOfDisk, RemoteUnavailable

PIECE_BYTES = 2**20
TRIES = 6
TIMEOUT_S = 10.0
_OFFLINE = {"TransportError", "OfflineModeIsEnabled", "LocalEntryNotFoundError"}


@dataclass(frozen=True)
class RemoteFile:
    """One file; small ones are kept in git and have a `git_id` instead of `sha256`.

    `to` is where it is put when that is not its own path.
    """

    path: str
    size: int
    sha256: str
    git_id: str
    to: str = ""

    @property
    def place(self) -> str:
        """Its path in the folder that it is put into."""
        return self.to or self.path


@dataclass(frozen=True)
class Plan:
    """What is to be fetched: one commit's files; `licence` is the hub's word for it."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]
    endpoint: str | None = None
    repo_type: str = "model"
    licence: str = ""
    gated: bool = False

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


Tell = Callable[[int], None]
"""Told how many bytes of the file are here, at least every ten seconds; may raise to stop."""


def plan(
    repo: str,
    revision: str | None,
    patterns: Sequence[str],
    *,
    endpoint: str | None = None,
    repo_type: str = "model",
    token: str | None = None,
) -> Plan:
    """The files of the repository that match; raises ExternalErrors.

    Without a `token` the environment's is used, which a worker has.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    try:
        info: Any = HfApi(endpoint=endpoint, token=token).repo_info(
            repo, revision=revision, repo_type=repo_type, files_metadata=True, timeout=TIMEOUT_S
        )
    except Exception as error:  # the client's own errors, which differ by version
        raise as_masuka_error(error, repo, repo_type) from error
    listed = {sibling.rfilename: sibling for sibling in info.siblings or []}
    files = [_remote(listed[name]) for name in filter_repo_objects(listed, allow_patterns=list(patterns))]
    if not files or not info.sha:
        raise DownloadFailed(f"{repo} holds no files of the kind that is needed.", "Update MASUKA.")
    tags = [str(tag) for tag in getattr(info, "tags", None) or []]
    licence = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")
    gated = bool(getattr(info, "gated", False))
    return Plan(repo, info.sha, tuple(files), endpoint, repo_type, licence, gated)


def fetch_file(wanted: Plan, file: RemoteFile, folder: Path, tell: Tell) -> None:
    """Puts the file, checked by its hash, into the folder; goes on with a part.

    Raises DownloadFailed for other contents than listed, RemoteUnavailable after six
    tries that brought nothing, OutOfDisk, AccessDenied.
    """
    target = folder / file.place
    if not target.resolve().is_relative_to(folder.resolve()):
        raise DownloadFailed(f"{wanted.repo} lists a file outside its folder.", "Do not use this model.")
    if target.is_file() and target.stat().st_size == file.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(folder, file)
    tries, before = 0, -1
    while (here := size_of(part)) != file.size or not part.exists():
        tries = tries + 1 if here == before else 1
        before = here
        try:
            _stream(wanted, file, part, tell)
        except MasukaError:
            raise
        except Exception as error:  # the client's own errors, which differ by version
            made = as_masuka_error(error, wanted.repo, wanted.repo_type)
            if tries >= TRIES or not isinstance(made, RemoteUnavailable):
                raise made from error
            _wait(2.0**tries / 2, lambda: tell(size_of(part)))
    if not _is_what_was_listed(part, file):
        part.unlink()
        raise DownloadFailed(f"{file.path} arrived damaged.", "Try again.")
    part.replace(target)


def read_small(wanted: Plan, path: str, *, first: int = 0, token: str | None = None) -> bytes:
    """The contents of a small file of the plan's commit; raises ExternalErrors.

    With `first` only so many bytes are read, of a file of any size.
    """
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    url = hf_hub_url(
        wanted.repo, path, repo_type=wanted.repo_type, revision=wanted.commit, endpoint=wanted.endpoint
    )
    headers = {**build_hf_headers(token=token), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes=0-{first - 1}"} if first else {}
    try:
        with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
            if response.status_code >= 400:
                response.read()
                hf_raise_for_status(response)
            data = b""
            for piece in response.iter_bytes():
                data += piece
                if first and len(data) >= first:
                    return data[:first]
                if len(data) > PIECE_BYTES:
                    raise DownloadFailed(f"{path} of {wanted.repo} is far too large.", "Do not use this model.")
            return data
    except MasukaError:
        raise
    except Exception as error:  # the client's own errors, which differ by version
        raise as_masuka_error(error, wanted.repo, wanted.repo_type) from error


def part_of(folder: Path, file: RemoteFile) -> Path:
    """Where the file grows; another version of it grows elsewhere."""
    return folder / f"{file.place}.{(file.sha256 or file.git_id)[:12]}.part"


def size_of(file: Path) -> int:
    """The file's bytes, 0 when it is not there."""
    return file.stat().st_size if file.is_file() else 0


def as_masuka_error(error: BaseException, repo: str, repo_type: str = "model") -> MasukaError:
    """The sentence for an error of the hub's client, told by its class name."""
    names = {kind.__name__ for seen in _chain(error) for kind in type(seen).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", 0)
    page = f"https://huggingface.co/{'' if repo_type == 'model' else 'datasets/'}{repo}"
    if "GatedRepoError" in names or status == 403:
        return AccessDenied(
            f"{repo} asks everybody to accept its licence first.",
            f"Open {page}, accept it, and enter your Hugging Face token in Settings.",
        )
    if "RevisionNotFoundError" in names and repo_type != "model":
        return DownloadFailed(f"There is no such version of {repo}.", f"Look which ones {page} has.")
    if "RevisionNotFoundError" in names:
        return DownloadFailed(f"The version of {repo} that MASUKA knows is gone.", "Update MASUKA.")
    if "RepositoryNotFoundError" in names or status == 401:
        return AccessDenied(
            f"Hugging Face does not show {repo} to you.",
            f"Enter a valid Hugging Face token in Settings, and look whether {page} opens.",
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return OutOfDisk(
            "The disk is full; the download is half there.", "Make room and try again: it goes on."
        )
    if names & _OFFLINE or status == 429 or status >= 500:
        return RemoteUnavailable("Hugging Face cannot be reached.", "Try again later: it goes on.")
    return DownloadFailed(f"{repo} did not arrive: {type(error).__name__}.", "Try again: it goes on.")


def _remote(sibling: Any) -> RemoteFile:
    sha256 = "" if sibling.lfs is None else str(sibling.lfs.sha256)
    return RemoteFile(sibling.rfilename, int(sibling.size or 0), sha256, str(sibling.blob_id or ""))


def _stream(wanted: Plan, file: RemoteFile, part: Path, tell: Tell) -> None:
    """Appends what is missing to the part, from its end on."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    if size_of(part) > file.size:
        part.unlink()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if size_of(part):
        headers["Range"] = f"bytes={size_of(part)}-"
    url = hf_hub_url(
        wanted.repo,
        file.path,
        repo_type=wanted.repo_type,
        revision=wanted.commit,
        endpoint=wanted.endpoint,
    )
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT_S) as response:
        if response.status_code == 416:
            part.unlink()
            return
        if response.status_code >= 400:
            response.read()
            hf_raise_for_status(response)
        with part.open("ab" if response.status_code == 206 else "wb") as stream:
            for piece in response.iter_bytes(PIECE_BYTES):
                stream.write(piece)
                tell(stream.tell())
                if stream.tell() > file.size:
                    raise DownloadFailed(f"{file.path} is larger than listed.", "Try again.")


def _is_what_was_listed(part: Path, file: RemoteFile) -> bool:
    with part.open("rb") as stream:
        if file.sha256:
            return _digest(hashlib.sha256(), stream) == file.sha256
        git = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        return not file.git_id or _digest(git, stream) == file.git_id


def _digest(digest: Any, stream: IO[bytes]) -> str:
    while piece := stream.read(PIECE_BYTES):
        digest.update(piece)
    return str(digest.hexdigest())


def _wait(seconds: float, tell: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tell()
        time.sleep(0.1)


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and what it was raised from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found
