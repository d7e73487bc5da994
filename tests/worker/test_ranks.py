"""Two processes that learn together, over gloo: the same result, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from masuka.errors import Stop, TrainingError
from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, train_params, trained_weights

pytestmark = pytest.mark.slow
MODULE = "masuka.training.ranks"
PATIENCE_S = 300
SCRIPT = """
import json, sys
from pathlib import Path
from masuka.jobs.reporter import EventFile
from masuka.training.image import run
params, events = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
run(params, EventFile(events, events.parent / "scratch"))
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same order of sums in every process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def others_of(pid: int) -> list[psutil.Process]:
    return [p for p in psutil.Process(pid).children(recursive=True) if MODULE in p.cmdline()]


def test_two_processes_learn_what_one_learns_from_twice_as_many_micro_steps(tmp_path: Path) -> None:
    """Also when they are paused on the way, which leaves no process behind."""
    values: dict[str, Any] = {"steps": 4, "batch_size": 1, "class_preservation": 0.5, "caption_dropout": 0.3}
    alone = train_params(tmp_path / "alone", base=tiny_folder(), gradient_accumulation_steps=2, **values)
    first = Job(tmp_path / "alone")
    first.run(alone)
    shared = train_params(tmp_path / "shared", base=tiny_folder(), processes=2, **values)
    paused = Job(tmp_path / "shared", stop="pause", after_step=2, checks=3)
    with pytest.raises(Stop):
        paused.run(shared)
    assert others_of(os.getpid()) == []
    resumed = Job(tmp_path / "shared", attempt=2)
    result = resumed.run(shared)
    assert (result["steps"], result["steps_now"]) == (4, 2)
    assert others_of(os.getpid()) == []
    losses = {**paused.losses(), **resumed.losses()}
    assert losses == pytest.approx(first.losses(), abs=1e-6)
    expected, found = trained_weights(alone), trained_weights(shared)
    # Each micro-step seeds the randomness anew; rank 0 has taken others of them.
    for name, tensor in ((n, t) for n, t in expected.items() if not n.startswith("random/")):
        assert torch.allclose(tensor.double(), found[name].double(), rtol=0, atol=1e-6), name


def test_who_kills_the_workers_group_kills_every_rank(tmp_path: Path) -> None:
    params = train_params(tmp_path, base=tiny_folder(), steps=5000, processes=2, lr_warmup_steps=0)
    described, events = tmp_path / "params.json", tmp_path / "events.jsonl"
    described.write_text(json.dumps(params))
    worker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(described), str(events)], start_new_session=True
    )
    others: list[psutil.Process] = []
    try:
        until = time.monotonic() + PATIENCE_S
        while not _has_stepped(events) and time.monotonic() < until:
            assert worker.poll() is None
            time.sleep(0.02)
        others = others_of(worker.pid)
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert len(others) == 1
    gone, left = psutil.wait_procs(others, timeout=PATIENCE_S)
    assert (len(gone), left) == (1, [])


def test_a_rank_leaves_with_the_worker_though_nothing_is_said_to_it() -> None:
    """As one that waits for others on a GPU, which learns of nobody's end by itself."""
    waiting = "import time; from masuka.training import ranks; ranks.leave_with_the_worker(); time.sleep(3600)"
    rank = subprocess.Popen([sys.executable, "-c", waiting], stdin=subprocess.PIPE)
    assert rank.stdin is not None
    rank.stdin.close()  # as the system does for whoever is killed
    assert rank.wait(PATIENCE_S) == 1


def test_a_rank_that_is_lost_ends_the_training_with_a_sentence(tmp_path: Path) -> None:
    params = train_params(tmp_path, base=tiny_folder(), steps=5000, processes=2, lr_warmup_steps=0)
    job = Job(tmp_path)
    metric = job.metric

    def lose_the_other(*, step: int, epoch: int, **values: float) -> None:
        metric(step=step, epoch=epoch, **values)
        for process in others_of(os.getpid()):
            process.kill()

    job.metric = lose_the_other  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="Another process of this training was lost"):
        job.run(params)
    assert others_of(os.getpid()) == []


def _has_stepped(events: Path) -> bool:
    return events.exists() and '"type": "metric"' in events.read_text()
