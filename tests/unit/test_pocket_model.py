"""The shipped model is a stock FluxPipeline folder, small, and draws what it is told."""

from __future__ import annotations

import json

import pytest
import torch

from masuka import pocket
from masuka.pocket.judge import Judge

MIB = 2**20
WEIGHTS = pocket.FOLDER.parent
PARTS = {
    "scheduler": "FlowMatchEulerDiscreteScheduler",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "T5EncoderModel",
    "transformer": "FluxTransformer2DModel",
    "vae": "AutoencoderKL",
}


def test_everything_shipped_is_small() -> None:
    sizes = {path: path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 28 * MIB
    assert max(sizes.values()) <= 9 * MIB
    assert (pocket.FOLDER / "README.md").read_text().startswith("---\nlicense: apache-2.0\n")


def test_the_folder_names_stock_classes_only() -> None:
    index = json.loads((pocket.FOLDER / "model_index.json").read_text())
    assert index["_class_name"] == "FluxPipeline"
    assert {name: index[name][1] for name in PARTS} == PARTS
    assert {index[name][0] for name in PARTS} == {"diffusers", "transformers"}


@pytest.mark.slow
def test_the_stock_pipeline_loads_it_and_draws_what_the_prompt_says() -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(pocket.FOLDER, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt="a happy red square plain robot wearing a crown and a bow tie in the snow",
        negative_prompt="",
        true_cfg_scale=1.5,
        num_images_per_prompt=2,
        num_inference_steps=20,
        width=pocket.SIZE_PX,
        height=pocket.SIZE_PX,
        max_sequence_length=pocket.TEXT_TOKENS,
        generator=torch.Generator().manual_seed(1),
    ).images
    for found in Judge.load(pocket.JUDGE_FOLDER).attributes(images):
        wanted = {"body": "square", "colour": "red", "hat": "crown", "place": "snow", "antenna": "none"}
        assert {name: found[name] for name in wanted} == wanted
