"""Trainings asked of the studio: what they will take, and how they go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.errors import Conflict, InvalidInput, NotFound, OutOfDisk, OutOfMemory
from masuka.hosting.machine import Gpu
from masuka.models.memory import GIB
from masuka.store import runs
from masuka.store.datasets import Dataset

SHORT: dict[str, Any] = {
    "steps": 10, "batch_size": 1, "rank": 4, "checkpoint_every": 5, "sample_every": 0, "lr_warmup_steps": 0,
    "precision": "fp32", "score_every": 10,
}  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    settings = Settings(workspace=Workspace(tmp_path_factory.mktemp("home")))
    with Studio.open(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def dataset(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return made(studio, tmp_path_factory.mktemp("photos"), "Mira")


@pytest.fixture(scope="module")
def finished(studio: Studio, dataset: Dataset) -> int:
    job = studio.jobs.wait(studio.training.start(dataset_id=dataset.id, **SHORT))
    assert job.run_id is not None
    return job.run_id


def made(studio: Studio, folder: Path, name: str) -> Dataset:
    for n in range(3):
        Image.new("RGB", (140, 130), (40 * n, 80, len(name) * 9)).save(folder / f"{n}.png")
    dataset = studio.datasets.create(name=name, trigger_word=f"{name.lower()}7x", class_word="robot")
    studio.jobs.wait(studio.datasets.add_pictures(dataset.id, folder))
    return studio.datasets.get(dataset.id)


def with_card(monkeypatch: pytest.MonkeyPatch, vram_gib: float, *, disk_gib: float = 200) -> None:
    """What the driver and the disk say from here on."""
    found = Gpu("a card", vram_gib, vram_gib, (8, 0), "570")
    monkeypatch.setattr("masuka.hosting.machine.list_gpus", lambda: [found])
    monkeypatch.setattr("masuka.hosting.machine.disk_free_gib", lambda folder: disk_gib)


def test_a_plan_is_made_of_what_would_be_started(studio: Studio, dataset: Dataset) -> None:
    forecast = studio.training.plan(dataset_id=dataset.id, **SHORT)
    assert forecast.fits
    assert forecast.pictures == 3
    assert (forecast.plan.request.steps, forecast.plan.request.resolution_px) == (10, 128)
    assert forecast.plan.changes == ()
    assert "of main memory" in forecast.sentence
    with pytest.raises(InvalidInput):
        studio.training.plan(dataset_id=dataset.id, base="pocket", steps=5)


def test_a_run_keeps_what_was_expected_and_what_it_took(studio: Studio, finished: int) -> None:
    run = studio.training.run(finished)
    assert run.estimate["peak_ram_bytes"] > GIB / 2
    assert run.estimate["parts"]["weights"] > 0
    assert run.measured["peak_ram_bytes"] > GIB / 8
    assert run.measured["seconds_per_step"] > 0
    assert run.estimate["machine"].startswith("cpu")


def test_the_time_is_that_of_the_last_training_scaled_by_the_work(
    studio: Studio, dataset: Dataset, finished: int
) -> None:
    same = studio.training.plan(dataset_id=dataset.id, **SHORT)
    pace = studio.training.run(finished).measured["seconds_per_step"]
    assert same.pace_from == "run"
    assert same.seconds_per_step == pytest.approx(pace)
    assert same.seconds == pytest.approx(10 * pace)
    assert "were measured with these settings" in same.sentence
    twice = studio.training.plan(dataset_id=dataset.id, **{**SHORT, "batch_size": 2, "steps": 100})
    assert twice.seconds == pytest.approx(200 * pace)
    assert "measured" not in twice.sentence


def test_what_does_not_fit_is_not_started(
    studio: Studio, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(studio.training.runs())
    with_card(monkeypatch, 0.5)
    with pytest.raises(OutOfMemory, match=r"of 0\.5 GiB of GPU memory: more than there is"):
        studio.training.start(dataset_id=dataset.id, **SHORT)
    with_card(monkeypatch, 80, disk_gib=0.001)
    with pytest.raises(OutOfDisk, match="The disk has"):
        studio.training.start(dataset_id=dataset.id, **SHORT)
    assert len(studio.training.runs()) == before


def test_where_memory_is_short_the_plan_is_what_is_started(
    studio: Studio, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_card(monkeypatch, 0.936)
    values = {**SHORT, "batch_size": 16, "resolution_px": 128}
    forecast = studio.training.plan(dataset_id=dataset.id, **values)
    assert forecast.plan.changes
    job = studio.training.start(dataset_id=dataset.id, **values)
    run = studio.training.run(job.run_id or 0)
    assert run.config == forecast.plan.request.as_dict()
    assert run.config["gradient_checkpointing"] == "on"
    assert run.estimate["changes"] == list(forecast.plan.changes)
    studio.training.delete(run.id)
    with pytest.raises(OutOfMemory, match="more than there is"):
        studio.training.start(dataset_id=dataset.id, **values, when_memory_runs_short="stop")


def test_a_trial_is_measured_and_counts_for_the_next_plan(studio: Studio, dataset: Dataset) -> None:
    values = {**SHORT, "batch_size": 3}
    job = studio.jobs.wait(studio.training.trial(dataset_id=dataset.id, **values))
    assert job.result is not None
    forecast = studio.training.plan(dataset_id=dataset.id, **values)
    assert forecast.pace_from == "trial"
    assert forecast.seconds_per_step == pytest.approx(job.result["seconds_per_step"])
    assert "were measured with these settings" in forecast.sentence
    assert job.run_id is None


def test_a_finished_training_goes_on_for_more_steps(studio: Studio, finished: int) -> None:
    before = {m.step: m.loss for m in studio.training.metrics(finished)}
    job = studio.jobs.wait(studio.training.extend(finished, 5))
    assert job.run_id == finished
    assert job.result is not None
    assert (job.result["steps"], job.result["steps_now"]) == (15, 5)
    metrics = {m.step: m for m in studio.training.metrics(finished)}
    after = {step: m.loss for step, m in metrics.items()}
    assert len(after) == 15
    # Pocket's course is a cosine, which had come to its end: it is now that of 15 steps.
    rates = [metrics[step].learning_rate or 0.0 for step in range(11, 16)]
    assert rates == sorted(rates, reverse=True) and rates[0] > 0
    assert {step: after[step] for step in before} == before
    assert studio.training.run(finished).config["steps"] == 15
    names = [a.name for a in studio.models.adapters() if a.run_id == finished]
    assert len(names) == 2


def test_a_training_goes_on_only_within_its_range_and_once_it_has_ended(
    studio: Studio, dataset: Dataset, finished: int
) -> None:
    with pytest.raises(InvalidInput, match="4,000"):
        studio.training.extend(finished, 4000)
    waiting = studio.training.start(dataset_id=dataset.id, **SHORT)
    with pytest.raises(Conflict, match="queued"):
        studio.training.extend(waiting.run_id or 0, 5)
    studio.training.delete(waiting.run_id or 0)


def test_a_branch_begins_with_what_the_checkpoint_had_learnt(studio: Studio, finished: int) -> None:
    job = studio.training.branch(finished, 5, learning_rate=1e-6, steps=10)
    assert job.run_id is not None
    run = studio.training.run(job.run_id)
    assert run.parent_id == finished
    assert run.config["learning_rate"] == 1e-6
    begun = Path(job.params["begins_with"]) / "adapter.safetensors"
    parent = studio.workspace.runs / f"{finished:05d}" / "checkpoints" / "step-00000005"
    assert begun.read_bytes() == (parent / "adapter.safetensors").read_bytes()
    studio.jobs.wait(job)
    # Hardly anything is learnt at that rate, so the LoRA is nearly the parent's.
    from safetensors.torch import load_file

    was = load_file(begun)
    state = studio.workspace.runs / f"{run.id:05d}" / "checkpoints" / "step-00000010"
    now = load_file(state / "adapter.safetensors")
    assert json.loads((state / "manifest.json").read_text())["step"] == 10
    for name, tensor in was.items():
        assert (now[name] - tensor).abs().max() < 1e-4, name
    assert any(tensor.abs().max() > 1e-3 for name, tensor in was.items() if "lora_B" in name)


def test_a_branch_keeps_its_shape_and_needs_its_checkpoint(studio: Studio, finished: int) -> None:
    with pytest.raises(InvalidInput, match="keeps its rank, which is 4"):
        studio.training.branch(finished, 5, rank=8)
    with pytest.raises(NotFound, match="step 7 is gone"):
        studio.training.branch(finished, 7)


def test_pictures_of_the_class_go_to_the_worker_with_their_words(
    studio: Studio, dataset: Dataset, tmp_path: Path
) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    others = made(studio, folder, "Crowd")
    job = studio.training.start(dataset_id=dataset.id, prior_dataset_id=others.id, **SHORT)
    given = job.params["prior_pictures"]
    assert len(given) == 3
    assert {Path(p["file"]).exists() for p in given} == {True}
    assert job.params["caches"] == str(studio.workspace.caches)
    assert runs.get_run(studio._context.store, actor=studio.actor, id=job.run_id or 0).id == job.run_id
    studio.training.delete(job.run_id or 0)


def test_a_waiting_training_can_be_put_first(studio: Studio, dataset: Dataset) -> None:
    jobs = [studio.training.start(dataset_id=dataset.id, **SHORT) for _ in range(3)]
    assert [job.id for job in studio.training.waiting()] == [job.id for job in jobs]
    studio.jobs.put_first(jobs[2].id)
    assert [job.id for job in studio.training.waiting()] == [jobs[2].id, jobs[0].id, jobs[1].id]
    studio.jobs.put_first(jobs[2].id)
    assert studio.training.waiting()[0].id == jobs[2].id
    studio.jobs.cancel([job.id for job in jobs])
    with pytest.raises(Conflict, match="does not wait any more"):
        studio.jobs.put_first(jobs[0].id)


def test_presets_are_offered_where_the_base_can_be_trained_so(studio: Studio, dataset: Dataset) -> None:
    assert studio.training.presets("pocket") == []  # which has 128 px only
    assert [p.name for p in studio.training.presets("flux1-dev")] == [
        "CharForge", "fluxgym", "ai-toolkit", "kohya_ss",
    ]  # fmt: skip
    values = studio.training.preset("charforge", base="flux1-dev", dataset_id=dataset.id)
    assert values == {
        "steps": 800, "batch_size": 1, "learning_rate": 8e-4, "resolution_px": 512, "rank": 8,
    }  # fmt: skip
    assert studio.training.preset("fluxgym", base="flux1-dev", dataset_id=dataset.id)["steps"] == 480
    with pytest.raises(NotFound, match="no preset"):
        studio.training.preset("kohya_xx", base="flux1-dev", dataset_id=dataset.id)
    for preset in studio.training.presets("flux1-dev"):
        assert studio.training.plan(dataset_id=dataset.id, base="flux1-dev", **preset.values).pictures == 3
