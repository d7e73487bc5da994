"""Room for jobs: each lane has slots, each slot one job at a time and a worker kept warm."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from masuka.jobs.executors.processes import Process, WorkerProcess
from masuka.jobs.files import AttemptFiles
from masuka.jobs.kinds import Kind, Lane

SLOTS: Mapping[Lane, int] = {"gpu": 1, "cpu": 1, "net": 2}
"""How many jobs of each lane run at a time; 'gpu' is one a device."""
LEAVING_S = 10.0
"""How long a worker may take to leave by itself before it is killed."""


@dataclass
class Attempt:
    """A job on its way; `process` is None until its worker has been found or started.

    `asked_s` and `terminated_s` are when it was told to stop, and when SIGTERM was sent.
    """

    job_id: int
    kind: Kind | None
    files: AttemptFiles
    process: Process | None = None
    asked_s: float | None = None
    terminated_s: float | None = None
    family_s: float = 0.0


@dataclass
class Slot:
    """Room for one job of a lane; `lent` room goes with the job it was made for."""

    lane: str
    environment: dict[str, str] = field(default_factory=dict)
    attempt: Attempt | None = None
    worker: WorkerProcess | None = None
    lent: bool = False
    _leaving: Process | None = None
    _leaving_since_s: float = 0.0

    def busy(self) -> bool:
        """Whether a look at this slot is due soon."""
        return self.attempt is not None or self._leaving is not None

    def retire(self, process: Process) -> None:
        """Lets a worker leave; the slot is not vacant until it has gone."""
        if process is self.worker:
            self.worker = None
        if isinstance(process, WorkerProcess):
            process.release()
        elif not process.is_worker():
            return
        self._leaving, self._leaving_since_s = process, time.monotonic()

    def vacant(self) -> bool:
        """Whether no worker that was told to leave still holds the device."""
        if self._leaving is not None:
            if not self._leaving.alive():
                self._leaving = None
            elif time.monotonic() - self._leaving_since_s > LEAVING_S:
                self._leaving.kill()
        return self._leaving is None

    def free(self) -> None:
        """Ends the attempt; only a warm worker in good health stays."""
        attempt, self.attempt = self.attempt, None
        if attempt is None or attempt.process is None:
            return
        warm = attempt.kind is not None and attempt.kind.warm
        if attempt.process is not self.worker or not warm or attempt.terminated_s is not None:
            self.retire(attempt.process)


def slots_of(counts: Mapping[Lane, int]) -> list[Slot]:
    """The slots of all lanes; of several devices, each slot sees its own only."""
    found = []
    for lane, count in counts.items():
        several = lane == "gpu" and count > 1
        for number in range(count):
            found.append(Slot(lane, {"CUDA_VISIBLE_DEVICES": str(number)} if several else {}))
    return found
