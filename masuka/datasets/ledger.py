"""What was taken into a set from where, a line each: an import that was broken off goes on.

It lies in the set's folder and outlives its jobs, so a file that was taken before is known
by its own hash, even where what is stored of it has another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from masuka.datasets.keeping import thumbnail_of

NAME = "imports.jsonl"


class Ledger:
    """One job's lines, and what earlier ones say; `earlier` is by the file's key."""

    def __init__(self, folder: Path, token: str) -> None:
        self._file = folder / NAME
        self._token = token
        self._lines = list(_lines(self._file))
        # A kill may have left half a line; it must not take the next one along.
        self._before = b"\n" if _is_torn(self._file) else b""
        of_job = [line for line in self._lines if line["job"] == token] if token else []
        self.earlier: dict[str, dict[str, Any]] = {line["key"]: line for line in of_job if line["key"]}

    def sources_of(self, stored: Iterable[str]) -> set[str]:
        """The hashes of the files from which these pictures were made, as they came."""
        wanted = set(stored)
        return {line["source"] for line in self._lines if line.get("sha256") in wanted and line["source"]}

    def add(self, *, key: str, what: str, source: str = "", sha256: str = "", **about: Any) -> None:
        """Notes one file: `what` is added, duplicate or refused."""
        line = {"job": self._token, "key": key, "what": what, "source": source, "sha256": sha256, **about}
        with self._file.open("ab") as file:
            file.write(self._before + json.dumps(line).encode() + b"\n")
        self._before = b""


def rows_of_added(folder: Path) -> list[dict[str, Any]]:
    """What every import noted of the pictures that it added and that are still there."""
    added = [line for line in _lines(folder / NAME) if line["what"] == "added" and line.get("row")]
    return [line["row"] for line in added if thumbnail_of(folder / line["sha256"][:16]).is_file()]


def _is_torn(file: Path) -> bool:
    return file.is_file() and file.read_bytes()[-1:] not in (b"", b"\n")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; what a kill or a full disk left of one is passed over."""
    if not file.is_file():
        return
    for line in file.read_bytes().split(b"\n"):
        try:
            about = json.loads(line)
        except ValueError:
            continue
        if isinstance(about, dict) and {"job", "key", "what", "source", "sha256"} <= set(about):
            yield about
