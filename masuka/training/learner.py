"""The denoiser with its LoRA, and one optimiser step of it.

Everything a step needs is a function of the step's number and of the state that
`checkpoint` gives and `restore` takes, so that a resumed training is the same training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from masuka.errors import TrainingError
from masuka.jobs.reporter import Reporter
from masuka.models.loading import as_out_of_memory, free_memory
from masuka.training.batches import Micro
from masuka.training.checkpoints import Checkpoint
from masuka.training.lessons import Kind, Lesson, Lessons
from masuka.training.lora import ADAPTER, FlatWeights, LeanLayers, inject, together
from masuka.training.objective import Objective
from masuka.training.optimizers import (
    FACTORED,
    averaged,
    build_optimizer,
    build_schedule,
    follow_course,
    learning_rate_of,
    matrices_of,
    optimizer_state,
    restore_optimizer,
)
from masuka.training.plan import Plan
from masuka.training.quick import plain_attention
from masuka.training.randomness import random_state, restore_random_state
from masuka.training.ranks import Ranks
from masuka.training.room import Room

DENOISER, TEXT = "denoiser", "text"


@dataclass(frozen=True)
class Measured:
    """Figures of one step; with fp16 a skipped one's `grad_norm` is not finite."""

    loss: float
    grad_norm: float
    learning_rate: float
    epoch: int
    beside: Mapping[Kind, float] = field(default_factory=dict)
    """The losses of what is learnt beside the pictures."""

    def figures(self) -> dict[str, float]:
        """What is told of the step: numbers only."""
        told = {"loss": self.loss, "learning_rate": self.learning_rate}
        told |= {f"{kind}_loss": loss for kind, loss in self.beside.items()}
        return told | ({"grad_norm": self.grad_norm} if math.isfinite(self.grad_norm) else {})


