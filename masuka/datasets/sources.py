"""What files, folders and archives offer: pictures to take, each with its caption, in order.

Looks at names and side-cars only; the pictures themselves are read one at a time, later.
Every file that claims to be a picture is offered or refused; other files are only counted.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from masuka.datasets.archives import Archive, Member
from masuka.datasets.decoding import LARGEST_BYTES, too_many_bytes
from masuka.datasets.sidecars import (
    CAPTION_ENDINGS,
    DATASET_NAME,
    LARGEST_CAPTION_BYTES,
    LARGEST_METADATA_BYTES,
    METADATA_NAME,
    read_caption,
    read_metadata,
    read_trigger,
)
from masuka.errors import InvalidInput

PICTURE_ENDINGS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".heic", ".heif", ".avif", ".svg", ".ico", ".psd", ".zip"}
)
"""Endings that promise a picture; in folders and archives, other files are only ignored."""
MOST_FILES = 20_000
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Offer:
    """One picture that may be taken; `read` gives its bytes or raises InvalidInput."""

    name: str
    read: Callable[[], bytes]
    caption: str | None = None
    trigger_word: str = ""
    """The trigger word of the set that the caption was written for, where that is known."""


@dataclass
class Offers:
    """Everything that the sources hold; close it when the pictures are read."""

    pictures: list[Offer] = field(default_factory=list)
    refused: list[tuple[str, InvalidInput]] = field(default_factory=list)
    ignored: int = 0
    files: list[Path] = field(default_factory=list)
    """The files on disk that were looked at, for a caller who wants them gone."""
    _archives: list[Archive] = field(default_factory=list)

    def close(self) -> None:
        """Closes the archives; their pictures cannot be read any more."""
        for archive in self._archives:
            archive.close()


@dataclass(frozen=True)
class _File:
    """A file somewhere; side-cars know it by `key`, people by `name`."""

    key: str
    name: str
    read: Callable[[int], bytes]
    named: bool = False
    """Somebody asked for this very file, so it is never just ignored."""


def find(sources: Iterable[str | Path], check: Callable[[], None] = lambda: None) -> Offers:
    """The pictures in files, folders with sub-folders and zips, naturally sorted.

    A caption is looked for beside each picture: `.txt`, then `.caption`, then
    `metadata.jsonl`. Files that were named one by one are matched by name as well,
    wherever they lie, for a browser puts each upload into a folder of its own.
    """
    offers = Offers()
    named: list[_File] = []
    beside: dict[Path, _File] = {}
    for source in (Path(s) for s in sources):
        check()
        try:
            kind = _kind(source)
        except InvalidInput as error:
            offers.refused.append((source.name, error))
            continue
        if kind == "folder":
            _offer_folder(source, offers, check)
        elif kind == "archive":
            _offer_archive(source, offers)
        else:
            offers.files.append(source)
            named.append(_File(source.as_posix(), source.name, partial(_read_file, source), named=True))
            beside.update(_sidecars_beside(source))
    others = [replace(file, key=file.name) for file in named]
    elsewhere = _captions(others, Offers())
    _offer([*named, *beside.values()], offers, elsewhere)
    return offers


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key in which img2 comes before img10."""
    parts = _NUMBER.split(name.casefold())
    return tuple(
        (1, len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, 0, part)
        for i, part in enumerate(parts)
    )


