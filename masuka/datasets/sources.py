"""What files, folders and archives offer: pictures to take, each with its caption, in order.

Looks at names and side-cars only; the pictures themselves are read one at a time, later.
Every file that claims to be a picture is offered or refused; other files are only counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath

from masuka.datasets.archives import Archive, Member
from masuka.datasets.decoding import LARGEST_BYTES
from masuka.datasets.layouts import aside_in, trigger_in
from masuka.datasets.reading import must_be_plain, read_file, unreadable
from masuka.datasets.sidecars import (
    CAPTION_ENDINGS,
    DATASET_NAME,
    LARGEST_CAPTION_BYTES,
    LARGEST_METADATA_BYTES,
    METADATA_NAME,
    TABLE_NAME,
    read_caption,
    read_metadata,
    read_table,
    read_trigger,
)
from masuka.datasets.tars import GZIP, TarArchive, is_tar
from masuka.errors import InvalidInput

PICTURE_ENDINGS = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif"}
    | {".heic", ".heif", ".hif", ".avif", ".mpo", ".svg", ".ico", ".psd", ".zip"}
)
"""Endings that promise a picture; in folders and archives, other files are only ignored."""
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_FILES = 50_000
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True)
class Offer:
    """One picture that may be taken; `read` gives its bytes or raises InvalidInput."""

    name: str
    read: Callable[[], bytes]
    caption: str | None = None
    trigger_word: str = ""
    """The trigger word of the set that the caption was written for, where that is known."""
    path: Path | None = None
    """Where the file lies, if it is one of its own; another process may read it then."""
    key: str = ""
    """Which file this is, as long as it is not changed."""


@dataclass
class Offers:
    """Everything that the sources hold; close it when the pictures are read."""

    pictures: list[Offer] = field(default_factory=list)
    refused: list[tuple[str, InvalidInput]] = field(default_factory=list)
    ignored: int = 0
    files: list[Path] = field(default_factory=list)
    """The files on disk that were looked at, for a caller who wants them gone."""
    _archives: list[Archive | TarArchive] = field(default_factory=list)

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
    path: Path | None = None
    mark: str = ""
    """Tells an archive's members from each other, and from those of a changed archive."""
    named: bool = False
    """Somebody asked for this very file, so it is never just ignored."""


