"""The FLUX.2 klein family: the bases of 4 and 9 billion parameters, and the quick 4 billion one.

Rectified flow over latents in 2 × 2 patches; Qwen3 reads the prompt, of which three inner
layers are used. The transformer sees the text's padding too, so texts keep their full length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import Capabilities, Entry, Size
from masuka.families.parts import flow, flux2_vae, tiny, tiny_qwen, vae, weights
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder, repeated, shift_of
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_TRAIN = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=1200),
    "rank": Limit(4, 256, default=32),
    "resolution_px": Limit(256, 2048, 16, default=768),
}
_DRAW = {
    **DRAW,
    "num_inference_steps": Limit(1, 100, default=50),
    "guidance_scale": Limit(1, 20, default=4.0),
}
_SIZE_4B = Size(
    denoiser=3_875_544_576, text_encoders=4_022_468_096, autoencoder=84_046_115, width=3072, blocks=25
)
KLEIN_BASE_4B = Entry(
    id="flux2-klein-base-4b",
    title="FLUX.2 klein base 4B",
    repo="black-forest-labs/FLUX.2-klein-base-4B",
    revision="a3b4f4849157f664bdbc776fd7453c2783562f4d",
    licence="Apache-2.0",
    tier="mid",
    size_gib=14.9,
    about="Small, new and free for any use: the one to train on. Draws in 50 steps.",
    guidance="true_cfg",
    size=_SIZE_4B,
    architecture="flux-2-klein-base-4b",
    kohya_version="flux2",
    draw_limits=_DRAW,
    train_limits={**_TRAIN, "learning_rate": Limit(1e-6, 1e-2, default=1.5e-4)},
)
KLEIN_BASE_9B = Entry(
    id="flux2-klein-base-9b",
    title="FLUX.2 klein base 9B",
    repo="black-forest-labs/FLUX.2-klein-base-9B",
    licence="FLUX Non-Commercial",
    tier="high",
    size_gib=32.3,
    about="The larger klein: truer in detail, not for commercial use. Asks for an account and a licence click.",
    guidance="true_cfg",
    size=Size(
        denoiser=9_078_581_248, text_encoders=8_190_735_360, autoencoder=84_046_115, width=4096, blocks=32
    ),
    architecture="flux-2-klein-base-9b",
    kohya_version="flux2",
    gated=True,
    commercial=False,
    draw_limits=_DRAW,
    train_limits={**_TRAIN, "learning_rate": Limit(1e-6, 1e-2, default=7e-5)},
)
KLEIN_4B = Entry(
    id="flux2-klein-4b",
    title="FLUX.2 klein 4B",
    repo="black-forest-labs/FLUX.2-klein-4B",
    revision="e7b7dc27f91deacad38e78976d1f2b499d76a294",
    licence="Apache-2.0",
    tier="mid",
    size_gib=14.9,
    about="Draws in four steps and takes the LoRAs of FLUX.2 klein base 4B; train on that one.",
    guidance="none",
    size=_SIZE_4B,
    architecture="flux-2-klein-4b",
    kohya_version="flux2",
    trainable=False,
    draws_adapters_of=("flux2-klein-base-4b",),
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 16, default=4),
        "guidance_scale": Limit(1, 1, default=1.0),
    },
    train_limits=_TRAIN,
)
_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_FUSED = r"attn\.(to_qkv_mlp_proj|to_out)"
"""A single block's attention and feed-forward are one layer in and one layer out."""
_MLP = r"(ff|ff_context)\.linear_(in|out)"
_TEXT_LAYERS = (9, 18, 27)


