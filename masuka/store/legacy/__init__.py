"""Bringing a MASUKA 2 installation over: its database is copied, the original stays.

    for path in legacy.find([drive]):
        report = legacy.import_masuka2(store, path, workspace=workspace)

Importing again adds only what is new. Nothing is dropped that can be kept: what had to
be guessed is a sentence in the report, and each old row is kept as it was beside ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from masuka.config import Workspace
from masuka.store.connect import Store
from masuka.store.legacy.files import PLACES, Files
from masuka.store.legacy.importing import FILE, Count, Import, LegacyReport
from masuka.store.legacy.keys import import_settings
from masuka.store.legacy.old import OldDatabase, file_sha256, is_masuka2, read
from masuka.store.legacy.people import (
    import_characters,
    import_datasets,
    import_pictures,
    import_users,
    old_user,
)
from masuka.store.legacy.work import import_drawings, import_trainings, outputs

__all__ = ["Count", "LegacyReport", "find", "import_masuka2", "is_masuka2", "nothing_new"]


def find(folders: Iterable[Path]) -> list[Path]:
    """Every MASUKA 2 database in the folders, or among the files, at the usual places."""
    candidates: list[Path] = []
    for folder in folders:
        candidates += [folder] if folder.is_file() else [folder / place for place in PLACES]
    return [path for path in dict.fromkeys(path.resolve() for path in candidates) if is_masuka2(path)]


def nothing_new(store: Store, path: Path, *, secret_key: str | None = None) -> bool:
    """Whether this file was imported before, and no key came that opens more of it."""
    with store.read() as conn:
        seen = conn.table("imported").count_where("fingerprint = ?", [FILE + file_sha256(path)])
        closed = conn.table("settings").count_where("needs_reentry = 1")
    return bool(seen) and not (secret_key and closed)


def import_masuka2(
    store: Store, path: Path, *, workspace: Workspace, secret_key: str | None = None
) -> LegacyReport:
    """Copies every row of an old database into the store, all or nothing.

    `secret_key` is the old SECRET_KEY, with which encrypted settings are opened.
    Raises NotFound, Locked while MASUKA 2 runs, or Damaged for what is no database.
    """
    old = read(path.resolve())
    files = Files(old.source, workspace)
    _look_ahead(old, files)
    job = Import(store, workspace, old, files)
    with store.write():
        import_users(job)
        import_datasets(job)
        import_characters(job)
        import_pictures(job)
        import_trainings(job)
        import_drawings(job)
        import_settings(job, secret_key=secret_key)
        job.note_file()
    return LegacyReport(
        source=old.source,
        sha256=old.sha256,
        counts=job.counts,
        oddities=tuple(dict.fromkeys(old.oddities)),
        enter_again=tuple(job.enter_again),
    )


def _look_ahead(old: OldDatabase, files: Files) -> None:
    """Reads every file now, so that the write lock is not held while a slow disk is read."""
    for row in old.rows["dataset_images"]:
        files.picture(row.text("filename"), old_user(old, row))
    for row in old.rows["inference_jobs"]:
        for path in outputs(row):
            files.result(path)
    for row in old.rows["characters"]:
        files.picture(row.text("input_image_path"), row.reference("user_id"))
        files.adapters(row.text("name"), row.text("work_dir"))
