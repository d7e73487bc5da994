"""Training step time and peak memory against the plain loop, on two model sizes of FLUX."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import contest

RANK = 16
PICTURES = 32


@dataclass(frozen=True)
class Size:
    """One model and the training that is timed on it."""

    name: str
    width: int
    double_blocks: int
    single_blocks: int
    text_width: int
    clip_width: int
    tokens: int
    side_px: int
    batch_size: int
    encoder_layers: int
    vae_widths: tuple[int, ...]
    vae_layers: int


POCKET = Size("pocket", 256, 2, 3, 192, 128, 32, 128, 16, 2, (32, 32, 64, 96), 1)
MEDIUM = Size("medium", 512, 4, 8, 512, 384, 64, 256, 2, 6, (64, 128, 192, 256), 2)
"""512 wide, 4 + 8 blocks, with text encoders and a VAE of about 20 million weights each."""
SIZES = {size.name: size for size in (POCKET, MEDIUM)}
CONTENDERS = ("masuka", "plain", "plain_cached")


def build(size: Size, folder: Path) -> None:
    """A checkpoint of that size with random weights, in the diffusers format."""
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    from masuka.families.parts import tiny

    torch.manual_seed(0)
    clip_tokenizer, t5_tokenizer = (
        tiny.clip(size.tokens)["tokenizer"],
        tiny.t5(size.tokens)["tokenizer_2"],
    )
    clip = CLIPTextConfig(
        vocab_size=len(clip_tokenizer), hidden_size=size.clip_width, intermediate_size=4 * size.clip_width,
        num_hidden_layers=2 * size.encoder_layers, num_attention_heads=4,
        max_position_embeddings=size.tokens, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    t5 = T5Config(
        vocab_size=len(t5_tokenizer), d_model=size.text_width, d_kv=size.text_width // 4, num_heads=4,
        d_ff=3 * size.text_width, num_layers=size.encoder_layers, feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=size.vae_widths, layers_per_block=size.vae_layers, latent_channels=8,
        norm_num_groups=8, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False,
        scaling_factor=0.5, shift_factor=0.1,
    )  # fmt: skip
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=32, num_layers=size.double_blocks, num_single_layers=size.single_blocks,
        attention_head_dim=64, num_attention_heads=size.width // 64, joint_attention_dim=size.text_width,
        pooled_projection_dim=size.clip_width, guidance_embeds=True, axes_dims_rope=(8, 28, 28),
    )  # fmt: skip
    FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0), vae=vae, transformer=transformer,
        text_encoder=CLIPTextModel(clip), tokenizer=clip_tokenizer,
        text_encoder_2=T5EncoderModel(t5), tokenizer_2=t5_tokenizer,
    ).save_pretrained(folder)  # fmt: skip


def draw_pictures(size: Size, folder: Path) -> list[dict[str, Any]]:
    """Pictures with captions as a job's params list them; drawn once."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    pictures = []
    for number in range(PICTURES):
        file = folder / f"{number}.png"
        shape = (size.side_px, size.side_px, 3)
        pixels = noise.integers(0, 255, shape, dtype=np.uint8)
        if not file.exists():  # the contenders read them at the same time
            Image.fromarray(pixels).save(file)
        pictures.append(
            {
                "id": number,
                "file": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "caption": f"a picture of mira7x robot, number {number}",
                "width": size.side_px,
                "height": size.side_px,
            }
        )
    return pictures


def train_params(size: Size, root: Path, precision: str) -> dict[str, Any]:
    """The params of a `train_image` job of endless length on that model."""
    return {
        "request": {
            "dataset_id": 1, "base": "pocket", "steps": 10_000, "learning_rate": 1e-4, "rank": RANK,
            "resolution_px": size.side_px, "batch_size": size.batch_size, "checkpoint_every": 10_000,
            "sample_every": 0, "precision": precision, "caption_dropout": 0.05,
        },
        "family": "flux",
        "base": {"id": "pocket" if size is POCKET else "flux1-schnell", "folder": str(root / "model")},
        "run_id": 1, "run_folder": str(root / f"run-{precision}"), "output": str(root / "out"),
        "name": "bench", "trigger_word": "mira7x", "class_word": "robot",
        "pictures": draw_pictures(size, root / "pictures"), "sample_prompts": [], "device": "cpu",
    }  # fmt: skip


def child(name: str, size_name: str, root: Path, precision: str) -> None:
    """A contender: takes a step for each line it reads and prints its seconds."""
    # In memory before measuring: both contenders' code, and what their libraries load lazily.
    from benchmarks import plain_loop  # noqa: F401
    from masuka.training import image  # noqa: F401

    size = SIZES[size_name]
    params = train_params(size, root, precision)
    if name == "masuka":
        contest.take_steps(lambda: prepared(params, root).step)
    else:
        contest.take_steps(lambda: plain(params, size, precision, cached=name == "plain_cached").step)


def compare(size: Size, precision: str, *, pairs: int, root: Path) -> dict[str, float]:
    """Figures of one model at one precision: seconds, GiB, ratios to the plain loops."""
    if not (root / "model" / "model_index.json").exists():
        build(size, root / "model")
    draw_pictures(size, root / "pictures")
    commands = {n: ("benchmarks.spine_training", n, size.name, str(root), precision) for n in CONTENDERS}
    return contest.compare(f"{size.name}_{precision}", commands, pairs=pairs)


def measure(*, pairs: int = 30) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """(figures, bars) of both models, in bf16 and in fp32."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="masuka-bench-") as folder:
        for size in SIZES.values():
            for precision in ("bf16", "fp32"):
                figures |= compare(size, precision, pairs=pairs, root=Path(folder) / size.name)
    return figures, contest.bars(figures)


def prepared(params: dict[str, Any], root: Path) -> Any:
    """MASUKA's training, its caches filled, before its next step."""
    from masuka.jobs.reporter import EventFile
    from masuka.models.loading import quiet_libraries
    from masuka.training.image import prepare
    from masuka.training.plan import plan_of

    quiet_libraries()
    return prepare(plan_of(params), EventFile(root / "events.jsonl", root / "scratch"))


def plain(
    params: dict[str, Any], size: Size, precision: str, *, cached: bool, weights: Path | None = None
) -> Any:
    """The plain loop on the same model, pictures and layers."""
    from benchmarks.plain_loop import PlainLoop
    from masuka.families import family_named

    return PlainLoop(
        Path(params["base"]["folder"]),
        [Path(p["file"]) for p in params["pictures"]],
        [p["caption"] for p in params["pictures"]],
        side_px=size.side_px,
        targets=family_named("flux").lora_targets["attention_and_mlp"],
        rank=RANK,
        batch_size=size.batch_size,
        learning_rate=1e-4,
        precision=precision,
        tokens=size.tokens,
        cached=cached,
        weights=weights,
    )


if __name__ == "__main__":
    if len(sys.argv) == 5:
        child(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    else:
        found_figures, found_bars = measure()
        print(
            json.dumps(
                {"figures": found_figures, "bars": found_bars, "sizes": [asdict(s) for s in SIZES.values()]},
                indent=1,
            )
        )
