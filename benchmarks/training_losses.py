"""Whether MASUKA's training computes what the plain loops compute, and what it adds around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from benchmarks.plain_loop import Given
from masuka.jobs.reporter import EventFile
from masuka.models.loading import quiet_libraries
from masuka.training.image import Training, prepare
from masuka.training.lora import part_of
from masuka.training.pictures import seen
from masuka.training.plan import Plan, plan_of

STEPS = 20
OVERHEAD_STEPS = 40


class Recorder:
    """A family that remembers what was drawn at random; all else is the family's own."""

    def __init__(self, family: Any) -> None:
        self._family = family
        self.steps: list[dict[str, Tensor]] = []
        self._drawn: list[tuple[Tensor, Tensor]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def sample_latents(
        self, config: Mapping[str, Any], posterior: Mapping[str, Tensor], generator: torch.Generator
    ) -> Tensor:
        latents: Tensor = self._family.sample_latents(config, posterior, generator)
        shift = config.get("shift_factor") or 0.0
        drawn = (latents / float(config["scaling_factor"]) + shift - posterior["mean"]) / posterior["std"]
        self._drawn.append((posterior["mean"].clone(), drawn))
        return latents

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        mean, drawn = (torch.cat(parts) for parts in zip(*self._drawn, strict=True))
        self._drawn.clear()
        self.steps.append({"mean": mean, "drawn": drawn, "noise": noise.clone(), "sigmas": sigmas.clone()})
        noisy: Tensor = self._family.add_noise(latents, noise, sigmas)
        return noisy


def difference(params: dict[str, Any], root: Path, plain: Callable[..., Any]) -> float:
    """The largest difference of the first losses, caches and extras off in the plain loop.

    `plain` gives the loop that begins with the LoRA in that file. Both see the same
    pictures, noise and noise levels; everything else each computes in its own way.
    """
    recorder: Recorder
    plan = plan_of(params)
    recorder = Recorder(plan.family)
    training = _prepared(replace(plan, family=recorder), root)  # type: ignore[arg-type]
    learner = training._learner
    begun = {n: t.clone() for n, t in part_of(learner.weights.named(), "denoiser").items()}
    save_file(begun, root / "begun.safetensors")
    told: list[Tensor] = []
    learner.denoiser.register_forward_pre_hook(
        lambda _module, args, kwargs: told.append(_timestep(args, kwargs)), with_kwargs=True
    )
    for _ in range(STEPS):
        training.step()
    ours = list(training.losses)
    means = _means(plan)
    loop = plain(weights=root / "begun.safetensors")
    theirs = [
        loop.step_with(
            Given(
                tuple(int((means - one).flatten(1).norm(dim=1).argmin()) for one in step["mean"]),
                step["drawn"], step["noise"], step["sigmas"], timesteps,
            )
        )
        for step, timesteps in zip(recorder.steps, told, strict=True)
    ]  # fmt: skip
    return max(abs(a - b) for a, b in zip(ours, theirs, strict=True))


def overhead(params: dict[str, Any], root: Path) -> float:
    """The share of a step that is neither forward, backward nor optimiser."""
    plan = plan_of(params)
    clock = Clock()
    training = _prepared(plan, root)
    denoiser = training._learner.denoiser
    with clock.running(denoiser):
        for _ in range(5):
            training.step()
        clock.seconds = 0.0
        started = time.perf_counter()
        for _ in range(OVERHEAD_STEPS):
            training.step()
        total = time.perf_counter() - started
    return 1 - clock.seconds / total


@dataclass
class Clock:
    """Seconds spent in a model's forward, in backward and in the optimiser."""

    seconds: float = 0.0
    _began: list[float] = field(default_factory=list)

    def begin(self, *_: Any) -> None:
        self._began.append(time.perf_counter())

    def end(self, *_: Any) -> None:
        began = self._began.pop()
        if not self._began:  # a forward that backward computes again is backward's
            self.seconds += time.perf_counter() - began

    @contextmanager
    def running(self, denoiser: torch.nn.Module) -> Iterator[None]:
        backward = torch.Tensor.backward
        clock = self

        def timed(self: Tensor, *args: Any, **kwargs: Any) -> None:
            clock.begin()
            backward(self, *args, **kwargs)  # type: ignore[no-untyped-call]
            clock.end()

        hooks = [
            denoiser.register_forward_pre_hook(self.begin),
            denoiser.register_forward_hook(self.end),
            register_optimizer_step_pre_hook(self.begin),
            register_optimizer_step_post_hook(self.end),
        ]
        torch.Tensor.backward = timed  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            torch.Tensor.backward = backward  # type: ignore[method-assign]
            for hook in hooks:
                hook.remove()


def _prepared(plan: Plan, root: Path) -> Training:
    quiet_libraries()
    return prepare(plan, EventFile(root / "events.jsonl", root / "scratch"))


def _means(plan: Plan) -> Tensor:
    """Posterior means of all pictures, by which a step's pictures are recognised."""
    autoencoder = plan.family.autoencoder(plan.folder, dtype=torch.float32, device="cpu")
    shape = plan.shapes([(1, 1)])[0]
    with torch.no_grad():
        found = [plan.family.encode_pixels(autoencoder, seen(p, shape).pixels[None])["mean"] for p in plan.pictures]
    return torch.cat(found)


def _timestep(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    found = kwargs["timestep"] if "timestep" in kwargs else args[1]
    return torch.as_tensor(found).detach().clone()
