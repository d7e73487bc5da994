"""Sample pictures of a LoRA that is still learning, drawn by the stock pipeline.

The pipeline is built around the live denoiser and is gone afterwards; the prompts were
encoded with the captions, so no text encoder is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from masuka.jobs.reporter import Reporter
from masuka.models.catalogue import classes_of
from masuka.models.loading import free_memory
from masuka.requests.images import DrawImages
from masuka.training.caches import Texts
from masuka.training.learner import Learner
from masuka.training.plan import Plan

JUDGED = 4
"""Pictures that are drawn for each score; more tell little more and cost as much again."""
JUDGED_IN_STEPS = 12


@dataclass(frozen=True)
class Sample:
    """One picture of a training in progress."""

    file: Path
    step: int
    prompt: str
    seed: int


def texts_for(plan: Plan) -> list[str]:
    """Every text that drawing the samples needs."""
    requests = [plan.sample_request(prompt) for prompt in plan.sample_prompts]
    negative = [text for text in map(plan.family.negative_text, requests) if text is not None]
    return [*plan.sample_prompts, *negative]


@dataclass(frozen=True)
class Shot:
    """A picture that is drawn to be judged, not to be kept."""

    prompt: str
    seed: int


def shots_of(plan: Plan) -> list[Shot]:
    """What is drawn for a score: JUDGED pictures of the prompts at fixed seeds."""
    prompts = plan.sample_prompts[:JUDGED]
    if not prompts:
        return []
    each = -(-JUDGED // len(prompts))
    first = int(plan.sample_request(prompts[0]).seed or 0)
    shots = [Shot(prompt, first + len(prompts) * n + at) for n in range(each) for at, prompt in enumerate(prompts)]
    return shots[:JUDGED]


class Sampler:
    """Draws the plan's prompts at fixed seeds, so that steps can be compared."""

    def __init__(self, plan: Plan, texts: Texts, reporter: Reporter) -> None:
        self._plan, self._texts, self._reporter = plan, texts, reporter
        self._folder = plan.run_folder / "samples"

    def draw(self, learner: Learner, step: int) -> list[Sample]:
        """One picture a prompt, after that many steps; each is reported as it comes."""
        return self._drawn(learner, step, weight=1.0)

    def draw_without(self, learner: Learner) -> list[Sample]:
        """The same without the LoRA, as step 0; nothing where they were drawn before."""
        return self.kept(0) or self._drawn(learner, 0, weight=0.0)

    def kept(self, step: int) -> list[Sample]:
        """The samples of that step, where all of them were drawn before."""
        drawn = [self._described(step, number, prompt) for number, prompt in enumerate(self._plan.sample_prompts)]
        return drawn if all(sample.file.exists() for sample in drawn) else []

    def judged(
        self, learner: Learner, shots: list[Shot], *, weight: float = 1.0, place: tuple[int, int] = (0, 1)
    ) -> list[Image.Image]:
        """The shots as pictures, in few steps: they are compared, not looked at.

        `place` says which round of how many this is, for the progress that is told.
        """
        done, total = place[0] * len(shots), place[1] * len(shots)
        with learner.as_peft(), learner.at_weight(weight):
            pipeline = live_pipeline(self._plan, learner.denoiser)
            pictures = []
            for number, shot in enumerate(shots):
                self._reporter.check()
                self._reporter.progress(done + number, total)
                request = self._plan.sample_request(shot.prompt)
                steps = min(request.num_inference_steps, JUDGED_IN_STEPS)
                quick = request.model_copy(update={"num_inference_steps": steps})
                pictures.append(self._picture(pipeline, learner, quick, shot.prompt, shot.seed))
            del pipeline
        free_memory()
        return pictures

    def _drawn(self, learner: Learner, step: int, *, weight: float) -> list[Sample]:
        if not self._plan.sample_prompts:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        self._reporter.stage("Drawing samples")
        samples: list[Sample] = []
        with learner.as_peft(), nullcontext() if weight == 1 else learner.at_weight(weight):
            pipeline = live_pipeline(self._plan, learner.denoiser)
            for number, prompt in enumerate(self._plan.sample_prompts):
                self._reporter.check()
                self._reporter.progress(number, len(self._plan.sample_prompts))
                samples.append(self._sample(pipeline, learner, step, number, prompt))
            del pipeline
        free_memory()
        return samples

    def _sample(self, pipeline: Any, learner: Learner, step: int, number: int, prompt: str) -> Sample:
        sample = self._described(step, number, prompt)
        request = self._plan.sample_request(prompt)
        picture = self._picture(pipeline, learner, request, prompt, sample.seed)
        part = sample.file.with_suffix(".part")
        picture.save(part, "PNG")
        part.replace(sample.file)
        self._reporter.artefact("sample", sample.file, step=step, prompt=prompt, seed=sample.seed)
        return sample

    def _picture(
        self, pipeline: Any, learner: Learner, request: DrawImages, prompt: str, seed: int
    ) -> Image.Image:
        family = self._plan.family
        negative = family.negative_text(request)
        arguments = family.call_arguments(
            request,
            [torch.Generator().manual_seed(seed)],
            text=self._text(learner, prompt),
            negative=None if negative is None else self._text(learner, negative),
        )
        picture: Image.Image = pipeline(**arguments).images[0]
        return picture

    def _described(self, step: int, number: int, prompt: str) -> Sample:
        seed = int(self._plan.sample_request(prompt).seed or 0) + number
        return Sample(self._folder / f"step-{step:06d}-{number}.png", step, prompt, seed)

    def _text(self, learner: Learner, text: str) -> Mapping[str, Tensor]:
        rows = self._texts.one(text)
        if learner.text_encoder is not None:
            rows |= self._plan.family.encode_adapted_text(learner.text_encoder, [text])
        return {name: tensor.to(self._plan.device, self._plan.dtype) for name, tensor in rows.items()}


def live_pipeline(plan: Plan, denoiser: nn.Module, text_encoder: nn.Module | None = None) -> Any:
    """The family's pipeline around loaded models, text encoders only if given.

    A diffusers checkpoint names its parts in its index; a loaded model is the part of its
    own class.
    """
    classes = classes_of(plan.folder)
    given = {type(model).__name__: model for model in (denoiser, text_encoder) if model is not None}
    parts: dict[str, Any] = {}
    for name, kind in classes.items():
        if kind in given:
            parts[name] = given[kind]
        elif name.startswith(("text_encoder", "tokenizer")):
            parts[name] = None
    return plan.family.pipeline(plan.folder, dtype=plan.dtype, device=plan.device, **parts)
