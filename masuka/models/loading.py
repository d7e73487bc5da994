"""Which device and number format a model runs in, and how it is put there."""

from __future__ import annotations

import gc
from typing import Any, Literal

import torch

from masuka.errors import InvalidInput, NoAccelerator, OutOfMemory
from masuka.families.base import Family

Placement = Literal["whole", "parts", "layers"]
ROOM_FOR_WORK_BYTES = 3 * 2**30
"""Free VRAM that drawing needs beside the weights, as InvokeAI and diffusers reserve."""
_FIRST_WITH_BF16 = 8  # Ampere; older cards emulate bf16, and torch's is_bf16_supported still says yes


def choose_device(setting: str) -> str:
    """'cuda', 'cuda:1', 'mps' or 'cpu'; 'auto' takes the best there is.

    Raises NoAccelerator when the one that is asked for is not there.
    """
    if setting == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = setting.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdigit()):
        raise InvalidInput(f"There is no device {setting!r}.", "Use auto, cpu, cuda or mps.", field="device")
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[kind]
    if int(number or 0) >= count:
        raise NoAccelerator(f"The device {setting} is not on this machine.", "Set the device to auto.")
    return setting


def choose_dtype(device: str, family: Family, setting: str = "auto") -> torch.dtype:
    """bf16 where the GPU computes in it, else fp16 if that stays finite, else fp32.

    `setting` is 'auto', 'bf16', 'fp16' or 'fp32'. Raises InvalidInput for fp16 on a CPU,
    where it is slower than fp32 and less exact.
    """
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if setting == "fp16" and device == "cpu":
        raise InvalidInput("fp16 needs a GPU.", "Use auto, bf16 or fp32.", field="precision")
    if setting in named:
        return named[setting]
    if setting != "auto":
        raise InvalidInput(
            f"There is no precision {setting!r}.", "Use auto, bf16, fp16 or fp32.", field="precision"
        )
    if device == "cpu":
        return torch.float32
    if device.startswith("cuda") and torch.cuda.get_device_capability(device)[0] >= _FIRST_WITH_BF16:
        return torch.bfloat16
    return torch.float16 if family.capabilities.fp16 else torch.float32


def place(pipeline: Any, device: str) -> Placement:
    """Puts a loaded pipeline where it fits: whole, part by part, or layer by layer."""
    if not device.startswith("cuda"):
        pipeline.to(device)
        return "whole"
    free, _ = torch.cuda.mem_get_info(device)
    parts = [weight_bytes(part) for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    placement = choose_placement(parts, free)
    if placement == "whole":
        pipeline.to(device)
    elif placement == "parts":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_sequential_cpu_offload(device=device)
    return placement


def choose_placement(parts_bytes: list[int], free_bytes: int) -> Placement:
    """How parts of these sizes fit into that much free VRAM, with room for the work."""
    room = free_bytes - ROOM_FOR_WORK_BYTES
    if sum(parts_bytes) <= room:
        return "whole"
    return "parts" if max(parts_bytes) <= room else "layers"


def weight_bytes(module: torch.nn.Module) -> int:
    """Bytes of the module's parameters and buffers."""
    tensors = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in tensors)


def quiet_libraries() -> None:
    """Keeps diffusers and transformers from drawing progress bars into the job's log."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


def free_memory() -> None:
    """Gives memory of dropped models back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def as_out_of_memory(error: BaseException, hint: str) -> OutOfMemory | None:
    """The sentence for an error that means 'no memory left'; None for any other error."""
    text = str(error)
    on_gpu = (
        isinstance(error, torch.OutOfMemoryError)
        or "CUDA out of memory" in text
        or "MPS backend out of" in text
    )
    in_ram = isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in text
    if not on_gpu and not in_ram:
        return None
    free = torch.cuda.mem_get_info()[0] if on_gpu and torch.cuda.is_available() else 0
    where = "The GPU's memory" if on_gpu else "The machine's memory"
    return OutOfMemory(f"{where} ran out.", hint, free=free)
