"""Whole trainings on a tiny FLUX: what they make, and that a stopped one goes on exactly."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from masuka.errors import Conflict, InvalidInput, NoAccelerator, Stop, TrainingError
from masuka.families.flux import Flux, TextEncoders
from masuka.jobs.worker import _stopped_by_sigterm
from masuka.training.checkpoints import MANIFEST, CheckpointFolder
from masuka.training.image import prepare
from masuka.training.learner import Measured
from masuka.training.plan import plan_of
from tests.tiny_flux import FLUX, random_lora, tiny_folder, tiny_pipeline
from tests.tiny_training import Job, train_params, trained_weights

EVERYTHING: dict[str, Any] = {
    "gradient_accumulation_steps": 2,
    "caption_dropout": 0.3,
    "ema_decay": 0.9,
    "lr_scheduler": "cosine",
}


def assert_same_training(params: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = trained_weights(params), trained_weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor.double(), second[name].double(), rtol=0, atol=1e-6), name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Job, dict[str, Any]]:
    root = tmp_path_factory.mktemp("finished")
    params = train_params(root, sample_every=6, score_every=6, **EVERYTHING)
    job = Job(root)
    return params, job, job.run(params)


def test_a_training_reports_every_step_and_every_stage(finished: Any) -> None:
    params, job, result = finished
    stages = [event["name"] for event in job.events("stage")]
    preparing = ["Checking pictures", "Caching captions", "Caching latents"]
    ending = ["Training", "Drawing samples", "Scoring", "Finding the best weight", "Saving"]
    assert stages == [*preparing, *ending]
    metrics = job.events("metric")
    assert [event["step"] for event in metrics] == list(range(1, 7))
    for event in metrics:
        assert set(event["values"]) == {"loss", "learning_rate", "seconds_per_step", "grad_norm"}
        assert all(math.isfinite(value) and value > 0 for value in event["values"].values())
    assert metrics[-1]["epoch"] == 4  # 6 steps of 2 × 2 pictures, 5 pictures
    assert [event["about"]["step"] for event in job.artefacts("checkpoint")] == [5, 6]
    assert result["steps"] == 6 and result["applied"] == result["total"] > 0
    assert max(event["step"] for event in job.events("progress") if event["total"] == 6) == 6
    assert not Path(params["run_folder"], "caches").exists()


def test_the_output_explains_itself(finished: Any) -> None:
    params, job, result = finished
    folder = Path(params["output"])
    assert sorted(f.name for f in folder.iterdir()) == ["Mira 1.safetensors", "masuka.json", "sample.png"]
    about = json.loads((folder / "masuka.json").read_text())
    assert about["sha256"] == result["sha256"] == job.artefacts("adapter")[0]["about"]["sha256"]
    assert about["trigger_word"] == "mira7x" and about["base"]["id"] == "pocket"
    assert about["content"]["pictures"] == {
        p["sha256"]: f"mira7x robot number {p['id']}" for p in params["pictures"]
    }
    assert about["config"]["rank"] == 4 and about["steps"] == 6 and "torch" in about["versions"]
    adapter = job.artefacts("adapter")[0]["about"]
    assert (adapter["run_id"], adapter["character_id"], adapter["name"]) == (3, 9, "Mira 1")
    with Image.open(folder / "sample.png") as sample:
        assert sample.size == (128, 128)
    assert [event["about"]["step"] for event in job.artefacts("sample")] == [6]


def test_the_file_says_what_other_tools_ask(finished: Any) -> None:
    params, _, _ = finished
    file = Path(params["output"], "Mira 1.safetensors")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
        keys = list(opened.keys())
    assert all(key.startswith("transformer.") and ".lora_" in key for key in keys)
    assert metadata["format"] == "pt"
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "4"
    assert json.loads(metadata["ss_tag_frequency"]) == {"Mira 1": {"mira7x": 5}}
    assert metadata["modelspec.trigger_phrase"] == "mira7x robot"
    assert metadata["modelspec.architecture"] == "pocket/lora"
    assert metadata["modelspec.license"] == "Apache-2.0"
    assert metadata["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert len(metadata["sshs_model_hash"]) == 64 and len(metadata["sshs_legacy_hash"]) == 8
    assert "lora_adapter_metadata" in metadata
    told = json.dumps({k: v for k, v in metadata.items() if k != "modelspec.thumbnail"})
    assert "number 1" not in told and str(Path(params["run_folder"]).parent) not in told


def test_the_file_changes_what_the_stock_pipeline_computes(finished: Any) -> None:
    params, _, _ = finished
    pipeline = tiny_pipeline()
    report = FLUX.load_adapter(pipeline, Path(params["output"], "Mira 1.safetensors"), "mira")
    assert report.applied == report.total > 0
    loaded = {n: p for n, p in pipeline.transformer.named_parameters() if ".lora_B.mira" in n}
    average = load_file(max(Path(params["run_folder"], "checkpoints").glob("step-*")) / "average.safetensors")
    for name, weight in loaded.items():
        kept = average[f"denoiser:{name.replace('.mira', '')}"]
        assert torch.allclose(weight.detach(), kept, atol=1e-2 * float(kept.abs().max()))
        assert float(weight.detach().abs().sum()) > 0


@pytest.mark.parametrize(("after_step", "checks"), [(3, 0), (3, 5)])
def test_a_paused_training_goes_on_exactly(
    tmp_path: Path, finished: Any, after_step: int, checks: int
) -> None:
    """`checks` decides where within the next step the pause comes: at its start or inside the model."""
    uninterrupted, straight, _ = finished
    params = train_params(tmp_path, **EVERYTHING)
    first = Job(tmp_path, stop="pause", after_step=after_step, checks=checks)
    with pytest.raises(Stop):
        first.run(params)
    assert [event["about"]["step"] for event in first.artefacts("checkpoint")] == [after_step]
    assert not Path(params["output"]).exists()
    second = Job(tmp_path, attempt=2)
    result = second.run(params)
    assert result["steps"] == 6 and result["steps_now"] == 6 - after_step
    assert {**first.losses(), **second.losses()} == pytest.approx(straight.losses(), abs=1e-6)
    assert_same_training(params, uninterrupted)


def test_a_signal_inside_the_optimiser_saves_no_step_of_its_own(tmp_path: Path, finished: Any) -> None:
    uninterrupted, straight, _ = finished
    params, steps = train_params(tmp_path, **EVERYTHING), []

    def going_down(*_: object) -> None:
        steps.append(1)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    first = Job(tmp_path)
    hook = register_optimizer_step_post_hook(going_down)
    try:
        with _stopped_by_sigterm(tmp_path / "stop"), pytest.raises(Stop, match="pause"):
            first.run(params)
    finally:
        hook.remove()
    assert len(first.losses()) == 2 and first.artefacts("checkpoint") == []
    second = Job(tmp_path, attempt=2)
    second.run(params)
    assert second.losses() == pytest.approx(straight.losses(), abs=1e-6)
    assert_same_training(params, uninterrupted)


def test_a_resumed_training_knows_when_it_began(tmp_path: Path) -> None:
    params = train_params(tmp_path)
    with pytest.raises(Stop):
        Job(tmp_path, stop="pause", after_step=2).run(params)
    folder = max(Path(params["run_folder"], "checkpoints").glob("step-*"))
    identity = json.loads((folder / MANIFEST).read_text())["identity"]
    checkpoints = CheckpointFolder(folder.parent, identity=identity, keep=2)
    began = "2026-01-02T03:04:05+00:00"
    found, _ = checkpoints.newest()
    assert found is not None and "started_at" in found.state
    checkpoints.save(replace(found, state={**found.state, "started_at": began}))
    file = Job(tmp_path, attempt=2).run(params)["file"]
    with safe_open(file, "pt") as opened:
        started = float(opened.metadata()["ss_training_started_at"])
    assert started == datetime.fromisoformat(began).timestamp()


def test_a_skipped_steps_gradient_is_not_told() -> None:
    assert Measured(0.5, 2.0, 1e-3, 0).figures() == {"loss": 0.5, "learning_rate": 1e-3, "grad_norm": 2.0}
    for norm in (math.inf, math.nan):
        assert Measured(0.5, norm, 1e-3, 0).figures() == {"loss": 0.5, "learning_rate": 1e-3}


def test_a_training_adapter_may_cover_more_layers(tmp_path: Path) -> None:
    adapter = tmp_path / "training" / "adapter.safetensors"
    FLUX.save_adapter(adapter, random_lora(), {})
    params = train_params(tmp_path, steps=2, layers="attention")
    params["base"]["training_adapter"] = str(adapter.parent)
    result = Job(tmp_path).run(params)
    assert result["applied"] == result["total"] > 0


def test_a_training_adapter_that_did_not_arrive_is_said(tmp_path: Path) -> None:
    params = train_params(tmp_path)
    params["base"]["training_adapter"] = str(tmp_path / "nothing")
    with pytest.raises(Conflict, match="Pocket learns with"):
        Job(tmp_path).run(params)


def test_a_cancelled_training_leaves_no_adapter(tmp_path: Path) -> None:
    params = train_params(tmp_path)
    job = Job(tmp_path, stop="cancel", after_step=2, checks=3)
    with pytest.raises(Stop):
        job.run(params)
    assert job.artefacts("checkpoint") == [] and not Path(params["output"]).parent.exists()


def test_a_loss_that_is_not_finite_stops_with_a_sentence(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_folder(), base)
    file = next((base / "transformer").glob("*.safetensors"))
    weights = load_file(file)
    weights["proj_out.bias"].fill_(math.inf)
    save_file(weights, file, {"format": "pt"})
    params = train_params(tmp_path, base=base)
    with pytest.raises(TrainingError, match="at step 1") as caught:
        Job(tmp_path).run(params)
    assert "learning rate" in caught.value.hint
    assert list(Path(params["run_folder"], "checkpoints").iterdir()) == []


def test_bf16_prodigy_and_recomputed_activations_train(tmp_path: Path) -> None:
    params = train_params(
        tmp_path, steps=3, precision="bf16", optimizer="prodigy", gradient_checkpointing="on", alpha=8
    )
    result = Job(tmp_path).run(params)
    assert result["applied"] == result["total"] > 0
    with safe_open(result["file"], "pt") as opened:
        assert opened.metadata()["ss_network_alpha"] == "4"  # alpha is folded into the weights


def test_the_text_encoder_learns_where_asked(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=3, train_text_encoder=True)
    result = Job(tmp_path).run(params)
    with safe_open(result["file"], "pt") as opened:
        text = [key for key in opened.keys() if key.startswith("text_encoder.")]  # noqa: SIM118
        moved = [float(opened.get_tensor(key).abs().sum()) for key in text if "lora_B" in key]
    assert moved and all(value > 0 for value in moved)
    assert result["applied"] == result["total"]


class ExactText(Flux):
    """FLUX whose encoders compute in fp32 whatever is asked, as they do for fp16."""

    def text_encoder(self, folder: Path, *, dtype: torch.dtype, **options: Any) -> TextEncoders:
        return super().text_encoder(folder, dtype=torch.float32, **options)


def test_a_text_encoder_of_another_precision_learns(tmp_path: Path) -> None:
    params = train_params(tmp_path, steps=2, precision="bf16", train_text_encoder=True)
    job = Job(tmp_path)
    training = prepare(replace(plan_of(params), family=ExactText()), job)
    training.run()
    job.close()
    moved = {
        n: t for n, t in trained_weights(params).items() if n.startswith("adapter/text:") and "lora_B" in n
    }
    assert moved and all(float(tensor.abs().sum()) > 0 for tensor in moved.values())


@pytest.mark.slow
def test_the_seed_decides_the_training(tmp_path: Path) -> None:
    one = Job(tmp_path / "a")
    one.run(train_params(tmp_path / "a", steps=3, seed=1))
    same, other = Job(tmp_path / "b"), Job(tmp_path / "c")
    same.run(train_params(tmp_path / "b", steps=3, seed=1))
    other.run(train_params(tmp_path / "c", steps=3, seed=2))
    assert one.losses() == pytest.approx(same.losses(), abs=1e-6)
    assert one.losses() != pytest.approx(other.losses(), abs=1e-4)


@pytest.mark.parametrize(
    ("request_values", "error"),
    [
        ({"optimizer": "adamw8bit"}, NoAccelerator),
        ({"quantize": "nf4"}, NoAccelerator),
        ({"precision": "fp16"}, InvalidInput),
    ],
)
def test_what_this_machine_cannot_do_is_said(
    tmp_path: Path, request_values: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        Job(tmp_path).run(train_params(tmp_path, **request_values))


def test_a_changed_picture_stops_before_anything_is_loaded(tmp_path: Path) -> None:
    params = train_params(tmp_path)
    Path(params["pictures"][2]["file"]).write_bytes(b"other")
    job = Job(tmp_path)
    with pytest.raises(InvalidInput, match=r"2\.png"):
        job.run(params)
    assert [event["name"] for event in job.events("stage")] == ["Checking pictures"]
