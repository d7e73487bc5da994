"""Several processes that learn together: each computes a part of every step's pictures.

    python -m masuka.training.ranks <params.json> <rank> <folder>

The worker itself is rank 0: it prepares, reports, saves and draws alone, and starts the
others in its own process group, so that whoever ends the worker ends all. A step's
gradients are added up over all ranks, so it is the step of one process with as many more
micro-steps. Only rank 0 is ever told to stop; it may leave at any time, for its own state
is the whole state.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from masuka.errors import NoAccelerator, TrainingError
from masuka.jobs.reporter import Reporter
from masuka.training.plan import Plan

END = -1
SECONDS_BETWEEN_LOOKS = 0.05
LONGEST_WAIT = timedelta(hours=12)
"""While rank 0 draws samples or scores, the others wait for its next step."""
LEAVING_S = 5.0


class Ranks:
    """One process among those that learn together."""

    def __init__(self, rank: int, device: str) -> None:
        self.rank, self._device = rank, device

    def announce(self, step: int) -> None:
        """Tells the others which step comes, or END; only rank 0 does."""
        if self.rank == 0:
            self._together(lambda: dist.broadcast(self._number(step), src=0))

    def announced(self) -> int:
        """What rank 0 announced."""
        number = self._number(0)
        self._together(lambda: dist.broadcast(number, src=0))
        return int(number.item())

    def add_up(self, gradients: Tensor, losses: Tensor) -> None:
        """Both become the sums over all ranks, in place."""
        self._together(lambda: (dist.all_reduce(gradients), dist.all_reduce(losses)))

    def _number(self, value: int) -> Tensor:
        return torch.tensor([value], dtype=torch.int64, device=self._device)

    def _together(self, act: Any) -> None:
        try:
            act()
        except RuntimeError as error:
            raise TrainingError(
                "Another process of this training was lost.",
                "The log says why. Resume it, or train with one process.",
            ) from error


@contextmanager
def together(plan: Plan, params: Mapping[str, Any], reporter: Reporter) -> Iterator[Ranks | None]:
    """Rank 0 among the ranks that it started; None: it learns alone.

    They are gone afterwards. Call it when the caches are filled. Raises NoAccelerator for more processes than GPUs,
    TrainingError when a rank cannot begin.
    """
    count = plan.request.processes
    if count == 1:
        yield None
        return
    if plan.device.startswith("cuda") and torch.cuda.device_count() < count:
        have = torch.cuda.device_count()
        raise NoAccelerator(f"{count} GPUs are asked for and {have} are here.", f"Use {have}.")
    folder = reporter.scratch / "ranks"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "params.json"
    file.write_text(json.dumps(dict(params), default=str))
    started = [_start(file, rank, folder) for rank in range(1, count)]
    patience_s = 0.0  # who stops in the middle of a step leaves the others waiting in it
    try:
        reporter.stage("Starting processes")
        _wait_until_ready(started, folder, reporter)
        _join(plan, folder, rank=0)
        ranks = Ranks(0, plan.device)
        yield ranks
        ranks.announce(END)
        patience_s = LEAVING_S
    finally:
        _end(started, patience_s=patience_s)
        if dist.is_initialized():
            dist.destroy_process_group()


def main(params_file: Path, rank: int, folder: Path) -> None:
    """Learns as that rank until rank 0 says END."""
    from masuka.models.loading import quiet_libraries
    from masuka.training.image import prepare
    from masuka.training.plan import plan_of
    from masuka.training.randomness import own_randomness

    leave_with_the_worker()
    quiet_libraries()
    params = json.loads(params_file.read_text())
    whole = plan_of(params)
    device = f"cuda:{rank}" if whole.device.startswith("cuda") else whole.device
    plan = replace(whole, rank=rank, device=device)
    with own_randomness(plan.request.seed):
        learner = prepare(plan, Silent(folder / f"scratch-{rank}")).learner
        (folder / f"ready-{rank}").touch()
        _join(plan, folder, rank=rank)
        ranks = Ranks(rank, plan.device)
        learner.ranks = ranks
        while (step := ranks.announced()) != END:
            learner.step(step)
    dist.destroy_process_group()


def leave_with_the_worker() -> None:
    """Ends this process when the worker ends: NCCL would wait for it, holding the GPU."""

    def wait() -> None:
        # Unbuffered: nothing of the interpreter's is held when it leaves in the usual way.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="leaving", daemon=True).start()


class Silent:
    """A Reporter that tells nobody: rank 0 does, and is the one that is asked to stop."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    def stage(self, name: str) -> None:
        """Nothing."""

    def progress(self, step: int, total: int, *, seconds_per_step: float | None = None) -> None:
        """Nothing."""

    def metric(self, *, step: int, epoch: int, **values: float) -> None:
        """Nothing."""

    def artefact(self, kind: str, path: Path, **about: Any) -> None:
        """Nothing."""

    def tell(self, noun: str, **about: Any) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""


def _start(file: Path, rank: int, folder: Path) -> subprocess.Popen[bytes]:
    # In the worker's own group, which is ended as one.
    command = [sys.executable, "-P", "-u", "-m", "masuka.training.ranks", str(file), str(rank), str(folder)]
    # The pipe ends with this process, however it ends; nothing is ever written.
    return subprocess.Popen(command, stdin=subprocess.PIPE)


def _wait_until_ready(started: list[subprocess.Popen[bytes]], folder: Path, reporter: Reporter) -> None:
    while not all((folder / f"ready-{rank}").exists() for rank in range(1, len(started) + 1)):
        reporter.check()
        if any(process.poll() is not None for process in started):
            raise TrainingError(
                "Another process of this training could not begin.",
                "The log says why. Train with one process.",
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _join(plan: Plan, folder: Path, *, rank: int) -> None:
    backend = "nccl" if plan.device.startswith("cuda") else "gloo"
    count = plan.request.processes
    if backend == "nccl":
        torch.cuda.set_device(rank)
    store = dist.FileStore(str(folder / "store"), count)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=LONGEST_WAIT)


def _end(started: list[subprocess.Popen[bytes]], *, patience_s: float) -> None:
    """Returns once none of them runs; one that does not leave in time is killed."""
    until_s = time.monotonic() + patience_s
    for process in started:
        try:
            process.wait(max(0.0, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
