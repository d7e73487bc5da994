"""The job `export_checkpoint`: a LoRA of a checkpoint that is not the training's best."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from masuka.errors import NotFound
from masuka.jobs.reporter import Reporter
from masuka.models.loading import quiet_libraries
from masuka.training.checkpoints import Checkpoint, CheckpointFolder
from masuka.training.export import export
from masuka.training.learner import Learner
from masuka.training.memory import plain_errors
from masuka.training.plan import Plan, plan_of
from masuka.training.samples import Sample


def run(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The LoRA's file and how many layers a fresh load applied.

    Raises NotFound when the checkpoint is gone, Conflict when it is of another training.
    """
    quiet_libraries()
    plan, step = plan_of(params), int(params["step"])
    folder = CheckpointFolder(plan.run_folder / "checkpoints", identity=plan.identity(), keep=1)
    found = folder.at(step)
    if found is None:
        raise NotFound(f"The checkpoint of step {step:,} is gone.", "Choose one that is still there.")
    sample = params.get("sample")
    samples = [Sample(Path(sample), step, "", 0)] if sample else []
    reporter.stage("Loading")
    with plain_errors():
        learnt = AsLearnt.of(plan, found)
        reporter.stage("Saving")
        state = found.state
        exported = export(
            plan, cast(Learner, learnt), samples,
            losses=[float(loss) for loss in state["losses"]], started_at=str(state["started_at"]),
        )  # fmt: skip
    about = dict(exported.about)
    reporter.artefact(
        "adapter",
        exported.file,
        name=plan.name,
        sha256=exported.sha256,
        config={**about.pop("config"), "checkpoint_step": step},
        applied=exported.report.applied,
        total=exported.report.total,
    )
    return {"file": str(exported.file), "sha256": exported.sha256, "step": step}


@dataclass(frozen=True)
class _Weights:
    """What a checkpoint's LoRA is, under the names that a learner gives it."""

    named: Mapping[str, Tensor]

    def result(self) -> Mapping[str, Tensor]:
        return self.named


@dataclass(frozen=True)
class AsLearnt:
    """What a checkpoint made, as `export` takes it from a learner; learns no more."""

    weights: _Weights
    denoiser: nn.Module
    text_encoder: Any

    @classmethod
    def of(cls, plan: Plan, checkpoint: Checkpoint) -> AsLearnt:
        denoiser = plan.family.denoiser(
            plan.folder, dtype=plan.dtype, device=plan.device, quantize=plan.request.quantize
        )
        encoder = None
        if plan.request.train_text_encoder:
            encoder = plan.family.text_encoder(
                plan.folder, dtype=plan.dtype, device=plan.device, adaptable_only=True
            )
        groups = checkpoint.groups
        return cls(_Weights(groups.get("average", groups["adapter"])), denoiser, encoder)

    @contextmanager
    def as_peft(self) -> Iterator[None]:
        yield
