"""A data set for other programs: one zip in a layout that they read, and the job that makes it.

What is handed out is what is trained on: edited pictures as their recipes say, without
those that were set aside (whoever calls leaves them out). Pictures go through one by one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from masuka.datasets import DatasetRow, PictureRow, Resolve, masks, rendered
from masuka.datasets.edits import Recipe
from masuka.errors import InvalidInput, NotFound
from masuka.jobs.reporter import Reporter
from masuka.requests.text import clean_filename

FORMAT = 1
REPEATS = 10
"""How often kohya's trainers take each picture an epoch, as their folder's name says."""
_MOMENT = (1980, 1, 1, 0, 0, 0)  # the same set gives the same bytes


@dataclass(frozen=True)
class Entry:
    """One picture to hand out; `edits` is its recipe, {} for none."""

    file: str
    original_name: str
    caption: str
    sha256: str
    width: int
    height: int
    edits: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class About:
    """What is said of the set as a whole."""

    name: str
    trigger_word: str
    class_word: str
    caption_template: str


@dataclass(frozen=True)
class Packed:
    """One picture as it goes out: its name, bytes and what is true of those bytes."""

    name: str
    data: bytes
    entry: Entry


def about_of(dataset: DatasetRow) -> About:
    """What is handed out of the data set itself."""
    return About(dataset.name, dataset.trigger_word, dataset.class_word, dataset.caption_template)


def entries_of(pictures: Sequence[PictureRow], resolve: Resolve) -> list[Entry]:
    """The pictures with absolute paths."""
    return [
        Entry(
            str(resolve(p.file)), p.original_name, p.caption, p.sha256, p.width, p.height,
            dict(getattr(p, "edits", {})),
        )
        for p in pictures
    ]  # fmt: skip


def export(
    dataset: DatasetRow, pictures: Sequence[PictureRow], *, to: Path, resolve: Resolve, layout: str = "zip"
) -> Path:
    """The zip at `to` with every picture and its caption, in that layout.

    It appears under its name only when it is whole. Raises NotFound for a picture whose
    file is gone.
    """
    return write(about_of(dataset), entries_of(pictures, resolve), to=to, layout=layout)


def write(
    about: About,
    entries: Sequence[Entry],
    *,
    to: Path,
    layout: str = "zip",
    tell: Callable[[int], None] = lambda number: None,
) -> Path:
    """The same; `tell` hears how many pictures are in, and may raise."""
    to.parent.mkdir(parents=True, exist_ok=True)
    part = to.with_name(f".{to.name}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, data in LAYOUTS[layout](about, packed(entries, tell)):
                archive.writestr(zipfile.ZipInfo(name, _MOMENT), data)
        part.replace(to)
    finally:
        part.unlink(missing_ok=True)
    return to


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The job: a zip at `to`; older ones of the same set beside it go.

    Returns {file, pictures, bytes}. Raises NotFound for a picture whose file is gone.
    """
    to, entries = Path(params["to"]), entries_in(params)
    reporter.stage("Packing pictures")

    def tell(number: int) -> None:
        reporter.check()
        reporter.progress(number, len(entries))

    write(About(**params["about"]), entries, to=to, layout=params["layout"], tell=tell)
    for older in to.parent.glob("*.zip"):
        if older != to:
            older.unlink(missing_ok=True)
    forget_asked(params)
    return {"file": str(to), "pictures": len(entries), "bytes": to.stat().st_size}


