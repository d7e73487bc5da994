"""The number format of every part, for each precision that a plan can have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from masuka.families.parts.weights import beside_fp16
from masuka.training.plan import Plan, plan_of
from tests.tiny_flux import FLUX, tiny_folder
from tests.tiny_training import train_params

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_of(train_params(tmp_path, count=1))


def formats(module: nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


@pytest.mark.parametrize(
    ("dtype", "clip", "t5"), [(FP32, FP32, FP32), (BF16, BF16, BF16), (FP16, FP32, BF16)]
)
def test_text_is_never_read_in_fp16(dtype: torch.dtype, clip: torch.dtype, t5: torch.dtype) -> None:
    encoder = FLUX.text_encoder(tiny_folder(), dtype=dtype, device="cpu")
    assert (formats(encoder.clip), formats(encoder.t5)) == ({clip}, {t5})
    with torch.no_grad():
        text = FLUX.encode_text(encoder, ["a red robot"])
    assert all(torch.isfinite(tensor).all() for tensor in text.values())


@pytest.mark.parametrize(
    ("dtype", "clip", "t5"), [(FP32, FP32, FP32), (BF16, BF16, BF16), (FP16, FP32, BF16)]
)
def test_a_pipeline_draws_in_its_own_format_and_reads_in_another(
    dtype: torch.dtype, clip: torch.dtype, t5: torch.dtype
) -> None:
    pipeline = FLUX.pipeline(tiny_folder(), dtype=dtype, device="cpu")
    assert (formats(pipeline.transformer), formats(pipeline.vae)) == ({dtype}, {dtype})
    assert (formats(pipeline.text_encoder), formats(pipeline.text_encoder_2)) == ({clip}, {t5})


def test_where_it_computes_decides_not_where_it_lies_first() -> None:
    """A drawer loads into the machine's memory and puts the parts on the GPU afterwards."""
    pipeline = FLUX.pipeline(tiny_folder(), dtype=FP16, device="cpu", computes_on="meta")
    assert formats(pipeline.text_encoder_2) == {FP32}


def test_a_device_that_cannot_compute_bf16_reads_in_fp32() -> None:
    assert beside_fp16("cpu") == BF16
    assert beside_fp16("meta") == FP32  # which computes nothing at all


@pytest.mark.parametrize(
    ("device", "dtype", "pixels", "text"),
    [
        ("cpu", FP32, FP32, FP32),
        ("cpu", BF16, FP32, FP32),
        ("cuda", FP32, FP32, FP32),
        ("cuda", BF16, BF16, BF16),
        ("cuda", FP16, FP32, FP16),  # and the family does not take T5 at its word
    ],
)
def test_caches_are_filled_in_what_stays_finite(
    plan: Plan, device: str, dtype: torch.dtype, pixels: torch.dtype, text: torch.dtype
) -> None:
    source = replace(plan, device=device, dtype=dtype).source
    assert (source.dtype, source.text_dtype) == (pixels, text)


def test_a_text_encoder_that_learns_comes_alone() -> None:
    captions = ["mira7x robot", ""]
    whole = FLUX.text_encoder(tiny_folder(), dtype=FP32, device="cpu")
    alone = FLUX.text_encoder(tiny_folder(), dtype=FP32, device="cpu", adaptable_only=True)
    assert alone.t5 is None
    assert FLUX.adaptable_text_encoder(alone) is alone.clip
    with torch.no_grad():
        ours, theirs = (FLUX.encode_adapted_text(encoder, captions) for encoder in (alone, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
