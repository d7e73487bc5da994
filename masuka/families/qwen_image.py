"""The Qwen-Image family: the first one, and that of December 2025, of 20 billion parameters.

Rectified flow over latents in 2 × 2 patches. Qwen2.5-VL reads the prompt inside a template,
whose own tokens are dropped from what it says; texts keep their length, with a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from masuka.families.base import Capabilities, Entry, Size
from masuka.families.parts import flow, qwen_vae, tiny, tiny_qwen, vae, weights
from masuka.families.parts.patches import pack, unpack
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder, packed, repeated, within
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_SIZE = Size(
    denoiser=20_430_401_088,
    text_encoders=8_292_166_656,
    autoencoder=126_892_531,
    width=3072,
    blocks=60,
    text_tokens=256,
)
_DRAW = {
    **DRAW,
    "num_inference_steps": Limit(1, 100, default=50),
    "guidance_scale": Limit(1, 20, default=4.0),
}
_TRAIN = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=2000),
    "learning_rate": Limit(1e-6, 1e-2, default=5e-5),
    "rank": Limit(4, 256, default=16),
    "resolution_px": Limit(256, 2048, 16, default=1024),
}
QWEN_IMAGE_2512 = Entry(
    id="qwen-image-2512",
    title="Qwen-Image 2512",
    repo="Qwen/Qwen-Image-2512",
    revision="25468b98e3276ca6700de15c6628e51b7de54a26",
    licence="Apache-2.0",
    tier="high",
    size_gib=53.7,
    about="Follows long prompts and writes text in pictures; free for any use, and needs a large GPU.",
    guidance="true_cfg",
    size=_SIZE,
    architecture="qwen-image-2512",
    kohya_version="qwen_image",
    draw_limits=_DRAW,
    train_limits=_TRAIN,
)
QWEN_IMAGE = Entry(
    id="qwen-image",
    title="Qwen-Image",
    repo="Qwen/Qwen-Image",
    revision="75e0b4be04f60ec59a75f475837eced720f823b6",
    licence="Apache-2.0",
    tier="high",
    size_gib=53.7,
    about="The first Qwen-Image, for which most of its LoRAs were made; free for any use.",
    guidance="true_cfg",
    size=_SIZE,
    architecture="qwen-image",
    kohya_version="qwen_image",
    draw_limits=_DRAW,
    train_limits=_TRAIN,
)
_BLOCK = r"transformer_blocks\.\d+\."
_ATTENTION = r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"(img|txt)_mlp\.net\.(0\.proj|2)"
_SHIFT = 2.2
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, "
    "spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
ANSWER = "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE_TOKENS = 34


class QwenImage(RectifiedFlow):
    """The Qwen-Image family; see `families.base.Family` for its methods."""

    name = "qwen_image"
    title = "Qwen-Image"
    entries: Sequence[Entry] = (QWEN_IMAGE_2512, QWEN_IMAGE)
    capabilities = Capabilities(negative_prompt=True, fp16=False)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + _ATTENTION,
        "attention_and_mlp": rf"{_BLOCK}({_ATTENTION}|{_MLP})",
    }
    classes = ("QwenImageTransformer2DModel", "AutoencoderKLQwenImage", "QwenImagePipeline")
    text_class = "Qwen2_5_VLForConditionalGeneration"
    max_tokens: ClassVar[int] = 1024

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        batch = encoder.tokenizer(
            [TEMPLATE + caption + ANSWER for caption in captions],
            return_tensors="pt", padding=True, truncation=True, max_length=encoder.max_tokens + TEMPLATE_TOKENS,
        ).to(weights.device_of(encoder.model))  # fmt: skip
        states = encoder.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask,
            output_hidden_states=True, use_cache=False, logits_to_keep=1,
        ).hidden_states[-1]  # fmt: skip
        mask = batch.attention_mask.bool()
        return packed([state[own][TEMPLATE_TOKENS:] for state, own in zip(states, mask, strict=True)])

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return qwen_vae.drawn(autoencoder_config, posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.shifted(flow.logit_normal(count, generator), _SHIFT)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        height, width = noisy.shape[-2:]
        embeds, mask = within(text)
        predicted = denoiser(
            hidden_states=pack(noisy),
            timestep=sigmas,
            guidance=None,
            encoder_hidden_states=embeds,
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
            return_dict=False,
        )[0]
        return unpack(predicted, height, width)

    def negative_text(self, request: DrawImages) -> str | None:
        # A space is what its makers lead away from where nothing is written.
        text = super().negative_text(request)
        return text if text is None else text or " "

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
            "true_cfg_scale": request.guidance_scale if negative else 1.0,
            "generator": list(generators),
            **repeated(text, count),
            **repeated(negative or {}, count, "negative_"),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in size_px)
        clean = unpack(flow.clean(pipeline.scheduler.sigmas, before, after, step), height, width)
        return qwen_vae.restored(pipeline.vae.config, clean)

    def tiny(self, folder: Path) -> Path:
        from diffusers import FlowMatchEulerDiscreteScheduler, QwenImagePipeline, QwenImageTransformer2DModel

        with tiny.seeded(13):
            transformer = QwenImageTransformer2DModel(
                in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
                joint_attention_dim=tiny_qwen.WIDTH, axes_dims_rope=(4, 6, 6),
            )  # fmt: skip
            parts = {
                "text_encoder": tiny_qwen.qwen25_vl(layers=2),
                "tokenizer": tiny_qwen.tokenizer(2048),
                "vae": tiny_qwen.autoencoder(),
                "transformer": transformer,
            }
        scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        QwenImagePipeline(scheduler=scheduler, **parts).save_pretrained(folder)
        return folder