def entries_in(params: dict[str, Any]) -> list[Entry]:
    """The pictures that the studio wrote down for a job; raises NotFound."""
    try:
        with Path(params["rows"]).open(encoding="utf-8") as lines:
            return [Entry(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        raise NotFound(
            "It is not known any more which pictures this was about.", "Ask for it once more."
        ) from None


def forget_asked(params: dict[str, Any]) -> None:
    """Deletes what the studio wrote down for this job; it is done."""
    if params.get("asked"):
        shutil.rmtree(params["asked"], ignore_errors=True)


def packed(entries: Sequence[Entry], tell: Callable[[int], None] = lambda number: None) -> Iterator[Packed]:
    """Each picture as it goes out, under a name of its own."""
    for number, (entry, name) in enumerate(zip(entries, file_names(entries), strict=True), start=1):
        yield _packed(entry, name)
        tell(number)


def imagefolder(about: About, pictures: Iterator[Packed]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the pictures and a metadata.jsonl with their captions."""
    lines = []
    for picture in pictures:
        yield picture.name, picture.data
        lines.append(
            json.dumps({"file_name": picture.name, "text": picture.entry.caption}, ensure_ascii=False)
        )
    yield "metadata.jsonl", "".join(f"{line}\n" for line in lines).encode()


def _beside(about: About, pictures: Iterator[Packed]) -> Iterator[tuple[str, bytes]]:
    """Pictures, each with its caption beside it, and what this program knows of them."""
    known = []
    for picture in pictures:
        yield picture.name, picture.data
        yield _caption_name(picture.name), picture.entry.caption.encode()
        row = asdict(picture.entry)
        known.append({"file": picture.name, **{k: row[k] for k in _TOLD}})
    told = {"format": FORMAT, **asdict(about), "pictures": known}
    yield "dataset.json", json.dumps(told, indent=1, ensure_ascii=False).encode()


def _kohya(about: About, pictures: Iterator[Packed]) -> Iterator[tuple[str, bytes]]:
    """The same in a folder that says how often, and by which words, they are learnt."""
    folder = clean_filename(f"{REPEATS}_{about.trigger_word} {about.class_word}")
    for picture in pictures:
        yield f"{folder}/{picture.name}", picture.data
        yield f"{folder}/{_caption_name(picture.name)}", picture.entry.caption.encode()


LAYOUTS: dict[str, Callable[[About, Iterator[Packed]], Iterator[tuple[str, bytes]]]] = {
    "zip": _beside,
    "kohya": _kohya,
    "imagefolder": imagefolder,
}
_TOLD = ("caption", "original_name", "sha256", "width", "height")


def file_names(pictures: Sequence[PictureRow | Entry]) -> list[str]:
    """Each picture's name in the zip: its own, made safe, with a stem of its own.

    Case does not tell names apart on every system, so it does not here.
    """
    taken: set[str] = set()
    names = []
    numbers: dict[str, int] = {}
    for picture in pictures:
        stem = _stem(picture.original_name)
        unique, number = stem, numbers.get(stem.casefold(), 2)
        while unique.casefold() in taken:
            unique, number = f"{stem}-{number}", number + 1
        numbers[stem.casefold()] = number
        taken.add(unique.casefold())
        names.append(f"{unique}{Path(picture.file).suffix}")
    return names


def _stem(original_name: str) -> str:
    try:
        # Room for "-12345" and the ending, within 255 bytes.
        stem = Path(clean_filename(original_name)).stem.encode()[:240].decode(errors="ignore")
        return Path(clean_filename(f"{stem}.png")).stem
    except InvalidInput:
        return "picture"


def _caption_name(name: str) -> str:
    return f"{name.rpartition('.')[0]}.txt"


def _packed(entry: Entry, name: str) -> Packed:
    recipe = Recipe.from_row(entry.edits)
    if not recipe.pixels_key:
        return Packed(name, _bytes_of(entry, Path(entry.file)), entry)
    file = Path(entry.file)
    matte = None
    if recipe.cuts_out:
        matte = masks.file_of("mattes", file.parent, entry.sha256, recipe.matte_sha256)
    made = rendered.make(
        rendered.file_of(file.parent, entry.sha256, recipe, file.suffix), file, recipe, matte=matte
    )
    data = _bytes_of(entry, made)
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    about = Entry(
        entry.file, entry.original_name, entry.caption, hashlib.sha256(data).hexdigest(), width, height
    )
    return Packed(f"{name.rpartition('.')[0]}{made.suffix}", data, about)


def _bytes_of(entry: Entry, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise NotFound(
            f"The file of the picture {entry.original_name} is gone.",
            "Delete the picture from the set, or put the file back.",
        ) from None
