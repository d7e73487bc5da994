"""Sample pictures of a LoRA that is still learning, drawn by the stock pipeline.

The pipeline is built around the live denoiser and is gone afterwards; the prompts were
encoded with the captions, so no text encoder is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from masuka.jobs.reporter import Reporter
from masuka.models.loading import free_memory
from masuka.training.caches import Texts
from masuka.training.learner import Learner
from masuka.training.plan import Plan


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


class Sampler:
    """Draws the plan's prompts at fixed seeds, so that steps can be compared."""

    def __init__(self, plan: Plan, texts: Texts, reporter: Reporter) -> None:
        self._plan, self._texts, self._reporter = plan, texts, reporter
        self._folder = plan.run_folder / "samples"

    def draw(self, learner: Learner, step: int) -> list[Sample]:
        """One picture a prompt, after that many steps; each is reported as it comes."""
        if not self._plan.sample_prompts:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        samples = []
        with learner.as_peft():
            pipeline = live_pipeline(self._plan, learner.denoiser)
            for number, prompt in enumerate(self._plan.sample_prompts):
                self._reporter.check()
                samples.append(self._sample(pipeline, learner, step, number, prompt))
            del pipeline
        free_memory()
        return samples

    def _sample(self, pipeline: Any, learner: Learner, step: int, number: int, prompt: str) -> Sample:
        family, request = self._plan.family, self._plan.sample_request(prompt)
        seed = int(request.seed or 0) + number
        negative = family.negative_text(request)
        arguments = family.call_arguments(
            request,
            [torch.Generator().manual_seed(seed)],
            text=self._text(learner, prompt),
            negative=None if negative is None else self._text(learner, negative),
        )
        picture = pipeline(**arguments).images[0]
        sample = Sample(self._folder / f"step-{step:06d}-{number}.png", step, prompt, seed)
        part = sample.file.with_suffix(".part")
        picture.save(part, "PNG")
        part.replace(sample.file)
        self._reporter.artefact("sample", sample.file, step=step, prompt=prompt, seed=seed)
        return sample

    def _text(self, learner: Learner, text: str) -> Mapping[str, Tensor]:
        rows = self._texts.one(text)
        if learner.text_encoder is not None:
            rows |= self._plan.family.encode_adapted_text(learner.text_encoder, [text])
        return {name: tensor.to(self._plan.device, self._plan.dtype) for name, tensor in rows.items()}


def live_pipeline(plan: Plan, denoiser: nn.Module, text_encoder: nn.Module | None = None) -> Any:
    """The family's pipeline around loaded models, text encoders only if given.

    A diffusers checkpoint names its parts in `model_index.json`; a loaded model is the part
    of its own class.
    """
    index = json.loads((plan.folder / "model_index.json").read_text())
    classes = {name: value[1] for name, value in index.items() if isinstance(value, list)}
    given = {type(model).__name__: model for model in (denoiser, text_encoder) if model is not None}
    parts: dict[str, Any] = {}
    for name, kind in classes.items():
        if kind in given:
            parts[name] = given[kind]
        elif name.startswith(("text_encoder", "tokenizer")):
            parts[name] = None
    return plan.family.pipeline(plan.folder, dtype=plan.dtype, device=plan.device, **parts)
