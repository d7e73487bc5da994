"""What hosting promises, tried hard: saves that survive, a machine that is lost, the door.

Every trial is also a test, where it runs a few times. Here it runs as often as the promise
is stated with.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.door import door
from benchmarks.harness import Bars, Figures, Parts, bar, say
from benchmarks.hosting_page import page_load
from tests import vault_trials
from tests.tiny_flux import tiny_folder
from tests.tiny_training import Job, train_params
from tests.worker.test_training_job import kill_at
from tests.worker.vault_drill import drill

KILLS, RACES, FAULTS, FULL, FLIPS, OPERATIONS, TRAININGS = 1000, 500, 300, 50, 200, 10_000, 30
DRILL: dict[str, Any] = {"steps": 300, "checkpoint_every": 20, "ema_decay": 0.9, "caption_dropout": 0.2}
KILLED: dict[str, Any] = {"steps": 40, "checkpoint_every": 5, "ema_decay": 0.9, "caption_dropout": 0.2}
LOST_S, BACK_S = 60.0, 120.0
SAME_LOSS = 1e-6


def parts() -> Parts:
    """Every figure of docs/reliability.md, and which have a goal; in parts, the quick ones first."""
    trials: dict[str, Callable[[], vault_trials.Tried]] = {
        "flip": lambda: vault_trials.flips(FLIPS),
        "full": lambda: vault_trials.full_disk(FULL),
        "fault": lambda: vault_trials.faults(FAULTS),
        "race": lambda: vault_trials.races(RACES),
        "chaos": lambda: vault_trials.chaos(OPERATIONS),
        "kill": lambda: vault_trials.kills(KILLS),
    }
    return {
        "machine_loss": machine_loss,
        "page": page_load,
        "door": door,
        **{name: partial(durability, name, trial) for name, trial in trials.items()},
        "killed_trainings": killed_trainings,
    }


def durability(name: str, trial: Callable[[], vault_trials.Tried]) -> tuple[Figures, Bars]:
    """One trial of the vault: kills, faults, flips, races or a misbehaving Drive."""
    say(f"vault: {name}")
    began_s = time.monotonic()
    tried = trial()
    figures: Figures = {
        f"vault_{name}_tries": tried.times,
        f"vault_{name}_broken": tried.broken,
        f"vault_{name}_s": time.monotonic() - began_s,
    }
    if tried.acknowledged:
        noun = {"chaos": "machines", "fault": "calls"}.get(name, "saves")
        figures[f"vault_{name}_{noun}"] = tried.acknowledged
    return figures, {f"vault_{name}_broken": bar(tried.broken, "<= 0")}


def machine_loss() -> tuple[Figures, Bars]:
    """A working folder that is gone in the middle of a training, and the machine after it."""
    say("the machine is lost in the middle of a training")
    with tempfile.TemporaryDirectory(prefix="masuka-drill-") as folder:
        whole = _straight(Path(folder, "straight"), DRILL)
        given = train_params(Path(folder, "given"), base=tiny_folder(), **DRILL)
        lost = drill(Path(folder, "machine"), Path(folder, "vault"), given)
    difference = max(abs(lost.losses[step] - loss) for step, loss in whole.items())
    figures = {
        "machine_loss_edits_lost_s": lost.lost_s,
        "machine_loss_back_s": lost.back_s,
        "machine_loss_training_again_s": lost.working_s,
        "machine_loss_steps_again": lost.steps_now,
        "machine_loss_final_loss_difference": difference,
    }
    bars = {
        "machine_loss_edits_lost_s": bar(lost.lost_s, f"<= {LOST_S}"),
        "machine_loss_back_s": bar(lost.back_s, f"<= {BACK_S}"),
        "machine_loss_final_loss_difference": bar(difference, f"<= {SAME_LOSS}"),
    }
    return figures, bars


def killed_trainings() -> tuple[Figures, Bars]:
    """Trainings that are killed at different steps and go on; the losses of the whole."""
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="masuka-killed-") as folder:
        whole = _straight(Path(folder, "straight"), KILLED)
        for number in range(TRAININGS):
            say(f"a training is killed, {number + 1} of {TRAININGS}")
            root = Path(folder, f"killed-{number}")
            root.mkdir()
            params = train_params(root, base=tiny_folder(), **KILLED)
            kill_at(1 + number * (KILLED["steps"] - 4) // TRAININGS, params, root)
            resumed = _run(root, params)
            worst = max([worst, *(abs(whole[step] - loss) for step, loss in resumed.items())])
    figures = {"training_kills": float(TRAININGS), "training_kill_loss_difference": worst}
    return figures, {"training_kill_loss_difference": bar(worst, f"<= {SAME_LOSS}")}


def _straight(root: Path, values: dict[str, Any]) -> dict[int, float]:
    return _run(root, train_params(root, base=tiny_folder(), **values))


def _run(root: Path, params: dict[str, Any]) -> dict[int, float]:
    """The loss of each step that was made now, on one core as the workers of the drill."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        job = Job(root)
        job.run(params)
    finally:
        torch.set_num_threads(threads)
    return job.losses()
