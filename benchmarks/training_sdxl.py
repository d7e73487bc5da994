"""Training step time and peak memory against the plain loop, on an SDXL of middling size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks import contest
from benchmarks.spine_training import CONTENDERS, RANK, draw_pictures, prepared
from benchmarks.spine_training import Size as FluxSize

SIDE_PX, BATCH = 256, 2
_PICTURES = FluxSize("sdxl", 0, 0, 0, 0, 0, 0, SIDE_PX, BATCH, 0, (), 0)


def build(folder: Path) -> None:
    """A checkpoint with random weights: a UNet of 58 million, encoders and VAE of 20 each."""
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from masuka.families.parts import tiny

    torch.manual_seed(0)
    tokenizer = tiny.clip(77)["tokenizer"]

    def encoder(width: int, projected: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=12,
            num_attention_heads=6, max_position_embeddings=77, projection_dim=projected,
            bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )  # fmt: skip

    unet = UNet2DConditionModel(
        sample_size=SIDE_PX // 8, in_channels=4, out_channels=4, block_out_channels=(64, 128, 256),
        layers_per_block=2, transformer_layers_per_block=(1, 2, 4), attention_head_dim=(2, 4, 8),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=768, use_linear_projection=True, norm_num_groups=16,
        addition_embed_type="text_time", addition_time_embed_dim=64,
        projection_class_embeddings_input_dim=384 + 6 * 64,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(64, 128, 192, 256), layers_per_block=2, latent_channels=4,
        norm_num_groups=8, mid_block_add_attention=False, scaling_factor=0.5,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=scheduler, tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(encoder(384, 384)),
        text_encoder_2=CLIPTextModelWithProjection(encoder(384, 384)),
    ).save_pretrained(folder)  # fmt: skip


def train_params(root: Path, precision: str) -> dict[str, Any]:
    """The params of a `train_image` job of endless length on that model."""
    return {
        "request": {
            "dataset_id": 1, "base": "sdxl", "steps": 10_000, "learning_rate": 1e-4, "rank": RANK,
            "resolution_px": SIDE_PX, "batch_size": BATCH, "checkpoint_every": 10_000, "sample_every": 0,
            "precision": precision, "caption_dropout": 0.0, "gradient_checkpointing": "off",
            "weight_decay": 1e-4, "lr_warmup_steps": 0,
        },
        "family": "sdxl", "base": {"id": "sdxl", "folder": str(root / "model")},
        "run_id": 1, "run_folder": str(root / f"run-{precision}"), "output": str(root / "out"),
        "name": "bench", "trigger_word": "mira7x", "class_word": "robot",
        "pictures": draw_pictures(_PICTURES, root / "pictures"), "sample_prompts": [], "device": "cpu",
    }  # fmt: skip


def plain(params: dict[str, Any], precision: str, *, cached: bool, weights: Path | None = None) -> Any:
    """The plain loop on the same model, pictures and layers."""
    from benchmarks.plain_sdxl import PlainSdxl
    from masuka.families import family_named

    return PlainSdxl(
        Path(params["base"]["folder"]),
        [Path(p["file"]) for p in params["pictures"]],
        [p["caption"] for p in params["pictures"]],
        side_px=SIDE_PX,
        targets=family_named("sdxl").lora_targets["attention_and_mlp"],
        rank=RANK,
        batch_size=BATCH,
        learning_rate=1e-4,
        precision=precision,
        cached=cached,
        weights=weights,
    )


def compare(precision: str, *, pairs: int, root: Path) -> dict[str, float]:
    """Figures at one precision: seconds, GiB, ratios to the plain loops."""
    if not (root / "model" / "model_index.json").exists():
        build(root / "model")
    draw_pictures(_PICTURES, root / "pictures")
    commands = {n: ("benchmarks.training_sdxl", n, str(root), precision) for n in CONTENDERS}
    return contest.compare(f"sdxl_{precision}", commands, pairs=pairs)


def child(name: str, root: Path, precision: str) -> None:
    """A contender: takes a step for each line it reads and prints its seconds."""
    from benchmarks import plain_sdxl  # noqa: F401
    from masuka.training import image  # noqa: F401

    params = train_params(root, precision)
    if name == "masuka":
        contest.take_steps(lambda: prepared(params, root).step)
    else:
        contest.take_steps(lambda: plain(params, precision, cached=name == "plain_cached").step)


if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
