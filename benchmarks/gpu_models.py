"""Models of true size with random weights, made on the device, with synthetic caches.

Configurations are those that the models' repositories publish. Random weights cost the same
time and memory as trained ones, so nothing is downloaded and no text encoder is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from masuka.datasets.buckets import Shape
from masuka.training.caches import Bucket, Latents, Texts

PICTURES = 4
CAPTION = "a picture of mira7x person in a garden"


@dataclass(frozen=True)
class Model:
    """One denoiser: its diffusers class and configuration, and what its caches hold.

    `latents` is (channels, pixels a side of a latent); `texts` are shapes without the batch.
    """

    family: str
    base: str
    kind: str
    config: Mapping[str, Any]
    latents: tuple[int, int]
    texts: Mapping[str, tuple[int, ...]]
    autoencoder: Mapping[str, Any]


FLUX1 = Model(
    "flux", "flux1-dev", "FluxTransformer2DModel",
    {"guidance_embeds": True},  # diffusers' defaults are FLUX.1's
    (16, 8), {"prompt_embeds": (512, 4096), "pooled_prompt_embeds": (768,)},
    {"scaling_factor": 0.3611, "shift_factor": 0.1159},
)  # fmt: skip
SDXL = Model(
    "sdxl", "sdxl", "UNet2DConditionModel",
    {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    },
    (4, 8), {"prompt_embeds": (77, 2048), "pooled_prompt_embeds": (1280,)}, {"scaling_factor": 0.13025},
)  # fmt: skip
SD35_MEDIUM = Model(
    "sd3", "sd35-medium", "SD3Transformer2DModel",
    {
        "sample_size": 128, "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24,
        "joint_attention_dim": 4096, "caption_projection_dim": 1536, "pooled_projection_dim": 2048,
        "in_channels": 16, "out_channels": 16, "pos_embed_max_size": 384, "qk_norm": "rms_norm",
        "dual_attention_layers": tuple(range(13)),
    },
    (16, 8), {"prompt_embeds": (333, 4096), "pooled_prompt_embeds": (2048,)},
    {"scaling_factor": 1.5305, "shift_factor": 0.0609},
)  # fmt: skip
KLEIN_4B = Model(
    "flux2", "flux2-klein-base-4b", "Flux2Transformer2DModel",
    {
        "in_channels": 128, "num_layers": 5, "num_single_layers": 20, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 7680, "guidance_embeds": False,
    },
    (128, 16), {"prompt_embeds": (512, 7680)}, {},
)  # fmt: skip
Z_IMAGE = Model(
    "zimage", "zimage", "ZImageTransformer2DModel", {},  # diffusers' defaults are Z-Image's
    (16, 8), {"prompt_embeds": (64, 2560), "prompt_embeds_mask": (64,)},
    {"scaling_factor": 0.3611, "shift_factor": 0.1159},
)  # fmt: skip


class Given:
    """A family whose denoiser is already there; all else is the family's own."""

    def __init__(self, family: Any, denoiser: nn.Module) -> None:
        self._family, self._denoiser = family, denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)

    def denoiser(self, *_: Any, **__: Any) -> nn.Module:
        return self._denoiser


def denoiser(model: Model, *, dtype: torch.dtype, device: str, quantize: str = "none") -> nn.Module:
    """The frozen denoiser, its linear layers in fewer bits where asked, on the device."""
    import diffusers

    kind = getattr(diffusers, model.kind)
    if quantize == "none":
        with _default(dtype), torch.device(device):
            made: nn.Module = kind(**model.config)
    else:
        with _default(dtype), torch.device("meta"):
            made = kind(**model.config)
        _fill(made, dtype, device, quantize)
    return made.requires_grad_(False).eval()


def caches(model: Model, px: int) -> tuple[Texts, Latents, list[str]]:
    """Texts, latents and captions of a few pictures of px × px, all random."""
    generator = torch.Generator().manual_seed(0)
    channels, side_px = model.latents
    shape = (PICTURES, channels, px // side_px, px // side_px)
    mean = torch.randn(shape, generator=generator)
    posterior = {"mean": mean, "std": torch.full(shape, 0.1)}
    bucket = Bucket(Shape(px, px), posterior, tuple(range(PICTURES)))
    texts = {
        name: torch.ones(2, *shape) if name.endswith("mask") else torch.randn(2, *shape, generator=generator)
        for name, shape in model.texts.items()
    }
    return Texts(texts, ("", CAPTION)), Latents((bucket,), dict(model.autoencoder)), [CAPTION] * PICTURES


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _fill(module: nn.Module, dtype: torch.dtype, device: str, quantize: str) -> None:
    """Layer by layer, so that the model is never there in 16 bits."""
    for name, child in list(module.named_children()):
        if type(child) is nn.Linear and min(child.weight.shape) >= 1024:
            setattr(module, name, _quantized(child, dtype, device, quantize))
        else:
            _fill(child, dtype, device, quantize)
    for name, weight in list(module.named_parameters(recurse=False)):
        made = _random(weight.shape, dtype, device)
        setattr(module, name, nn.Parameter(made, requires_grad=False))
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_meta:
            raise ValueError(f"{type(module).__name__}.{name} is computed when the model is made")


def _quantized(layer: nn.Linear, dtype: torch.dtype, device: str, quantize: str) -> nn.Module:
    import bitsandbytes

    bias = layer.bias is not None
    weight = _random(layer.weight.shape, dtype, device)
    if quantize == "nf4":
        made = bitsandbytes.nn.Linear4bit(
            layer.in_features, layer.out_features, bias=bias, compute_dtype=dtype, quant_type="nf4"
        )
        made.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
    else:
        made = bitsandbytes.nn.Linear8bitLt(layer.in_features, layer.out_features, bias=bias, has_fp16_weights=False)
        made.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if bias:
        made.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype), requires_grad=False)
    moved: nn.Module = made.to(device)
    return moved


def _random(shape: torch.Size, dtype: torch.dtype, device: str) -> Tensor:
    return torch.randn(shape, dtype=dtype, device=device) * 0.02
