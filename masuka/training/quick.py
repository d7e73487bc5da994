"""Doing the same arithmetic faster where torch's defaults are slow: on a CPU.

Nothing here changes what is computed beyond rounding; on other devices it does nothing.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

SHORT_SEQUENCE_PX = 192
"""Up to this resolution a picture's attention matrix is small enough to be written out.

At 256 px it held a tenth of the memory of a whole training (benchmark `spine`, 512-wide)."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_BYTES = 32 * 2**20  # the most that glibc accepts
_TRIM_BYTES = 256 * 2**20


@contextmanager
def plain_attention(device: str, dtype: torch.dtype, resolution_px: int) -> Iterator[None]:
    """Within it short bf16 sequences are attended by two matrix products on a CPU.

    torch 2.13's fused attention does not use bf16 instructions there: forward and backward
    of 16 × 4 × 96 × 64 took 17 ms of one core, the products 6 ms.
    """
    if device != "cpu" or dtype != torch.bfloat16 or resolution_px > SHORT_SEQUENCE_PX:
        yield
        return
    before = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    # The flag is torch's for every device, in spite of its place.
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)


def keep_freed_memory() -> None:
    """Lets this process reuse one step's memory in the next.

    glibc gives every large block back and the kernel clears it again: a tenth of a small
    model's step. What was freed before (encoders, their activations) goes back first.
    Elsewhere than on glibc this does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        mallopt = libc.mallopt
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
