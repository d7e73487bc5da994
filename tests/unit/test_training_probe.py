"""A training that is tried first, and what one takes against what was estimated of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from masuka.families import family_of
from masuka.models import memory
from masuka.pocket import FOLDER
from masuka.requests.training import TrainImage
from masuka.training import probe
from masuka.training.image import prepare
from masuka.training.meter import forget_peaks, peak_ram_bytes
from masuka.training.plan import plan_of
from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, train_params

POCKET = family_of("pocket")[1]
SCRIPT = """
import json, sys
from pathlib import Path
from masuka.jobs.reporter import EventFile
from masuka.training.image import run
from masuka.training.meter import peak_ram_bytes
root = Path(sys.argv[1]).parent
run(json.loads(Path(sys.argv[1]).read_text()), EventFile(root / "events.jsonl", root / "scratch"))
print(peak_ram_bytes())
"""
MARGIN = 1.6
"""The estimate of a part may be so many times what is measured, or that part of it."""


def test_a_trial_tells_pace_and_peaks_and_leaves_nothing(tmp_path: Path) -> None:
    params = train_params(tmp_path, base=tiny_folder(), sample_every=5)
    job = Job(tmp_path)
    found = probe.run(params, job)
    job.close()
    assert found["seconds_per_step"] > 0
    assert found["peak_ram_bytes"] > 100 * 2**20
    assert found["peak_gpu_bytes"] == 0
    assert not Path(params["run_folder"]).exists()
    assert not Path(params["output"]).exists()
    assert job.artefacts("checkpoint") == []
    assert [e["name"] for e in job.events("stage")][-1] == "Trying steps"


def test_a_training_tells_what_it_takes_at_each_checkpoint_and_at_its_end(tmp_path: Path) -> None:
    params = train_params(tmp_path, base=tiny_folder())
    job = Job(tmp_path)
    job.run(params)
    told = [event["about"] for event in job.events("told") if event["noun"] == "measured"]
    assert len(told) == 3  # step 5, step 6, the file
    assert told[0]["seconds_per_step"] > 0
    assert told[-1]["disk_bytes"] > told[0]["disk_bytes"] > 0
    assert {"peak_gpu_bytes", "peak_ram_bytes"} <= set(told[-1])


def test_the_peak_of_memory_begins_anew() -> None:
    forget_peaks("cpu")
    before = peak_ram_bytes()
    filled = torch.ones(64 * 2**20)
    with_it = peak_ram_bytes()
    assert with_it - before > 200 * 2**20
    del filled
    forget_peaks("cpu")
    assert peak_ram_bytes() < with_it - 200 * 2**20


@pytest.mark.parametrize("checkpointing", ["off", "on"])
def test_what_is_kept_for_the_backward_pass_is_as_estimated(tmp_path: Path, checkpointing: str) -> None:
    values: dict[str, Any] = {"gradient_checkpointing": checkpointing, "batch_size": 4, "rank": 16}
    plan = plan_of(train_params(tmp_path, base=FOLDER, **values))
    job = Job(tmp_path)
    learner = prepare(plan, job).learner
    kept: dict[int, int] = {}
    own = {t.untyped_storage().data_ptr() for t in [*learner.denoiser.parameters(), learner.weights.master]}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = max(kept.get(storage.data_ptr(), 0), storage.nbytes())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.step(0)
    job.close()
    size = POCKET.size
    assert size is not None
    request = plan.request
    network = memory.TRANSFORMER
    each = network.recomputed if checkpointing == "on" else network.kept
    unit = 4 * (64 + size.text_tokens) * size.width * 4
    expected = each * size.blocks * unit
    measured = sum(kept.values())
    assert measured / MARGIN < expected + (network.at_work * unit if checkpointing == "on" else 0)
    assert expected < measured * MARGIN
    trained = memory.trained_parameters(POCKET, request)
    real = sum(weight.numel() for weight in learner.weights.named().values())
    assert real / MARGIN < trained < real * MARGIN


@pytest.mark.slow
def test_the_peak_of_a_whole_process_is_as_estimated(tmp_path: Path) -> None:
    params = train_params(tmp_path, base=FOLDER, count=32, batch_size=32, rank=16, steps=1, lr_warmup_steps=0)
    described = tmp_path / "params.json"
    described.write_text(json.dumps(params))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(described)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    request = TrainImage.parse(params["request"])
    estimate = memory.training(POCKET, request, pictures=32, dtype="fp32", device="cpu")
    assert estimate is not None
    expected, measured = estimate.gpu_bytes + estimate.ram_bytes, int(done.stdout.split()[-1])
    assert measured / 1.3 < expected < measured * 1.3
