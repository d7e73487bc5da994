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
from pathlib import Path
from typing import Any

from masuka.errors import Stop
from masuka.jobs.reporter import CACHES, Reporter
from masuka.models.loading import quiet_libraries
from masuka.training.assessing import WEIGHED, Assessor
from masuka.training.branching import begin_with
from masuka.training.caches import Latents, cache_latents, cache_texts, keep_within
from masuka.training.checkpoints import CheckpointFolder
from masuka.training.export import Exported, export
from masuka.training.learner import Learner
from masuka.training.lessons import Lessons, lessons_of, texts_beside
from masuka.training.logging import logged
from masuka.training.memory import plain_errors
from masuka.training.meter import Meter, forget_peaks
from masuka.training.pictures import check_pictures
from masuka.training.plan import Plan, plan_of
from masuka.training.quick import keep_freed_memory
from masuka.training.randomness import own_randomness
from masuka.training.ranks import together
from masuka.training.samples import Sample, Sampler, texts_for
from masuka.training.scoring import judges_of
from masuka.training.validation import Validator, held_out, parted
from masuka.training.whole import save_base

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
    forget_peaks(plan.device)
    with plain_errors(), logged(plan, reporter) as reporter, own_randomness(plan.request.seed):
        training = prepare(plan, reporter, params.get("judges") or {})
        steps_before = len(training.losses)
        with together(plan, params, reporter) as training.learner.ranks:
            training.run()
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


def prepare(plan: Plan, reporter: Reporter, judges: Mapping[str, Any] | None = None) -> Training:
    """The training with its caches filled and its denoiser loaded, where it was left.

    `judges` are the folders of the models that tell likeness and prompt following.
    """
    reporter.stage("Checking pictures")
    sizes = check_pictures(plan.pictures, reporter)
    prior_sizes = check_pictures(plan.prior, reporter) if plan.prior else []
    reporter.stage("Caching captions")
    captions = [picture.caption for picture in plan.pictures]
    caches = plan.caches
    texts = cache_texts(plan.source, caches, [*captions, *texts_beside(plan), *texts_for(plan)], reporter)
    reporter.stage("Caching latents")
    latents = cache_latents(
        plan.source, caches, plan.pictures, plan.shapes(sizes), reporter, sizes=sizes, variety=plan.variety
    )
    prior = _prior(plan, caches, prior_sizes, reporter)
    keep_within(caches)
    if plan.device == "cpu":
        keep_freed_memory()
    held = held_out([p.sha256 for p in plan.pictures], plan.request.validation_share, plan.request.seed)
    learnt, kept = parted(latents, held)
    if held:
        reporter.note(f"{len(held)} of {len(plan.pictures)} pictures are kept for validation.")
    learner = _learner(plan, lessons_of(plan, texts, learnt, captions, prior), reporter)
    sampler = Sampler(plan, texts, reporter)
    validator = Validator(plan, kept if held else latents, texts, captions, held=bool(held))
    assessor = Assessor(plan, validator, sampler, reporter, *judges_of(plan, judges or {}))
    return Training(plan, learner, sampler, assessor, reporter)


