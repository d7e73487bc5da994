"""A published MASUKA to clone from, and a notebook's kernel in which a Colab stands in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).parent / "stand_in"
WHO = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *WHO, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def publish(folder: Path) -> Path:
    """A bare repository with the project as it is now, tagged v0.1.0, and one change as v0.1.1."""
    work, bare = folder / "work", folder / "masuka.git"
    listed = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, work / name)
    git(work, "init", "-q")
    git(work, "add", "-A")
    git(work, "commit", "-qm", "The first")
    git(work, "tag", "v0.1.0")
    with (work / "CHANGELOG.md").open("a") as changes:
        changes.write("\n- One more.\n")
    git(work, "commit", "-qam", "The second")
    git(work, "tag", "v0.1.1")
    git(folder, "clone", "-q", "--bare", str(work), str(bare))
    return bare


class Colab:
    """One runtime: a folder, a kernel in it, and what was asked of Google."""

    def __init__(self, folder: Path, client: NotebookClient, log: Path) -> None:
        self.folder = folder
        self._client = client
        self._log = log

    def run(self, source: str) -> str:
        """What the cell printed; the sentence of its error where it fails."""
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["raises-exception"]})
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        parts = []
        for output in cell.outputs:
            if output.output_type == "error":
                parts.append("\n".join(output.traceback))
            else:
                parts.append(output.get("text") or str(output.get("data", "")))
        return "".join(parts)

    def behave(self, **told: Any) -> None:
        """Makes Google behave so from now on."""
        self.run(f"import os; os.environ['COLAB_STAND_IN'] = {json.dumps(told)!r}")

    def calls(self, name: str) -> list[dict[str, Any]]:
        """What was asked of Google under that name, so far."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return [found for line in lines if (found := json.loads(line))["call"] == name]

    def app(self) -> dict[str, Any]:
        """The record of the app process; {} when none was started or it was stopped."""
        file = self.folder / "masuka" / ".setup" / "app.json"
        return json.loads(file.read_text()) if file.exists() else {}


def cell_of(notebook: str, tag: str, changes: Mapping[str, object]) -> str:
    """The source of the notebook's cell of that tag, with its form filled in."""
    found = nbformat.read(ROOT / "notebooks" / notebook, as_version=4)
    cell = next(c for c in found.cells if tag in c.metadata.get("tags", ()))
    lines = cell.source.splitlines()
    for name, value in changes.items():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[at] = f"{name} = {value!r}"
    return "\n".join(lines)


@contextmanager
def colab(folder: Path, environment: Mapping[str, str]) -> Iterator[Colab]:
    """A runtime in that folder; its app is ended with it."""
    log = folder / "asked.jsonl"
    kept = os.environ.copy()
    os.environ.pop("MASUKA_HOME", None)
    os.environ |= {
        "PYTHONPATH": str(STAND_IN), "COLAB_STAND_IN_LOG": str(log), "COLAB_RELEASE_TAG": "stand-in",
        "COLAB_STAND_IN": "{}", "MASUKA_DEVICE": "cpu", "OMP_NUM_THREADS": "2", **environment,
    }  # fmt: skip
    client = NotebookClient(
        nbformat.v4.new_notebook(), timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    runtime = Colab(folder, client, log)
    try:
        with client.setup_kernel():
            yield runtime
    finally:
        if app := runtime.app():
            with suppress(ProcessLookupError):
                os.killpg(app["pid"], signal.SIGKILL)
        os.environ.clear()
        os.environ |= kept