class Flux2(RectifiedFlow):
    """The FLUX.2 klein family; see `families.base.Family` for its methods."""

    name = "flux2"
    title = "FLUX.2 klein"
    entries: Sequence[Entry] = (KLEIN_BASE_4B, KLEIN_BASE_9B, KLEIN_4B)
    capabilities = Capabilities(negative_prompt=True, fp16=False)
    lora_targets: Mapping[str, str] = {
        "attention": rf"{_DOUBLE}{_ATTENTION}|{_SINGLE}{_FUSED}",
        "attention_and_mlp": rf"{_DOUBLE}({_ATTENTION}|{_MLP})|{_SINGLE}{_FUSED}",
    }
    classes = ("Flux2Transformer2DModel", "AutoencoderKLFlux2", "Flux2KleinPipeline")
    text_class = "Qwen3ForCausalLM"
    foreign = r"^diffusion_model\.|^base_model\.model\.|^lora_unet_|^lycoris_"

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        texts = [
            encoder.tokenizer.apply_chat_template(
                [{"role": "user", "content": caption}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            for caption in captions
        ]
        batch = encoder.tokenizer(
            texts, return_tensors="pt", padding="max_length", truncation=True, max_length=encoder.max_tokens
        ).to(weights.device_of(encoder.model))
        # The words that the model would go on with are of no use here.
        states = encoder.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask,
            output_hidden_states=True, use_cache=False, logits_to_keep=1,
        ).hidden_states  # fmt: skip
        return {"prompt_embeds": torch.cat([states[layer] for layer in _TEXT_LAYERS], dim=-1)}

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return flux2_vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return vae.draw(posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        rows, columns = latents_shape[-2:]
        return flow.shifted(flow.logit_normal(count, generator), shift_of(rows * columns))

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        rows, columns = noisy.shape[-2:]
        text_ids, image_ids = places(text["prompt_embeds"].shape[1], rows, columns, noisy.device)
        predicted = denoiser(
            hidden_states=flux2_vae.sequence(noisy),
            timestep=sigmas,
            guidance=None,
            encoder_hidden_states=text["prompt_embeds"],
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return flux2_vae.grid(predicted, rows, columns)

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if negative else 1.0,
            "generator": list(generators),
            **repeated(text, count),
            **repeated(negative or {}, count, "negative_"),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (side // (pipeline.vae_scale_factor * 2) for side in size_px)
        clean = flow.clean(pipeline.scheduler.sigmas, before, after, step)
        return flux2_vae.restored(pipeline.vae, flux2_vae.grid(clean, height, width))

    def tiny(self, folder: Path) -> Path:
        from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel

        with tiny.seeded(11):
            transformer = Flux2Transformer2DModel(
                in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=3 * tiny_qwen.WIDTH, guidance_embeds=False,
                axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=32,
            )  # fmt: skip
            parts = {
                "text_encoder": tiny_qwen.qwen3(layers=max(_TEXT_LAYERS) + 1),
                "tokenizer": tiny_qwen.tokenizer(96),
                "vae": tiny_flux2_autoencoder(),
                "transformer": transformer,
            }
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        Flux2KleinPipeline(scheduler=scheduler, **parts).save_pretrained(folder)
        return folder


@lru_cache(maxsize=32)
def places(tokens: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Places (time, row, column, word) of the text's tokens and the patches, (…, 4)."""
    import torch

    text_ids = torch.zeros(tokens, 4, device=device)
    text_ids[:, 3] = torch.arange(tokens, device=device)
    image_ids = torch.zeros(rows, columns, 4, device=device)
    image_ids[..., 1] = torch.arange(rows, device=device)[:, None]
    image_ids[..., 2] = torch.arange(columns, device=device)[None, :]
    return text_ids, image_ids.view(rows * columns, 4)


def tiny_flux2_autoencoder() -> Any:
    """An f8 autoencoder with 4 latent channels, whose statistics change something."""
    import torch
    from diffusers import AutoencoderKLFlux2

    model = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4,
        sample_size=64, mid_block_add_attention=False,
    )  # fmt: skip
    model.bn.running_mean.copy_(torch.randn(16) * 0.1)
    model.bn.running_var.copy_(0.5 + torch.rand(16))
    return model
