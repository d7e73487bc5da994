"""A training in a worker that stops early: what the studio knows of it afterwards."""

from __future__ import annotations

import psutil
import pytest

from masuka import Settings, Studio
from tests.worker.desk import workers_of


@pytest.mark.slow
def test_an_early_stop_leaves_the_best_and_its_report(settings: Settings) -> None:
    """Validation alone decides, with a learning rate at which it soon grows worse."""
    with Studio.open(settings, workers="processes") as studio:
        made = studio.datasets.create(name="Bolt", trigger_word="bolt7x", class_word="robot")
        studio.jobs.wait(studio.datasets.add_samples(made.id, seed=7, count=4), timeout_s=300)
        job = studio.training.start(
            dataset_id=made.id, steps=200, batch_size=1, learning_rate=1e-2, lr_scheduler="constant",
            lr_warmup_steps=0, score_every=1, stop_early=2, sample_every=0, validation_share=0.5, keep_checkpoints=1,
        )  # fmt: skip
        done = studio.jobs.wait(job, timeout_s=600)
        assert done.run_id is not None and done.result is not None
        run, scores = studio.training.run(done.run_id), studio.reports.scores(done.run_id)
        kept = studio.reports.checkpoints(done.run_id)
        adapter = next(a for a in studio.models.adapters() if a.run_id == done.run_id)
        studio._context.supervisor.stop(end_workers=True)  # type: ignore[union-attr]
    psutil.wait_procs(workers_of(settings), timeout=20)
    report = run.report
    best, last = report["best_step"], done.result["steps"]
    assert report["stopped_early"] and last == best + 2 < 200
    assert report["sentences"][0].startswith(f"Stopped at step {last}: 2 scores without a better one")
    measured = {s.step: s.value for s in scores if s.name == "validation"}
    assert set(measured) == set(range(1, last + 1)) and min(measured, key=lambda step: measured[step]) == best
    assert [one.step for one in kept if one.best] == [best] and {one.step for one in kept} == {best, last}
    assert adapter.best_weight is None  # no samples, no likeness
    assert adapter.config["validation_share"] == 0.5
