"""The plain FLUX loop at true size: transformer, CLIP, T5 and VAE with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.plain_loop import PlainLoop
from masuka.families import family_named
from masuka.families.parts import tiny

CLIP_TOKENS, T5_TOKENS = 77, 512
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
    "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611, "shift_factor": 0.1159,
}  # fmt: skip
CLIP = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
T5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
TRANSFORMER = {"guidance_embeds": True}


class RandomLoop(PlainLoop):
    """The same loop, its models made on the device instead of read from a folder."""

    def _load(self, folder: Path) -> None:
        device = self._accelerator.device
        clip, t5 = tiny.clip(CLIP_TOKENS), tiny.t5(T5_TOKENS)
        self._clip_tokenizer, self._t5_tokenizer = clip["tokenizer"], t5["tokenizer_2"]
        before = torch.get_default_dtype()
        torch.set_default_dtype(self._dtype)
        try:
            with torch.device(device):
                self._clip = CLIPTextModel(
                    CLIPTextConfig(vocab_size=49408, max_position_embeddings=CLIP_TOKENS, eos_token_id=1, **CLIP)
                )
                self._t5 = T5EncoderModel(T5Config(vocab_size=32128, **T5))
                self._vae = AutoencoderKL(**VAE)
                self._transformer = FluxTransformer2DModel(**TRANSFORMER)
        finally:
            torch.set_default_dtype(before)
        self._scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        self._shift, self._scaling = self._vae.config.shift_factor or 0.0, self._vae.config.scaling_factor
        for model in (self._clip, self._t5, self._vae, self._transformer):
            model.requires_grad_(False)
        self._transformer.enable_gradient_checkpointing()


def loop(px: int, rank: int, folder: Path, device: str) -> Any:
    """The loop on four random pictures of that size."""
    noise = np.random.default_rng(0)
    files = []
    for number in range(4):
        files.append(folder / f"{number}.png")
        Image.fromarray(noise.integers(0, 255, (px, px, 3), dtype=np.uint8)).save(files[-1])
    return RandomLoop(
        folder, files, ["a picture of mira7x person"] * 4, side_px=px,
        targets=family_named("flux").lora_targets["attention_and_mlp"], rank=rank, batch_size=1,
        learning_rate=1e-4, precision="bf16", tokens=T5_TOKENS, cached=False, on_cpu=device == "cpu",
    )  # fmt: skip
