"""LoRA, DoRA and LoKr, with dropout and in chosen blocks: learnt, written, loaded, resumed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from masuka.errors import InvalidInput, Stop
from masuka.families.lora.keys_files import layers_of
from masuka.requests.training import TrainImage
from masuka.training import factors
from masuka.training.lora import LeanLayers, block_names, inject
from tests.tiny_flux import FLUX, tiny_folder, tiny_pipeline
from tests.tiny_training import Job, train_params, trained_weights

KINDS: dict[str, dict[str, Any]] = {
    "dora": {"method": "dora", "dropout": 0.2, "layers": "attention"},
    "lokr": {"method": "lokr", "lokr_factor": 4, "rank": 4, "alpha": 2, "layers": "attention"},
}


def asked(**values: Any) -> TrainImage:
    return TrainImage.parse({"dataset_id": 1, "rank": 4, **values})


def denoiser() -> torch.nn.Module:
    return FLUX.denoiser(tiny_folder(), dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module", params=list(KINDS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp(request.param)
    params = train_params(root, **KINDS[request.param])
    return request.param, params, Job(root).run(params)


def test_a_training_of_each_kind_goes_on_exactly(trained: Any, tmp_path: Path) -> None:
    kind, whole, _ = trained
    params = train_params(tmp_path, **KINDS[kind])
    with pytest.raises(Stop):
        Job(tmp_path, stop="pause", after_step=3).run(params)
    Job(tmp_path, attempt=2).run(params)
    resumed, expected = trained_weights(params), trained_weights(whole)
    assert resumed.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.items())


def test_the_file_of_each_kind_adds_what_was_learnt(trained: Any) -> None:
    """To every weight, within the precision of the file; the stock pipeline alone reads it."""
    kind, params, result = trained
    assert result["applied"] == result["total"] > 0
    checkpoint = max(Path(params["run_folder"], "checkpoints").glob("step-*"))
    learnt = {k.removeprefix("denoiser:"): v for k, v in load_file(checkpoint / "adapter.safetensors").items()}
    scale = 0.5 if kind == "lokr" else 1.0
    pipeline = tiny_pipeline()
    before = copy.deepcopy(pipeline.transformer)
    pipeline.load_lora_weights(result["file"], adapter_name="x")
    for module, leaves in layers_of(learnt).items():
        weight = before.get_submodule(module).weight.detach()
        wanted = factors.delta(leaves, weight) * scale
        layer = pipeline.transformer.get_submodule(module)
        layer.merge(adapter_names=["x"])
        found = layer.base_layer.weight.detach() - weight
        assert float(wanted.norm()) > 0
        assert float((found - wanted).norm()) < 0.02 * float(wanted.norm()), module


def test_the_side_car_says_the_kind_and_who_reads_the_file(trained: Any) -> None:
    kind, params, result = trained
    about = json.loads(Path(params["output"], "masuka.json").read_text())
    assert about["kind"] == kind
    assert about["kept"] == pytest.approx(1.0, abs=1e-6)
    assert about["readers"]["ComfyUI"] == "ComfyUI reads it."
    assert about["readers"]["diffusers"] == "diffusers reads it."
    names = load_file(result["file"]).keys()
    assert any("dora_scale" in name for name in names) == (kind == "dora")
    beside = [file.name for file in Path(params["output"]).glob("* lokr.safetensors")]
    assert len(beside) == (kind == "lokr")


def test_a_private_file_says_only_how_to_use_it(tmp_path: Path) -> None:
    params = train_params(tmp_path, private=True, steps=2, layers="attention", sample_every=0)
    with safe_open(Job(tmp_path).run(params)["file"], "pt") as opened:
        metadata = opened.metadata()
    assert metadata["modelspec.trigger_phrase"] == "mira7x robot"
    assert json.loads(metadata["ss_tag_frequency"]) == {"Mira 1": {"mira7x": 1}}
    told = " ".join(metadata)
    assert not any(word in told for word in ("num_train", "learning_rate", "seed", "thumbnail", "started", "sd_model"))
    assert "modelspec.description" not in metadata


def test_only_the_chosen_blocks_learn() -> None:
    module = denoiser()
    assert block_names(module) == [
        "transformer_blocks.0", "transformer_blocks.1", "single_transformer_blocks.0", "single_transformer_blocks.1",
    ]  # fmt: skip
    named = inject(module, asked(), FLUX.lora_targets["attention"], blocks="1-2")
    assert {name.split(".attn")[0].rsplit(".proj_out")[0] for name in named} == {
        "transformer_blocks.1", "single_transformer_blocks.0",
    }  # fmt: skip


def test_a_block_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="this base has 4: 0 to 3"):
        inject(denoiser(), asked(), FLUX.lora_targets["attention"], blocks="2, 7-9")


def test_a_unets_middle_is_counted_between_its_halves() -> None:
    module = torch.nn.Module()
    for name in ("down_blocks", "up_blocks"):
        setattr(module, name, torch.nn.ModuleList([torch.nn.Linear(1, 1) for _ in range(2)]))
    module.mid_block = torch.nn.Linear(1, 1)
    assert block_names(module) == ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]


@pytest.mark.parametrize("values", [{"dropout": 0.1}, {"method": "dora"}, {"method": "lokr"}])
def test_only_a_plain_lora_without_dropout_runs_lean(values: dict[str, Any]) -> None:
    module = denoiser()
    inject(module, asked(**values), FLUX.lora_targets["attention"])
    assert len(LeanLayers(module, torch.float32)) == 0


def test_a_lokr_on_a_quantised_base_is_refused() -> None:
    with pytest.raises(InvalidInput, match="A LoKr cannot learn on a quantised base"):
        asked(method="lokr", quantize="nf4")


def test_a_text_encoders_dora_is_loaded_whole(tmp_path: Path) -> None:
    """Here and by the stock pipeline: transformers drops magnitudes under peft's own name."""
    params = train_params(tmp_path, method="dora", train_text_encoder=True, steps=2, layers="attention")
    result = Job(tmp_path).run(params)
    assert result["applied"] == result["total"]
    checkpoint = load_file(max(Path(params["run_folder"], "checkpoints").glob("step-*")) / "adapter.safetensors")
    magnitudes = {k: v for k, v in checkpoint.items() if k.startswith("text:") and "magnitude" in k}
    assert magnitudes
    ours, theirs = tiny_pipeline(), tiny_pipeline()
    FLUX.load_adapter(ours, Path(result["file"]), "x")
    theirs.load_lora_weights(result["file"], adapter_name="x")
    for pipeline in (ours, theirs):
        loaded = dict(pipeline.text_encoder.named_parameters())
        for name, learnt in magnitudes.items():
            key = name.removeprefix("text:").replace("magnitude_vector.", "magnitude_vector.x.")
            torch.testing.assert_close(loaded[key].detach(), learnt, rtol=0, atol=1e-6)