class Training:
    """The steps of one training, with what happens between them."""

    def __init__(
        self, plan: Plan, learner: Learner, sampler: Sampler, assessor: Assessor, reporter: Reporter
    ) -> None:
        self._plan, self._learner, self._sampler, self._reporter = plan, learner, sampler, reporter
        self._assessor = assessor
        self._meter = Meter(plan, reporter)
        self._checkpoints = CheckpointFolder(
            plan.run_folder / "checkpoints", identity=plan.identity(), keep=plan.request.keep_checkpoints
        )
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds: deque[float] = deque(maxlen=STEPS_IN_MEDIAN)
        self._saved_step = 0
        self._stopped = ""
        self.losses: list[float] = []
        found, damaged = self._checkpoints.newest()
        for sentence in damaged:
            reporter.note(sentence)
        if found is not None:
            self.losses = learner.restore(found)
            self._saved_step = found.step
            self._started_at = found.state.get("started_at", self._started_at)
            reporter.note(f"Going on from step {found.step:,}.")
            best = assessor.best(found.step)
            self._checkpoints.best_step = None if best is None else best.step
        elif plan.begin is not None:
            begin_with(learner, plan.begin)

    @property
    def learner(self) -> Learner:
        """What learns here."""
        return self._learner

    def run(self) -> None:
        """Every step that is left, or until no score was better for long enough.

        Leaves a checkpoint of the last one, scored, and one of a pause.
        """
        total = self._plan.request.steps
        self._begin_steps()
        try:
            if self._plan.request.sample_without and self._plan.request.method in WEIGHED:
                self._sampler.draw_without(self._learner)
                self._begin_steps()
            if self._assessor.is_due(len(self.losses)):
                self._assess()  # it was lost between the checkpoint and its score
            while len(self.losses) < total and not self._ended_early():
                self.step()
        except Stop as stop:
            # A signal may come while the optimiser changes the weights, which are of no step then.
            if stop.why == "pause" and self._learner.whole_step == len(self.losses):
                self._save()
            raise
        self._save()
        self._assess()

    def step(self) -> None:
        """One optimiser step, reported; checkpoint, score and samples where due."""
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
        due = self._assessor.is_due(step)
        if due or step % self._plan.request.checkpoint_every == 0:
            self._save()
        every = self._plan.request.sample_every
        drawn = bool(every and step % every == 0)
        if drawn:
            self._sampler.draw(self._learner, step)
        if due:
            self._assess()
        if (due or drawn) and step < total:
            self._begin_steps()

    def finish(self) -> Exported:
        """The output folder of the best checkpoint, written and loaded back."""
        step, weight = self._take_best(), None
        if self._plan.request.method == "full":
            self._reporter.stage("Saving")
            made = save_base(self._plan, self._learner, self._reporter, losses=self.losses[:step])
            self._assessor.tell_report(len(self.losses), step, None, self._stopped)
            self._meter.tell(None)
            return made
        if self._plan.sample_prompts:
            self._reporter.stage("Finding the best weight")
            weight = self._assessor.find_weight(self._learner, step)
        samples = self._samples(step)
        self._reporter.stage("Saving")
        exported = export(
            self._plan, self._learner, samples, losses=self.losses[:step],
            started_at=self._started_at, weight=weight,
        )  # fmt: skip
        self._assessor.tell_report(len(self.losses), step, weight, self._stopped)
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
            best_weight=weight,
        )
        self._meter.tell(None)
        return exported

    def _begin_steps(self) -> None:
        self._reporter.stage("Training")
        self._reporter.progress(len(self.losses), self._plan.request.steps)

    def _assess(self) -> None:
        step = len(self.losses)
        if not self._assessor.is_scored(step):
            self._reporter.stage("Scoring")
            self._assessor.assess(self._learner, step)
        best = self._assessor.best(step)
        self._checkpoints.best_step = None if best is None else best.step

    def _ended_early(self) -> bool:
        self._stopped = self._assessor.stops(len(self.losses))
        if self._stopped:
            self._reporter.note(self._stopped)
        return bool(self._stopped)

    def _take_best(self) -> int:
        """The step of the best checkpoint, whose weights the learner holds now."""
        last = len(self.losses)
        # What was second may have become the best after rotation had taken it.
        there = {*self._checkpoints.steps(), last}
        while (best := self._assessor.best(last, among=there)) is not None and best.step != last:
            checkpoint = self._checkpoints.at(best.step)
            if checkpoint is not None:
                self._learner.restore(checkpoint)
                break
            there.remove(best.step)
        step, wanted = last if best is None else best.step, self._assessor.best(last)
        if wanted is not None and wanted.step != step:
            self._reporter.note(f"The checkpoint of step {wanted.step:,} is gone; that of step {step:,} is taken.")
        return step

    def _samples(self, step: int) -> list[Sample]:
        return self._sampler.kept(step) or self._sampler.draw(self._learner, step)

    def _save(self) -> None:
        step = len(self.losses)
        if step == self._saved_step:
            return
        checkpoint = self._learner.checkpoint(step, self.losses)
        state = {**checkpoint.state, "started_at": self._started_at}
        folder = self._checkpoints.save(replace(checkpoint, state=state))
        self._saved_step = step
        self._reporter.artefact("checkpoint", folder, step=step)
        self._meter.tell(statistics.median(self._seconds) if self._seconds else None)


def _prior(plan: Plan, caches: Path, sizes: list[tuple[int, int]], reporter: Reporter) -> Latents | None:
    """The latents of the class's own pictures, where the training has some."""
    if not plan.prior:
        return None
    return cache_latents(plan.source, caches, plan.prior, plan.shapes(sizes), reporter, sizes=sizes)


def _learner(plan: Plan, lessons: Lessons, reporter: Reporter) -> Learner:
    encoder = None
    if plan.request.train_text_encoder:
        encoder = plan.family.text_encoder(
            plan.folder, dtype=plan.dtype, device=plan.device, adaptable_only=True
        )
    return Learner(plan, lessons, reporter, text_encoder=encoder)
