"""The benchmark of trainings at true size, its models made small, on the CPU. No figure is asserted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import gpu_models, gpu_plain, harness, training_gpu
from benchmarks.gpu_models import Model

HEADS = {"num_attention_heads": 2, "attention_head_dim": 16}
SMALL: dict[str, dict[str, Any]] = {
    "FLUX1": {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 32, "pooled_projection_dim": 32,
              "axes_dims_rope": (4, 6, 6), **HEADS},
    "SDXL": {"block_out_channels": (32, 32, 32), "transformer_layers_per_block": (1, 1, 1),
             "attention_head_dim": (2, 2, 2), "cross_attention_dim": 32, "addition_time_embed_dim": 8,
             "projection_class_embeddings_input_dim": 80, "norm_num_groups": 8},
    "SD35_MEDIUM": {"num_layers": 2, "joint_attention_dim": 32, "caption_projection_dim": 32, "sample_size": 16,
                    "pooled_projection_dim": 32, "pos_embed_max_size": 16, "dual_attention_layers": (0,), **HEADS},
    "KLEIN_4B": {"num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 4, 4),
                 **HEADS},
    "Z_IMAGE": {"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
                "axes_dims": [4, 6, 6], "axes_lens": [64, 64, 64]},
}  # fmt: skip
TEXTS = {"prompt_embeds": (16, 32), "pooled_prompt_embeds": (32,), "prompt_embeds_mask": (16,)}


def small(name: str) -> Model:
    model: Model = getattr(gpu_models, name)
    return replace(model, config={**model.config, **SMALL[name]}, texts={text: TEXTS[text] for text in model.texts})


@pytest.mark.parametrize("cell", ["flux1_1024_bf16", "sdxl_1024", "klein4b_512", "zimage_512", "sd35m_1024"])
def test_a_cell_is_measured(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = training_gpu.CELLS[cell]
    monkeypatch.setattr(gpu_models, asked.model, small(asked.model))
    monkeypatch.setattr(training_gpu, "WARM_UP", 1)
    monkeypatch.setattr(training_gpu, "STEPS", 2)
    monkeypatch.setitem(training_gpu.CELLS, cell, replace(asked, px=256, cap_gib=None))
    figures = training_gpu.child(cell, "cpu")
    assert figures[f"{cell}_step_s"] > 0 and figures[f"{cell}_tflop"] > 0


def test_the_plain_loop_takes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_plain, "TRANSFORMER", {**SMALL["FLUX1"], "in_channels": 16, "guidance_embeds": True})
    monkeypatch.setattr(gpu_plain, "CLIP", {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2})
    monkeypatch.setattr(gpu_plain, "T5", {"d_model": 32, "d_kv": 16, "d_ff": 32, "num_layers": 1, "num_heads": 2})
    monkeypatch.setattr(gpu_plain, "VAE", {**gpu_plain.VAE, "block_out_channels": (8,) * 4, "latent_channels": 4, "norm_num_groups": 4})
    monkeypatch.setattr(training_gpu, "WARM_UP", 1)
    monkeypatch.setattr(training_gpu, "STEPS", 1)
    cell = replace(training_gpu.CELLS["flux1_1024_plain"], px=64)
    monkeypatch.setitem(training_gpu.CELLS, "flux1_1024_plain", cell)
    assert training_gpu.child("flux1_1024_plain", "cpu")["flux1_1024_plain_step_s"] > 0


def test_goals_are_told_of_what_was_measured_alone() -> None:
    assert training_gpu.bars({"flux1_1024_bf16_step_s": 1.0}) == {}
    both = {"flux1_1024_plain_step_s": 3.0, "flux1_1024_bf16_compiled_step_s": 1.0, "sdxl_1024_peak_gib": 8.0}
    told = training_gpu.bars(both)
    assert told["flux1_1024_times_as_fast"]["met"] and not told["sdxl_1024_peak_gib"]["met"]


def test_an_unknown_cell_is_named() -> None:
    with pytest.raises(ValueError, match="no cell 'flux9'"):
        harness.measure_cells("training-gpu", None, budget_s=1, cells=["flux9"])
