"""Where files that a browser sends are put, until a job has taken them in."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from masuka.errors import InvalidInput, OutOfDisk
from masuka.requests.intake import SENT
from masuka.requests.text import clean_filename
from masuka.studio import Studio
from masuka.ui.cards import UNFINISHED

LARGEST_BYTES = 2 * 2**30
"""Of one file; a picture's own, smaller limit is the intake's to enforce."""
LARGEST_MODEL_BYTES = 32 * 2**30
"""Of a base as a single file; those that people exchange have 2 to 24 GB."""
MOST_FILES = 20_000
DEEPEST = 8
"""Folders inside each other, of a folder that was dropped whole."""
STALE_S = 24 * 3600
ROOM_LEFT_BYTES = 2**30
"""No upload and no download fills the disk further."""
OUTGOING = "outgoing"
"""Where files are made that are sent once."""
_ASKED = (
    "import_pictures", "import_links", "import_hub", "sample_pictures", "export_dataset", "push_dataset",
    "edit_adapter", "import_base",
)  # fmt: skip
"""Jobs that find among the uploads what they are about."""
_NOT_DONE = (*UNFINISHED, "failed", "cancelled")


def batch_folder(studio: Studio, batch: str) -> Path:
    """The folder of one person's upload; raises InvalidInput for a name that is none."""
    if not (len(batch) == 24 and all(c in "0123456789abcdef" for c in batch)):
        raise InvalidInput("This upload is unknown.", "Choose the files again.")
    return studio.workspace.uploads / f"{studio.actor.user_id}-{batch}"


async def receive(
    studio: Studio, batch: str, index: int, name: str, body: AsyncIterator[bytes], *, folder: str = ""
) -> Path:
    """The stored file; what was begun is removed when it does not arrive whole.

    `folder` is where it lay in a folder that was dropped whole. Raises InvalidInput when
    the file is too large, OutOfDisk when the disk would fill up.
    """
    studio.actor.must_edit()
    if not 0 <= index < MOST_FILES:
        raise InvalidInput(
            f"One upload holds at most {MOST_FILES:,} files.", "Send the rest in a second one."
        )
    within = batch_folder(studio, batch)
    file = _free(within, clean_filename(name), [clean_filename(part) for part in folder.split("/") if part])
    size, largest = 0, LARGEST_MODEL_BYTES if file.suffix == ".safetensors" else LARGEST_BYTES
    try:
        with file.open("wb") as out:
            async for chunk in body:
                size += len(chunk)
                if size > largest:
                    raise InvalidInput(
                        f"The file is larger than {largest // 2**30} GiB.", "Split it, or put it on the machine."
                    )
                if shutil.disk_usage(within).free < ROOM_LEFT_BYTES:
                    raise OutOfDisk("The disk is nearly full.", "Free some space and try again.")
                out.write(chunk)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return file


def _free(batch: Path, name: str, parts: list[str]) -> Path:
    """A place of its own for the file, whose folder is there; two of a name lie apart.

    Files that were sent one by one lie beside each other, so that a caption finds its
    picture by its name.
    """
    if len(parts) > DEEPEST:
        raise InvalidInput(
            f"The folders lie more than {DEEPEST} deep.", "Choose the one with the pictures in it."
        )
    for number in itertools.count(1):
        file = batch.joinpath(f"{SENT}{number}", *parts, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch()
            return file
    raise AssertionError("there is always a further number")


def sweep(studio: Studio) -> int:
    """How many uploads were forgotten because nobody took them in for a day.

    One that a job names stays until that job is done: what failed can be tried again. To be
    called at the start: what was being sent before is deleted.
    """
    uploads = studio.workspace.uploads
    if (uploads / OUTGOING).exists():
        shutil.rmtree(uploads / OUTGOING)
    old = [f for f in uploads.iterdir() if f.is_dir() and time.time() - f.stat().st_mtime > STALE_S]
    needed = _needed(studio) if old else frozenset()
    forgotten = [f for f in old if f.resolve() not in needed or not any(p.is_file() for p in f.rglob("*"))]
    for folder in forgotten:
        shutil.rmtree(folder, ignore_errors=True)
    return len(forgotten)


def _needed(studio: Studio) -> frozenset[Path]:
    """The sources of every import that is not done, and what was written down for such jobs."""
    found: set[Path] = set()
    for kind in _ASKED:
        last: int | None = None
        while page := studio.jobs.list(kind=kind, states=_NOT_DONE, before_id=last, limit=200):
            for params in (job.params for job in page):
                for given in (*params.get("sources", []), *filter(None, [params.get("asked")])):
                    source = Path(given).resolve()
                    found.update((source, *source.parents))
            last = page[-1].id
    return frozenset(found)
