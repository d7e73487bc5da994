"""How weights are read: safetensors only, from a folder only, in fewer bits where asked."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.errors import InvalidInput, NoAccelerator

if TYPE_CHECKING:
    import torch


def load(kind: Any, folder: Path, dtype: Any, **options: Any) -> Any:
    """A diffusers model or pipeline of that class, from the folder, never from a net."""
    # diffusers 0.39 knows torch_dtype only and ignores dtype; from 0.40 on it warns (its #14205).
    name = "dtype" if release("diffusers") >= (0, 40) else "torch_dtype"
    options[name] = dtype
    return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)


def frozen(module: Any, device: str | None) -> Any:
    """The module on the device, nothing to train, dropout off; None: where it is."""
    module.requires_grad_(False).eval()
    return module if device is None else module.to(device)


def device_of(module: Any) -> torch.device:
    """Where the module computes; an offloaded one's weights lie elsewhere."""
    offloaded = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    import torch

    return torch.device(offloaded if offloaded is not None else next(module.parameters()).device)


def beside_fp16(device: str) -> torch.dtype:
    """For what overflows in fp16: bf16 where the device computes it, else fp32.

    Cards before Ampere compute bf16 slowly, which is of no weight for a text that is read
    once; in fp32 FLUX's T5 takes 18 GiB, more than such cards have.
    """
    import torch

    try:
        ones = torch.ones(2, 2, dtype=torch.bfloat16, device=device)
        computes = (ones @ ones).sum().item() == 8
    except (RuntimeError, TypeError):  # what torch raises for a format that a device lacks
        computes = False
    return torch.bfloat16 if computes else torch.float32


def text_dtypes(dtype: torch.dtype, device: str, *, small: str, large: str) -> dict[str, torch.dtype]:
    """The formats of a small and of a large text encoder, by name.

    `dtype` is the denoiser's. Beside fp16 the large one (T5) would overflow, and the small
    one (CLIP), which may be trained, stays exact: it is no weight.
    """
    import torch

    if dtype != torch.float16:
        return {small: dtype, large: dtype}
    return {small: torch.float32, large: beside_fp16(device)}


def quantized(quantize: str, *, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Arguments for `load` that keep a frozen model in 8 or 4 bits; empty for 'none'.

    Raises NoAccelerator off CUDA and InvalidInput for a word that is not known.
    """
    if quantize == "none":
        return {}
    if quantize not in ("int8", "nf4"):
        raise InvalidInput(f"Quantise the base is {quantize!r}.", "Use none, int8 or nf4.", field="quantize")
    if not device.startswith("cuda"):
        raise NoAccelerator(
            f"A base in {quantize} needs an NVIDIA GPU, and this runs on {device}.",
            "Set 'Quantise the base' to none.",
        )
    from diffusers import BitsAndBytesConfig

    if quantize == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return {"quantization_config": config, "device_map": {"": device}}


def release(library: str) -> tuple[int, int]:
    """The first two numbers of the installed version; reads no code of the library."""
    major, minor = version(library).split(".")[:2]
    return int(major), int(minor)
