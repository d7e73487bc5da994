"""How a frozen denoiser is loaded in fewer bits: bitsandbytes, on NVIDIA GPUs only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from masuka.errors import InvalidInput, NoAccelerator

if TYPE_CHECKING:
    import torch


def options(quantize: str, *, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Arguments for a diffusers model's `from_pretrained`; empty for 'none'.

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