def _kind(source: Path) -> str:
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            return "folder"
        if not stat.S_ISREG(mode):
            raise InvalidInput("It is no file but a device or a pipe.", "Add picture files.")
        with source.open("rb") as file:
            return "archive" if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06") else "file"
    except FileNotFoundError:
        raise InvalidInput("There is no such file or folder.", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise _unreadable(error) from error


def _read_file(path: Path, limit: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput("It is no file but a device or a pipe.", "Add picture files.")
        with path.open("rb") as file:
            data = file.read(limit + 1)
            if len(data) > limit:
                raise too_many_bytes(max(len(data), path.stat().st_size), limit)
            return data
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> InvalidInput:
    if isinstance(error, ValueError):  # worded differently by each Python
        return InvalidInput("Its name holds a null character.", "Rename the file.")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InvalidInput(f"It could not be read: {reason}.", "Check the file and its permissions.")


def _sidecars_beside(picture: Path) -> Iterator[tuple[Path, _File]]:
    stems = {picture.stem, picture.name}
    for name in (METADATA_NAME, *(stem + ending for stem in stems for ending in CAPTION_ENDINGS)):
        path = picture.with_name(name)
        if path != picture and path.is_file():
            yield path, _File(path.as_posix(), name, partial(_read_file, path))


def _offer_folder(folder: Path, offers: Offers, check: Callable[[], None]) -> None:
    files: list[_File] = []

    def failed(error: OSError) -> None:
        offers.refused.append((Path(error.filename or folder).name, _unreadable(error)))

    # Linked files are followed (model caches are made of them), linked folders are not.
    for where, folders, names in os.walk(folder, onerror=failed):
        check()
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for path in (Path(where, name) for name in names):
            key = path.relative_to(folder).as_posix()
            files.append(_File(key, key, partial(_read_file, path)))
            offers.files.append(path)
        if len(files) > MOST_FILES:
            hint = "Choose the folder with the pictures, or split it."
            offers.refused.append(
                (folder.name, InvalidInput(f"The folder holds more than {MOST_FILES:,} files.", hint))
            )
            return
    if not files:
        offers.refused.append((folder.name, InvalidInput("The folder is empty.", "Choose another one.")))
    _offer(files, offers)


def _offer_archive(path: Path, offers: Offers) -> None:
    offers.files.append(path)
    try:
        archive = Archive(path)
    except InvalidInput as error:
        offers.refused.append((path.name, error))
        return
    offers._archives.append(archive)

    def reader(member: Member) -> Callable[[int], bytes]:
        return lambda limit: archive.read(member, limit)

    files = []
    for member in archive.members:
        if member.name.startswith("__MACOSX/"):
            offers.ignored += 1
        elif member.refusal is not None:
            offers.refused.append((member.name, member.refusal))
        else:
            files.append(_File(member.name, member.name, reader(member)))
    _offer(files, offers)
    if not archive.members:
        offers.refused.append((path.name, InvalidInput("The archive is empty.", "Choose another one.")))


def _offer(files: list[_File], offers: Offers, elsewhere: Mapping[str, str] | None = None) -> None:
    captions = {**(elsewhere or {}), **_captions(files, offers)}
    trigger_word = _trigger_word(files, offers)
    for file in sorted(files, key=lambda f: natural_key(f.key)):
        ending = PurePosixPath(file.name).suffix.lower()
        base = PurePosixPath(file.name).name.lower()
        if ending in CAPTION_ENDINGS or base in (METADATA_NAME, DATASET_NAME):
            continue
        if not file.named and (ending not in PICTURE_ENDINGS or base.startswith("._")):
            offers.ignored += 1
            continue
        keys = (_stem(file.key), file.key, _stem(file.name), file.name)
        caption = next((captions[key] for key in keys if key in captions), None)
        offers.pictures.append(Offer(file.name, partial(file.read, LARGEST_BYTES), caption, trigger_word))


def _captions(files: list[_File], offers: Offers) -> dict[str, str]:
    """Captions by a picture's whole key or by its key without the ending."""
    found: dict[str, str] = {}
    for file in sorted(files, key=_worth):
        key = PurePosixPath(file.key)
        try:
            if key.name.lower() == METADATA_NAME:
                rows, problems = read_metadata(file.read(LARGEST_METADATA_BYTES))
                found.update({(key.parent / row).as_posix(): text for row, text in rows.items()})
                offers.refused.extend((file.name, problem) for problem in problems)
            elif key.suffix.lower() in CAPTION_ENDINGS:
                found[_stem(file.key)] = read_caption(file.read(LARGEST_CAPTION_BYTES))
        except InvalidInput as error:
            offers.refused.append((file.name, error))
    return found


def _trigger_word(files: list[_File], offers: Offers) -> str:
    """The trigger word out of an exported set's dataset.json, '' without one."""
    for file in files:
        if file.key == DATASET_NAME:
            try:
                return read_trigger(file.read(LARGEST_METADATA_BYTES))
            except InvalidInput as error:
                offers.refused.append((file.name, error))
    return ""


def _worth(file: _File) -> int:
    """Where it stands as captions overwrite each other: the best one last."""
    ending = PurePosixPath(file.key).suffix.lower()
    return len(CAPTION_ENDINGS) - CAPTION_ENDINGS.index(ending) if ending in CAPTION_ENDINGS else 0


def _stem(key: str) -> str:
    path = PurePosixPath(key)
    return (path.parent / path.stem).as_posix()