class Learner:
    """A denoiser that learns; `text_encoder` is given when it learns too."""

    def __init__(
        self, plan: Plan, lessons: Lessons, reporter: Reporter, *, text_encoder: Any = None
    ) -> None:
        self._plan, self._lessons, self._reporter = plan, lessons, reporter
        self._objective = Objective.of(plan.family, plan.request)
        self._adapted: list[str] = []
        self.ranks: Ranks | None = None
        """The processes that learn together, once there are several."""
        self.whole_step: int | None = 0
        """The steps that the weights hold; None while the optimiser changes them."""
        self.text_encoder = text_encoder
        request = plan.request
        self.denoiser = plan.family.denoiser(
            plan.folder,
            dtype=plan.dtype,
            # Blocks that are to wait there need not fit on the device first.
            device="cpu" if request.blocks_on_host else plan.device,
            quantize=request.quantize,
            training_adapter=plan.training_adapter,
        )
        self._accelerator = _accelerator(plan)
        self.weights = self._flat(self._inject())
        preserved = request.class_preservation > 0
        self._untrained = self.weights.master.detach().clone() if preserved else None
        self._lean = [LeanLayers(module, plan.dtype) for module in self._modules().values()]
        for layers in self._lean:
            layers.on()
        optimizer = build_optimizer(request, self.weights.master, self._matrices())
        schedule = build_schedule(request, optimizer)
        self._optimizer, self._schedule = self._accelerator.prepare(optimizer, schedule)
        self._room.compile()
        self.denoiser.train()
        for block in _blocks(self.denoiser):
            block.register_forward_pre_hook(lambda *_: self._reporter.check())

    def step(self, step: int) -> Measured:
        """One optimiser step; `step` counts from 0.

        Raises TrainingError for a loss that is not finite; nothing may be saved after that.
        """
        if self.ranks is not None:
            self.ranks.announce(step)
        self._lessons.next(step)
        losses = self._added_up(self._gradients_in_room(step))
        rate = learning_rate_of(self._optimizer)
        norm = self._accelerator.clip_grad_norm_([self.weights.master], self._plan.request.max_grad_norm)
        self.whole_step = None
        self._optimizer.step()
        self._schedule.step()
        self.weights.publish()
        self._average(step)
        self.weights.forget_gradients()
        self.whole_step = step + 1
        # The one wait for the device in a step.
        norm_now, *by_kind = torch.stack([norm.to(self.weights.master), *losses.values()]).tolist()
        self._must_be_finite(step, sum(by_kind), norm_now)
        loss, beside = by_kind[0], dict(zip(list(losses)[1:], by_kind[1:], strict=True))
        return Measured(loss, norm_now, rate, self._lessons.epoch, beside)

    def _added_up(self, losses: dict[Kind, Tensor]) -> dict[Kind, Tensor]:
        """The losses of all processes, whose gradients each has now."""
        if self.ranks is None:
            return losses
        request = self._plan.request
        wanted = {"class": request.class_preservation > 0, "prior": bool(self._plan.prior), "picture": True}
        kinds: list[Kind] = [kind for kind in get_args(Kind) if wanted[kind]]
        zero = self.weights.master.new_zeros(())
        told = torch.stack([losses.get(kind, zero).to(zero) for kind in kinds])
        assert self.weights.master.grad is not None
        self.ranks.add_up(self.weights.master.grad, told)
        return dict(zip(kinds, told, strict=True))

    def _gradients_in_room(self, step: int) -> dict[Kind, Tensor]:
        """The step's gradients; when memory runs out, with less of it and the same result."""
        while True:
            try:
                return self._gradients()
            except (RuntimeError, MemoryError) as error:
                if as_out_of_memory(error, "") is None or self._plan.request.when_memory_runs_short == "stop":
                    raise
                given_up = self._room.make()
                if not given_up:
                    raise
            # Only here has the error let go of what it was computing with.
            self.weights.forget_gradients()
            free_memory()
            self._adapted.append(given_up)
            self._reporter.note(f"Memory ran short at step {step + 1:,}: from here on {given_up}.")
            self._reporter.tell("measured", adapted=list(self._adapted))

    def _gradients(self) -> dict[Kind, Tensor]:
        """The losses of the step's lessons by kind, that of its pictures first."""
        losses: dict[Kind, Tensor] = {}
        request = self._plan.request
        for lesson in self._lessons.taken(self._room.at_once):
            self._reporter.check()
            torch.manual_seed(lesson.seed)
            with plain_attention(self._plan.device, self._plan.dtype, request.resolution_px):
                loss = self._loss(lesson)
                self._accelerator.backward(loss)
            self.weights.gather()
            losses[lesson.kind] = losses.get(lesson.kind, 0) + loss.detach()
        return losses

    def checkpoint(self, step: int, losses: list[float]) -> Checkpoint:
        """Everything that the first `step` steps made."""
        random_tensors, random_plain = random_state()
        optimizer_tensors, optimizer_plain = optimizer_state(self._optimizer)
        groups = {"adapter": self.weights.named(), "optimizer": optimizer_tensors, "random": random_tensors}
        if self.weights.average is not None:
            groups["average"] = self.weights.named(self.weights.average)
        scaler = self._accelerator.scaler
        state = {
            "optimizer": optimizer_plain,
            "schedule": self._schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": random_plain,
            "losses": losses,
        }
        return Checkpoint(step, groups, state)

    def restore(self, checkpoint: Checkpoint) -> list[float]:
        """The losses so far; the learner is where `checkpoint` found it."""
        groups, state = checkpoint.groups, checkpoint.state
        self.weights.restore(groups["adapter"], groups.get("average"))
        restore_optimizer(self._optimizer, groups["optimizer"], state["optimizer"])
        self._average()
        self._schedule.load_state_dict(dict(state["schedule"]))
        follow_course(self._schedule)
        if self._accelerator.scaler is not None and state["scaler"]:
            self._accelerator.scaler.load_state_dict(state["scaler"])
        self.whole_step = checkpoint.step
        self._lessons.skip(checkpoint.step)
        restore_random_state(groups["random"], state["random"])
        return [float(loss) for loss in state["losses"]]

    @contextmanager
    def as_peft(self) -> Iterator[None]:
        """Within it peft runs the layers, with the result (the average, if any)."""
        for layers in self._lean:
            layers.off()
        self.weights.show_result()
        self.denoiser.eval()
        try:
            with self._plan.family.drawing(self.denoiser), torch.no_grad():
                yield
        finally:
            self.denoiser.train()
            self.weights.show_training()
            for layers in self._lean:
                layers.on()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Within it `errors` measures the result, and nothing is learnt."""
        self.weights.show_result()
        self.denoiser.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.denoiser.train()
            self.weights.show_training()

    @contextmanager
    def at_weight(self, weight: float) -> Iterator[None]:
        """Within it the adapter counts so much, 1 as it was learnt; needs `as_peft`."""
        layers = [
            module
            for part in self._modules().values()
            for module in part.modules()
            if isinstance(module, BaseTunerLayer) and ADAPTER in getattr(module, "scaling", {})
        ]
        before = [(layer.scaling[ADAPTER], layer.disable_adapters) for layer in layers]
        for layer, (learnt, disabled) in zip(layers, before, strict=True):
            layer.scaling[ADAPTER] = learnt * weight
            # DoRA's learnt lengths have no scale: without the adapter is not scale 0.
            layer._disable_adapters = disabled or weight == 0
        try:
            yield
        finally:
            for layer, (learnt, disabled) in zip(layers, before, strict=True):
                layer.scaling[ADAPTER], layer._disable_adapters = learnt, disabled

    def errors(self, micro: Micro) -> Tensor:
        """Each sample's mean squared error (B,), before any weighting by its noise level."""
        return _mean_error((self._predicted(micro).float() - micro.target).square(), micro.weights)

    def _predicted(self, micro: Micro) -> Tensor:
        family = self._plan.family
        if self.text_encoder is not None:
            adapted = family.encode_adapted_text(self.text_encoder, micro.captions)
            # Where the denoiser computes in fp16, its encoders do not: they would overflow.
            adapted = {name: tensor.to(self._plan.dtype) for name, tensor in adapted.items()}
            micro = replace(micro, text={**micro.text, **adapted})
        return family.predict(self.denoiser, micro.noisy, micro.sigmas, micro.text)

    def _loss(self, lesson: Lesson) -> Tensor:
        micro = lesson.micro
        if self._untrained is not None and lesson.kind == "class":
            with torch.no_grad():
                self.weights.show(self._untrained)
                micro = replace(micro, target=self._predicted(micro).float(), weights=None)
                self.weights.show_training()
        return (self.errors(micro) * self._objective.weight(micro.sigmas)).sum() * lesson.scale

    def _modules(self) -> dict[str, nn.Module]:
        modules = {DENOISER: self.denoiser}
        if self.text_encoder is not None:
            modules[TEXT] = self._plan.family.adaptable_text_encoder(self.text_encoder)
        return modules

    def _inject(self) -> dict[str, nn.Parameter]:
        request = self._plan.request
        if request.method == "full":
            # What a model keeps in another format than it computes in stays as it is.
            self.denoiser.requires_grad_(True)
            for weight in self.denoiser.parameters():
                weight.requires_grad_(weight.dtype == self._plan.dtype)
            return together({DENOISER: {n: w for n, w in self.denoiser.named_parameters() if w.requires_grad}})
        targets = {
            DENOISER: self._plan.family.lora_targets[request.layers],
            TEXT: self._plan.family.text_encoder_targets,
        }
        torch.manual_seed(request.seed)
        named = {
            part: inject(module, request, targets[part], blocks=request.blocks if part == DENOISER else "")
            for part, module in self._modules().items()
        }
        return together(named)

    def _flat(self, named: dict[str, nn.Parameter]) -> FlatWeights:
        """The weights as one vector, once all are where they stay."""
        self._room = Room(self._plan, self.denoiser)
        return FlatWeights(named, dtype=self._plan.dtype, ema_decay=self._plan.request.ema_decay)

    def _matrices(self) -> list[nn.Parameter]:
        if self._plan.request.optimizer not in FACTORED:
            return []
        gradients = self.weights.master.grad
        assert gradients is not None
        return matrices_of(self.weights.named(), self.weights.named(gradients))

    def _average(self, step: int | None = None) -> None:
        """Lets the average follow; a schedule-free optimiser's is its own and of this moment."""
        if self._plan.request.optimizer == "schedulefree":
            self.weights.average = averaged(
                self._optimizer, self.weights.master.data, self.weights.average
            )
        elif step is not None:
            self.weights.update_average(step)

    def _must_be_finite(self, step: int, loss: float, norm: float) -> None:
        # With fp16 a gradient may overflow: the scaler skips that step and goes on.
        if math.isfinite(loss) and (math.isfinite(norm) or self._accelerator.scaler is not None):
            return
        what = "loss" if not math.isfinite(loss) else "gradient"
        raise TrainingError(
            f"The {what} became {'NaN' if math.isnan(loss + norm) else 'infinite'} at step {step + 1:,}.",
            "Use a lower learning rate, or fp32 or bf16 instead of fp16. The last checkpoint is unharmed.",
        )


def _mean_error(squared: Tensor, weights: Tensor | None) -> Tensor:
    """The mean of each sample's squared errors (B, C, h, w), by weight where there are any.

    Divided by the weights' own mean: a small mask gives no smaller loss than a large one.
    """
    if weights is None:
        return squared.flatten(1).mean(1)
    return (squared * weights).flatten(1).mean(1) / weights.flatten(1).mean(1)


def _accelerator(plan: Plan) -> Accelerator:
    """accelerate for this training: scaling, accumulation, clipping, skipped steps."""
    # A notebook may train twice in one process, with another precision the second time.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(plan.dtype, "no")
    return Accelerator(
        cpu=plan.device == "cpu",
        mixed_precision=precision,
    )


def _blocks(module: nn.Module) -> list[nn.Module]:
    """The model's blocks: what its lists of layers hold."""
    return [block for child in module.children() if isinstance(child, nn.ModuleList) for block in child]
