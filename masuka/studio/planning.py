"""What a training will take here, said before: memory, disk, time, from estimates and measurements.

An estimate is arithmetic, a trial is measured; what earlier trainings on this machine took
counts for those of the same base. Nothing is loaded here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from masuka.families import family_of
from masuka.families.base import Entry
from masuka.models import memory
from masuka.models.memory import GIB, Machine, Plan
from masuka.requests.training import TrainImage
from masuka.store import jobs as job_rows
from masuka.store import runs
from masuka.studio.advice import Advising
from masuka.studio.context import Context

LOOKED_AT = 20
"""So many of the newest trainings are asked how long they took."""
RECOMPUTING = 4 / 3
"""A step that computes activations again runs forward twice; a backward pass is two of those."""
PRESERVING = 1.5
DECIDES_MEMORY = (
    "base", "rank", "resolution_px", "batch_size", "method", "layers", "blocks", "train_text_encoder",
    "optimizer", "ema_decay", "precision", "gradient_checkpointing", "compile_blocks", "blocks_on_host",
    "quantize", "class_preservation",
)  # fmt: skip
"""Settings by which two trainings take the same memory."""


@dataclass(frozen=True)
class Taken:
    """What a training or a trial of one took on this machine."""

    config: Mapping[str, Any]
    figures: Mapping[str, Any]
    by: Literal["run", "trial"]
    at: str
    seconds_before: float = 0.0
    """Before its first step and after its last."""


@dataclass(frozen=True)
class Forecast:
    """The plan with its time, and where its figures are from.

    `seconds` is of the whole training, None where nobody has measured a step of that base
    here. `taken` is what a training with the same settings took, if one ran.
    """

    plan: Plan
    pictures: int
    seconds_per_step: float | None = None
    seconds: float | None = None
    pace_from: Literal["", "run", "trial"] = ""
    taken: Taken | None = None

    @property
    def fits(self) -> bool:
        return self.plan.fits

    @property
    def sentence(self) -> str:
        """Whether it fits, with what was measured where somebody measured it."""
        peak = 0 if self.taken is None else peak_bytes(self.taken.figures)
        if not peak or not self.plan.fits:
            return self.plan.sentence
        return f"It fits: {peak / GIB:,.1f} GiB were measured with these settings."

    def as_row(self, machine: Machine) -> dict[str, Any]:
        """What a run keeps of it, under the keys of what is measured."""
        return {**figures_of(self.plan, machine, self.seconds_per_step), "machine": name_of(machine),
                "changes": list(self.plan.changes), "sentence": self.sentence}  # fmt: skip


class Planning:
    """Says what a training will take, and knows what others took."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def machine(self) -> Machine:
        """What a training finds here; on a CPU it is counted in the larger format."""
        found = Advising(self._context).machine()
        return replace(found, bf16=False) if found.device == "cpu" else found

    def forecast(self, request: TrainImage, *, pictures: int, entry: Entry | None = None) -> Forecast:
        """What the request takes here, or why it cannot be."""
        entry = entry or family_of(request.base)[1]
        machine = self.machine()
        plan = memory.plan(entry, request, machine, pictures=pictures)
        known = list(self._known(request.base, name_of(machine)))
        pace = _pace(entry, plan.request, known)
        same = next((k for k in known if _same_memory(k.config, plan.request)), None)
        if pace is None:
            return Forecast(plan, pictures, taken=same)
        seconds, best = pace
        whole = seconds * plan.request.steps + best.seconds_before
        return Forecast(plan, pictures, seconds, whole, best.by, same)

    def _known(self, base: str, machine: str) -> Iterator[Taken]:
        """What trainings and trials of the base took on this machine, the newest first."""
        store, actor = self._context.store, self._context.actor
        found = []
        for run in runs.list_runs(store, actor=actor, limit=5 * LOOKED_AT):
            if run.base == base and run.measured and run.estimate.get("machine") == machine:
                found.append(Taken(run.config, run.measured, "run", run.created_at))
        for job in job_rows.list_jobs(
            store, actor=actor, kind="try_training", states=["done"], limit=LOOKED_AT
        ):
            if job.result and job.request.get("base") == base and job.params.get("machine") == machine:
                before = float(job.result.get("prepared_s") or 0)
                found.append(Taken(job.request, job.result, "trial", job.finished_at or "", before))
        yield from sorted(found, key=lambda one: one.at, reverse=True)[:LOOKED_AT]


def figures_of(plan: Plan, machine: Machine, seconds_per_step: float | None) -> dict[str, Any]:
    """The estimate under the keys of `Run.measured`; {} where there is none.

    Without a GPU of its own memory all of it is main memory.
    """
    if plan.estimate is None:
        return {}
    on_gpu = machine.device.startswith("cuda")
    gpu, ram = plan.estimate.gpu_bytes, plan.estimate.ram_bytes
    told: dict[str, Any] = {
        "peak_gpu_bytes": gpu if on_gpu else 0,
        "peak_ram_bytes": ram if on_gpu else gpu + ram,
        "disk_bytes": plan.estimate.disk_bytes,
        "parts": dict(plan.estimate.parts),
    }
    return told | ({} if seconds_per_step is None else {"seconds_per_step": seconds_per_step})


def peak_bytes(figures: Mapping[str, Any]) -> int:
    """The peak that decides: of the GPU's memory, else of the main memory."""
    return int(figures.get("peak_gpu_bytes") or figures.get("peak_ram_bytes") or 0)


def name_of(machine: Machine) -> str:
    """By what a machine's measurements are told from another's."""
    return machine.name or f"{machine.device}, {machine.ram_bytes / GIB:,.0f} GiB"


def work_of(entry: Entry, request: TrainImage) -> float:
    """What a step computes, in no unit: by it measured times are carried over."""
    each = memory.tokens_of(entry, request) or request.batch_size * request.resolution_px**2
    work = float(each * request.gradient_accumulation_steps)
    work *= RECOMPUTING if memory.recomputes(entry, request) else 1
    return work * (PRESERVING if request.class_preservation else 1)


def _pace(entry: Entry, request: TrainImage, known: list[Taken]) -> tuple[float, Taken] | None:
    """Seconds a step by the newest measurement, the one of most alike settings first."""
    wanted = work_of(entry, request)
    timed = []
    for one in known:
        seconds = one.figures.get("seconds_per_step")
        if not seconds:
            continue
        was = TrainImage.model_construct(**{**request.model_dump(), **one.config})
        ratio = wanted / work_of(entry, was)
        alike = was.quantize == request.quantize and was.method == request.method
        timed.append((not alike, abs(ratio - 1) > 0.01, float(seconds) * ratio, one))
    if not timed:
        return None
    _, _, seconds, one = min(timed, key=lambda t: t[:2])  # the newest of those that are equal
    return seconds, one


def _same_memory(config: Mapping[str, Any], request: TrainImage) -> bool:
    asked = request.as_dict()
    return all(config.get(name, asked.get(name)) == asked.get(name) for name in DECIDES_MEMORY)
