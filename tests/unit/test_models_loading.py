"""Device, number format and placement."""

from __future__ import annotations

import pytest
import torch

from masuka.errors import InvalidInput, NoAccelerator, OutOfMemory
from masuka.families.flux import Flux
from masuka.families.parts.weights import quantized
from masuka.models import loading

GIB = 2**30


def test_auto_takes_what_is_there() -> None:
    there = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert loading.choose_device("auto") == there
    assert loading.choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(NoAccelerator, match="cuda:77"):
        loading.choose_device("cuda:77")
    with pytest.raises(InvalidInput, match="toaster"):
        loading.choose_device("toaster")


def test_a_cpu_computes_in_fp32_unless_asked() -> None:
    assert loading.choose_dtype("cpu", Flux()) == torch.float32
    assert loading.choose_dtype("cpu", Flux(), "bf16") == torch.bfloat16
    with pytest.raises(InvalidInput, match="fp16"):
        loading.choose_dtype("cpu", Flux(), "fp16")
    with pytest.raises(InvalidInput, match="fp8"):
        loading.choose_dtype("cpu", Flux(), "fp8")


@pytest.mark.parametrize(
    ("free_gib", "placement"), [(40, "whole"), (30, "parts"), (12, "layers"), (37, "whole"), (36.9, "parts")]
)
def test_flux_is_placed_by_what_is_free(free_gib: float, placement: str) -> None:
    parts = [int(size * GIB) for size in (22, 10, 1, 1)]
    assert loading.choose_placement(parts, int(free_gib * GIB)) == placement


def test_weights_are_counted() -> None:
    assert loading.weight_bytes(torch.nn.Linear(10, 10).to(torch.bfloat16)) == 220


def test_out_of_memory_is_told_from_other_errors() -> None:
    shortage = loading.as_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."), "Draw less.")
    assert isinstance(shortage, OutOfMemory)
    assert shortage.hint == "Draw less."
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert isinstance(loading.as_out_of_memory(caught.value, ""), OutOfMemory)
    assert loading.as_out_of_memory(RuntimeError("shapes differ"), "") is None


@pytest.mark.parametrize("quantize", ["int8", "nf4"])
def test_fewer_bits_need_an_nvidia_gpu(quantize: str) -> None:
    assert quantized("none", dtype=torch.float32, device="cpu") == {}
    with pytest.raises(NoAccelerator, match="NVIDIA"):
        quantized(quantize, dtype=torch.bfloat16, device="cpu")
    with pytest.raises(InvalidInput):
        quantized("int2", dtype=torch.bfloat16, device="cuda")
