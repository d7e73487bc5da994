"""The files of one attempt at a job, and how its leavings are swept up.

jobs/<id>/<fence>.jsonl   events, written by the worker only
jobs/<id>/<fence>.stop    'cancel' or 'pause', written when somebody asks
jobs/<id>/scratch-<fence> the attempt's own folder
jobs/<id>/log.txt         what the worker and its libraries print; log.old.txt before it
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from masuka.logs import redact

LOG_BYTES = 4 * 1024 * 1024
"""A log longer than this is put aside; with the one before it, a job keeps twice as much."""


@dataclass(frozen=True)
class AttemptFiles:
    """Where attempt `fence` of the job in `folder` keeps its files."""

    folder: Path
    fence: int

    @property
    def events(self) -> Path:
        return self.folder / f"{self.fence}.jsonl"

    @property
    def stop(self) -> Path:
        return self.folder / f"{self.fence}.stop"

    @property
    def scratch(self) -> Path:
        return self.folder / f"scratch-{self.fence}"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def prepare(self) -> AttemptFiles:
        """The same, with the folder there and nothing left of an earlier attempt.

        The number of a job can come again when an older database was restored; then the
        whole folder is somebody else's.
        """
        if self.fence == 1:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.sweep()
        return self

    def ask(self, why: str) -> None:
        """Tells the worker to stop; `why` is 'cancel' or 'pause'."""
        if self.folder.is_dir() and stop_reason(self.stop) != why:
            new = self.stop.with_suffix(".asked")
            new.write_text(why)
            new.replace(self.stop)

    def sweep(self) -> None:
        """Deletes all that attempts leave behind except the log."""
        self.sweep_scratch()
        for left in self.folder.iterdir() if self.folder.is_dir() else ():
            if left.suffix in (".jsonl", ".stop", ".asked"):
                left.unlink(missing_ok=True)

    def sweep_scratch(self) -> None:
        """Deletes the scratch folders."""
        for left in self.folder.glob("scratch-*"):
            shutil.rmtree(left, ignore_errors=True)


def stop_reason(stop_file: Path) -> str | None:
    """What the flag asks for; None while there is no flag."""
    try:
        return stop_file.read_text().strip() or None
    except FileNotFoundError:
        return None


def put_aside_long_log(log: Path) -> bool:
    """Whether the log was too long and is `log.old.txt` now; a new one can begin."""
    if not log.exists() or log.stat().st_size < LOG_BYTES:
        return False
    log.replace(log.with_suffix(".old.txt"))
    return True


def log_tail(folder: Path, *, tail_bytes: int = 20_000) -> str:
    """The end of the job's log, without secrets; progress bars as they last looked."""
    log = folder / "log.txt"
    if not log.exists():
        return ""
    with log.open("rb") as file:
        start = max(0, log.stat().st_size - tail_bytes)
        file.seek(start)
        data = file.read()
    if start:
        data = data[data.find(b"\n") + 1 :]
    # A progress bar redraws its line with carriage returns: only the last one was seen.
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in data.decode(errors="replace").split("\n"))
    return redact("\n".join(lines))
