"""A machine that is lost in the middle of a training, and the one that takes over.

python -m tests.worker.vault_drill WORKSPACE VAULT serves the workspace until it is killed,
and adds a character every half second, so that it can be told how much was lost.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from masuka.config import Settings, Workspace
from masuka.jobs import queue
from masuka.requests.actor import Actor
from masuka.store import characters, datasets, jobs, pictures, runs
from masuka.store.connect import Store
from masuka.studio import Studio

OWNER = Actor(user_id=1)
ROOT = Path(__file__).parents[2]
PATIENCE_S = 400.0
SECONDS_BETWEEN_EDITS = 0.5


@dataclass(frozen=True)
class Loss:
    """What the loss of the machine cost; `resumed_step` is where the training went on."""

    lost_s: float
    back_s: float
    working_s: float
    steps_now: int
    params: dict[str, Any]
    losses: dict[int, float]


def settings_of(root: Path, vault: Path) -> Settings:
    return Settings(workspace=Workspace(root=root), vault=vault, device="cpu")


def add_training(root: Path, vault: Path, params: dict[str, Any]) -> int:
    """The number of a queued training whose files all lie in the workspace."""
    settings = settings_of(root, vault)
    workspace = settings.workspace.create()
    folder = workspace.datasets / "00001"
    with Store.open(workspace) as store:
        dataset = datasets.add_dataset(store, actor=OWNER, name="Drill", trigger_word="mira7x")
        folder.mkdir(parents=True)
        for number, picture in enumerate(params["pictures"]):
            file = folder / f"{number}.png"
            shutil.copyfile(picture["file"], file)
            picture["file"] = str(file)
            pictures.add_picture(
                store, actor=OWNER, dataset_id=dataset.id, file=workspace.relative(file), sha256=picture["sha256"],
                original_name=file.name, width=picture["width"], height=picture["height"],
                bytes=file.stat().st_size, caption=picture["caption"],
            )  # fmt: skip
        run = runs.add_run(store, actor=OWNER, name="Drill 1", base="pocket", family="flux", config={})
        params.update(
            run_id=run.id,
            run_folder=str(workspace.runs / f"{run.id:05d}"),
            output=str(workspace.adapters / f"{run.id:05d}-drill-1"),
        )
        added = queue.add_job(
            store, actor=OWNER, kind="train_image", title="Drill", request=params["request"], params=params,
            run_id=run.id, dataset_id=dataset.id,
        )  # fmt: skip
    return added.id


def drill(root: Path, vault: Path, params: dict[str, Any], *, checkpoints: int = 2) -> Loss:
    """Serves the training, loses the machine once checkpoints are kept, goes on from the vault."""
    job_id = add_training(root, vault, params)
    first = Serving(root, vault)
    kept = vault / "files" / Path(params["run_folder"]).relative_to(root) / "checkpoints"
    first.until(lambda: len(list(kept.glob("step-*/manifest~*.json"))) >= checkpoints)
    lost_at = time.time()
    first.kill()
    shutil.rmtree(root)
    began_s = time.monotonic()
    second = Serving(root, vault, page=True)
    back_s = time.monotonic() - began_s
    with Store(root / "masuka.db") as store:
        saved = [c for c in characters.list_characters(store, actor=OWNER) if c.name.startswith("before")]
        newest_s = max((datetime.fromisoformat(c.created_at).timestamp() for c in saved), default=0.0)
        assert jobs.get_job(store, actor=OWNER, id=job_id).state != "done"
        second.until(lambda: jobs.get_job(store, actor=OWNER, id=job_id).step > 0)
        working_s = time.monotonic() - began_s
        second.until(lambda: jobs.get_job(store, actor=OWNER, id=job_id).state in queue.ENDED)
        job = jobs.get_job(store, actor=OWNER, id=job_id)
        assert job.state == "done", job.error
        metrics = runs.list_metrics(store, actor=OWNER, run_id=params["run_id"], max_points=100_000)
    second.end()
    _check_last_save(vault, root.parent / "third", job_id)
    assert job.result is not None
    losses = {m.step: m.loss for m in metrics if m.loss is not None}
    return Loss(lost_at - newest_s, back_s, working_s, job.result["steps_now"], params, losses)


def _check_last_save(vault: Path, root: Path, job_id: int) -> None:
    """An app that was asked to end has saved what it knew last."""
    with Studio.open(settings_of(root, vault)) as studio:
        assert studio.jobs.get(job_id).state == "done"
        assert len(studio.vault.branches()) == 1


class Serving:
    """A process that serves the workspace, the app itself or a studio that adds characters."""

    def __init__(self, root: Path, vault: Path, *, page: bool = False) -> None:
        own = ["-m", "tests.worker.vault_drill", str(root), str(vault)]
        chosen = {
            "MASUKA_HOME": str(root), "MASUKA_VAULT": str(vault), "MASUKA_PORT": "0", "MASUKA_DEVICE": "cpu",
            "MASUKA_SHARE": "off", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, *([str(ROOT / "app.py")] if page else own)],
            cwd=ROOT, env={**os.environ, **chosen}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("masuka is open" if page else "ready"), line

    def end(self) -> None:
        """SIGTERM, as a host sends it; what the app started leaves with it."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()

    def until(self, true: Any) -> None:
        """Returns once that is so."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not true():
            assert self._process.poll() is None, "the app ended"
            assert time.monotonic() < deadline_s
            time.sleep(0.1)

    def kill(self) -> None:
        """A power cut: the app and its workers at once."""
        family = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in family:
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(family[1:], timeout=10)
        self._process.communicate()


def main(root: str, vault: str) -> None:
    settings = settings_of(Path(root), Path(vault))
    again = not (settings.workspace.root / "masuka.db").exists()
    with Studio.open(settings, workers="processes") as studio:
        print("ready", flush=True)
        word = "after" if again else "before"
        for number in range(100_000):
            studio.characters.create(name=f"{word} {number}", trigger_word="abc1")
            threading.Event().wait(SECONDS_BETWEEN_EDITS)


def described(params: dict[str, Any]) -> str:
    """The params as text, to be compared."""
    return json.dumps(params, sort_keys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
