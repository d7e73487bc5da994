"""A training that is killed goes on from its checkpoint as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, train_params, trained_weights

SCRIPT = """
import json, sys
from pathlib import Path
from masuka.jobs.reporter import EventFile
from masuka.training.image import run
params, events = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
run(params, EventFile(events, events.parent / "scratch"))
"""
PATIENCE_S = 600


def kill_at(step: int, params: dict[str, Any], root: Path) -> int:
    """The last step that a training reported before kill -9 ended it."""
    described, events = root / "params.json", root / "events.jsonl"
    described.write_text(json.dumps(params))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(described), str(events)],
        env=environment, start_new_session=True, stderr=subprocess.PIPE,
    )  # fmt: skip
    until = time.monotonic() + PATIENCE_S
    try:
        while steps_in(events) < step and worker.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
        _, errors = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, errors.decode()[-2000:]
    return steps_in(events)


def steps_in(events: Path) -> int:
    if not events.exists():
        return 0
    lines = events.read_text().splitlines(keepends=True)
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    return max((event["step"] for event in whole if event["type"] == "metric"), default=0)


@pytest.mark.slow
def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path) -> None:
    values: dict[str, Any] = {"steps": 40, "checkpoint_every": 5, "ema_decay": 0.9, "caption_dropout": 0.2}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        straight = train_params(tmp_path / "straight", base=tiny_folder(), **values)
        whole = Job(tmp_path / "straight")
        whole.run(straight)
        killed = train_params(tmp_path / "killed", base=tiny_folder(), **values)
        reached = kill_at(7, killed, tmp_path)
        resumed = Job(tmp_path / "killed")
        result = resumed.run(killed)
    finally:
        torch.set_num_threads(threads)
    assert result["steps_now"] < 40
    assert reached - 5 <= 40 - result["steps_now"] <= reached + 1
    first = min(resumed.losses())
    assert resumed.losses() == pytest.approx(
        {step: loss for step, loss in whole.losses().items() if step >= first}, abs=1e-6
    )
    expected, found = trained_weights(straight), trained_weights(killed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(tensor.double(), found[name].double(), rtol=0, atol=1e-6), name
    assert Path(result["file"]).exists()