def find(
    sources: Iterable[str | Path], check: Callable[[], None] = lambda: None, *, scratch: Path | None = None
) -> Offers:
    """The pictures in files, folders with sub-folders and archives, naturally sorted.

    A caption is looked for beside each picture: `.txt`, then `.caption`, then
    `metadata.jsonl`, then `metadata.csv`. Files that were named one by one are matched by
    name as well, wherever they lie, for a browser puts each upload into a folder of its
    own. Compressed archives are unpacked in `scratch`.
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
            _offer_folder(source, offers, check, scratch)
        elif kind == "archive":
            _offer_archive(source, offers, check, scratch)
        else:
            offers.files.append(source)
            named.append(
                _File(source.as_posix(), source.name, partial(read_file, source), source, named=True)
            )
            beside.update(_sidecars_beside(source))
    others = [replace(file, key=file.name) for file in named]
    elsewhere = _captions(others, Offers(), check)
    _offer([*named, *beside.values()], offers, check, elsewhere)
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
        if source.is_dir():
            return "folder"
        must_be_plain(source)
        with source.open("rb") as file:
            beginning = file.read(512)
    except FileNotFoundError:
        raise InvalidInput("There is no such file or folder.", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    packed = beginning.startswith(GZIP) and source.name.lower().endswith(ARCHIVE_ENDINGS)
    zipped = beginning[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    return "archive" if zipped or packed or is_tar(beginning) else "file"


def _sidecars_beside(picture: Path) -> Iterator[tuple[Path, _File]]:
    stems = {picture.stem, picture.name}
    for name in (METADATA_NAME, TABLE_NAME, *(stem + ending for stem in stems for ending in CAPTION_ENDINGS)):
        path = picture.with_name(name)
        if path != picture and path.is_file():
            yield path, _File(path.as_posix(), name, partial(read_file, path))


def _offer_folder(folder: Path, offers: Offers, check: Callable[[], None], scratch: Path | None) -> None:
    files: list[_File] = []
    archives: list[Path] = []

    def failed(error: OSError) -> None:
        offers.refused.append((Path(error.filename or folder).name, unreadable(error)))

    # Linked files are followed (model caches are made of them), linked folders are not.
    for where, folders, names in os.walk(folder, onerror=failed):
        check()
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for path in (Path(where, name) for name in sorted(names, key=natural_key)):
            if path.name.lower().endswith(ARCHIVE_ENDINGS) and _is_archive(path):
                archives.append(path)
                continue
            key = path.relative_to(folder).as_posix()
            files.append(_File(key, key, partial(read_file, path), path))
            offers.files.append(path)
        if len(files) > MOST_FILES:
            hint = "Choose the folder with the pictures, or split it."
            offers.refused.append(
                (folder.name, InvalidInput(f"The folder holds more than {MOST_FILES:,} files.", hint))
            )
            return
    if not files and not archives:
        offers.refused.append((folder.name, InvalidInput("The folder is empty.", "Choose another one.")))
    _offer(files, offers, check)
    for path in archives:
        _offer_archive(path, offers, check, scratch)


def _is_archive(path: Path) -> bool:
    try:
        return _kind(path) == "archive"
    except InvalidInput:
        return False  # refused with its reason when it is read as a picture


def _offer_archive(path: Path, offers: Offers, check: Callable[[], None], scratch: Path | None) -> None:
    offers.files.append(path)
    try:
        archive = _opened(path, check, scratch)
    except InvalidInput as error:
        offers.refused.append((path.name, error))
        return
    offers._archives.append(archive)

    def reader(member: Member) -> Callable[[int], bytes]:
        return lambda limit: archive.read(member, limit)

    files = []
    mark = _mark_of(path)
    for number, member in enumerate(archive.members):
        if member.name.startswith("__MACOSX/"):
            offers.ignored += 1
        elif member.refusal is not None:
            offers.refused.append((member.name, member.refusal))
        else:
            files.append(_File(member.name, member.name, reader(member), mark=f"{mark}|{number}"))
    _offer(files, offers, check)
    if not archive.members:
        offers.refused.append((path.name, InvalidInput("The archive is empty.", "Choose another one.")))


def _opened(path: Path, check: Callable[[], None], scratch: Path | None) -> Archive | TarArchive:
    with path.open("rb") as file:
        beginning = file.read(512)
    if beginning.startswith(GZIP) or is_tar(beginning):
        return TarArchive(path, scratch, check)
    return Archive(path)


def _mark_of(path: Path) -> str:
    """Another text for another file, and for the same one when it was changed; '' where there is none."""
    try:
        about = path.stat()
    except OSError:
        return ""
    return f"{path}|{about.st_size}|{about.st_mtime_ns}"


def _offer(
    files: list[_File],
    offers: Offers,
    check: Callable[[], None],
    elsewhere: Mapping[str, str] | None = None,
) -> None:
    captions = {**(elsewhere or {}), **_captions(files, offers, check)}
    trigger_word = _trigger_word(files, offers)
    aside = aside_in(file.key for file in files)
    for file in sorted(files, key=lambda f: natural_key(f.key)):
        ending = PurePosixPath(file.name).suffix.lower()
        base = PurePosixPath(file.name).name.lower()
        if ending in CAPTION_ENDINGS or base in (METADATA_NAME, TABLE_NAME, DATASET_NAME):
            continue
        unwanted = ending not in PICTURE_ENDINGS or base.startswith("._") or file.key.startswith(aside)
        if not file.named and unwanted:
            offers.ignored += 1
            continue
        keys = (_stem(file.key), file.key, _stem(file.name), file.name)
        offers.pictures.append(
            Offer(
                file.name,
                partial(file.read, LARGEST_BYTES),
                next((captions[key] for key in keys if key in captions), None),
                trigger_word or trigger_in(file.key),
                file.path,
                file.mark or (_mark_of(file.path) if file.path else ""),
            )
        )


def _captions(files: list[_File], offers: Offers, check: Callable[[], None]) -> dict[str, str]:
    """Captions by a picture's whole key or by its key without the ending."""
    found: dict[str, str] = {}
    tables = {METADATA_NAME: read_metadata, TABLE_NAME: read_table}
    for file in sorted(files, key=_worth):
        key = PurePosixPath(file.key)
        try:
            if key.name.lower() in tables:
                rows, problems = tables[key.name.lower()](file.read(LARGEST_METADATA_BYTES))
                found.update({(key.parent / row).as_posix(): text for row, text in rows.items()})
                offers.refused.extend((file.name, problem) for problem in problems)
            elif key.suffix.lower() in CAPTION_ENDINGS:
                check()
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


def _worth(file: _File) -> tuple[int, str]:
    """Where it stands as captions overwrite each other: the best one last."""
    path = PurePosixPath(file.key)
    ending = path.suffix.lower()
    worth = len(CAPTION_ENDINGS) - CAPTION_ENDINGS.index(ending) if ending in CAPTION_ENDINGS else 0
    return (worth if path.name.lower() != TABLE_NAME else -1), file.key


def _stem(key: str) -> str:
    path = PurePosixPath(key)
    return (path.parent / path.stem).as_posix()
