"""The job `train_image`: from checked pictures to a LoRA that was loaded back.

Two large models are never in memory at once: the text encoders are gone before the VAE
comes, and the VAE before the denoiser. A job that was lost goes on from its caches and
its last checkpoint, with the same result to the last digit on a CPU.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from masuka.errors import Stop
from masuka.jobs.reporter import CACHES, Reporter
from masuka.models.loading import quiet_libraries
from masuka.training.batches import Batches
from masuka.training.caches import Latents, Texts, cache_latents, cache_texts
from masuka.training.checkpoints import CheckpointFolder
from masuka.training.export import Exported, export
from masuka.training.learner import Learner
from masuka.training.memory import plain_errors
from masuka.training.order import Order
from masuka.training.pictures import check_pictures
from masuka.training.plan import Plan, plan_of
from masuka.training.quick import keep_freed_memory
from masuka.training.randomness import own_randomness
from masuka.training.samples import Sample, Sampler, texts_for

STEPS_IN_MEDIAN = 50


def run(params: Mapping[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The LoRA's file, steps, seconds and how many layers a fresh load applied.

    Raises InvalidInput for a picture that is missing, changed or damaged, Conflict for a
    run folder of another training, NoAccelerator, OutOfMemory, OutOfDisk, and TrainingError
    for a loss that is not finite. On Stop('pause') a checkpoint is written first.
    """
    started = time.monotonic()
    quiet_libraries()
    plan = plan_of(params)
    with plain_errors(), own_randomness(plan.request.seed):
        training = prepare(plan, reporter)
        steps_before = len(training.losses)
        training.run()
        reporter.stage("Saving")
        exported = training.finish()
    return {
        "file": str(exported.file),
        "sha256": exported.sha256,
        "steps": len(training.losses),
        "steps_now": len(training.losses) - steps_before,
        "seconds": round(time.monotonic() - started, 1),
        "loss": exported.about["loss_at_end"],
        "applied": exported.report.applied,
        "total": exported.report.total,
    }


def prepare(plan: Plan, reporter: Reporter) -> Training:
    """The training with its caches filled and its denoiser loaded, where it was left."""
    reporter.stage("Checking pictures")
    sizes = check_pictures(plan.pictures, reporter)
    reporter.stage("Caching captions")
    captions = [picture.caption for picture in plan.pictures]
    caches = plan.run_folder / CACHES
    texts = cache_texts(plan.source, caches, [*captions, *texts_for(plan)], reporter)
    reporter.stage("Caching latents")
    latents = cache_latents(
        plan.source, caches, plan.pictures, plan.shapes(sizes), reporter, sizes=sizes, variety=plan.variety
    )
    if plan.device == "cpu":
        keep_freed_memory()
    learner = _learner(plan, texts, latents, captions, reporter)
    return Training(plan, learner, Sampler(plan, texts, reporter), reporter)


class Training:
    """The steps of one training, with what happens between them."""

    def __init__(self, plan: Plan, learner: Learner, sampler: Sampler, reporter: Reporter) -> None:
        self._plan, self._learner, self._sampler, self._reporter = plan, learner, sampler, reporter
        self._checkpoints = CheckpointFolder(
            plan.run_folder / "checkpoints", identity=plan.identity(), keep=plan.request.keep_checkpoints
        )
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds: deque[float] = deque(maxlen=STEPS_IN_MEDIAN)
        self._samples: list[Sample] = []
        self._saved_step = 0
        self.losses: list[float] = []
        found, damaged = self._checkpoints.newest()
        for sentence in damaged:
            reporter.note(sentence)
        if found is not None:
            self.losses = learner.restore(found)
            self._saved_step = found.step
            self._started_at = found.state.get("started_at", self._started_at)
            reporter.note(f"Going on from step {found.step:,}.")

    def run(self) -> None:
        """Every step that is left; leaves a checkpoint of the last one, and of a pause."""
        total = self._plan.request.steps
        self._reporter.stage("Training")
        self._reporter.progress(len(self.losses), total)
        try:
            while len(self.losses) < total:
                self.step()
        except Stop as stop:
            # A signal may come while the optimiser changes the weights, which are of no step then.
            if stop.why == "pause" and self._learner.whole_step == len(self.losses):
                self._save()
            raise
        self._save()

    def step(self) -> None:
        """One optimiser step, reported; a checkpoint and samples where they are due."""
        total = self._plan.request.steps
        started = time.perf_counter()
        measured = self._learner.step(len(self.losses))
        self.losses.append(measured.loss)
        self._seconds.append(time.perf_counter() - started)
        seconds = statistics.median(self._seconds)
        step = len(self.losses)
        self._reporter.metric(
            step=step,
            epoch=measured.epoch,
            seconds_per_step=seconds,
            **measured.figures(),
        )
        self._reporter.progress(step, total, seconds_per_step=seconds)
        if step % self._plan.request.checkpoint_every == 0:
            self._save()
        every = self._plan.request.sample_every
        if every and step % every == 0:
            self._samples = self._sampler.draw(self._learner, step)

    def finish(self) -> Exported:
        """The output folder, written and loaded back."""
        step = len(self.losses)
        if not self._samples or self._samples[0].step != step:
            self._samples = self._sampler.draw(self._learner, step)
        exported = export(
            self._plan, self._learner, self._samples, losses=self.losses, started_at=self._started_at
        )
        shutil.rmtree(self._plan.run_folder / CACHES, ignore_errors=True)
        about = dict(exported.about)
        self._reporter.artefact(
            "adapter",
            exported.file,
            name=self._plan.name,
            sha256=exported.sha256,
            base=self._plan.base["id"],
            family=self._plan.family.name,
            trigger_word=self._plan.trigger_word,
            class_word=self._plan.class_word,
            character_id=self._plan.character_id,
            run_id=self._plan.run_id,
            config=about.pop("config"),
            applied=exported.report.applied,
            total=exported.report.total,
        )
        return exported

    def _save(self) -> None:
        step = len(self.losses)
        if step == self._saved_step:
            return
        checkpoint = self._learner.checkpoint(step, self.losses)
        state = {**checkpoint.state, "started_at": self._started_at}
        folder = self._checkpoints.save(replace(checkpoint, state=state))
        self._saved_step = step
        self._reporter.artefact("checkpoint", folder, step=step)


def _learner(plan: Plan, texts: Texts, latents: Latents, captions: list[str], reporter: Reporter) -> Learner:
    request = plan.request
    batches = Batches(
        plan.family,
        latents,
        texts,
        captions,
        dropout=request.caption_dropout,
        seed=request.seed,
        device=plan.device,
        dtype=plan.dtype,
    )
    sizes = [len(bucket.pictures) for bucket in latents.buckets]
    order = Order(sizes, batch_size=request.batch_size, seed=request.seed)
    encoder = None
    if request.train_text_encoder:
        encoder = plan.family.text_encoder(
            plan.folder, dtype=plan.dtype, device=plan.device, adaptable_only=True
        )
    return Learner(plan, batches, order, reporter, text_encoder=encoder)
