"""The Chroma family: FLUX.1's build with its modulation pruned, one text encoder, no guidance input.

Rectified flow in FLUX's patches. T5 reads with its mask, and of its padding the model sees
one token. Texts are cut to what is seen, which is the same as masking the rest: diffusers'
own mask is added to the attention instead of closing it, and is lost in half of the blocks
when activations are recomputed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import Capabilities, Entry, Size
from masuka.families.parts import flow, tiny, vae, weights
from masuka.families.parts.patches import pack, position_ids, unpack
from masuka.families.parts.rectified import RectifiedFlow, TextEncoder
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

HD = Entry(
    id="chroma1-hd",
    title="Chroma1 HD",
    repo="lodestones/Chroma1-HD",
    revision="0e0c60ece1e82b17cb7f77342d765ba5024c40c0",
    licence="Apache-2.0",
    tier="high",
    size_gib=25.8,
    about="Open, uncensored and made to be trained on; takes long sentences and a negative prompt.",
    guidance="true_cfg",
    # Counted from the published configuration, built on torch's meta device.
    size=Size(
        denoiser=8_899_983_424,
        text_encoders=4_762_310_656,
        autoencoder=83_819_683,
        width=3072,
        blocks=57,
    ),
    architecture="chroma",
    kohya_version="chroma",
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 100, default=30),
        "guidance_scale": Limit(1, 20, default=4.0),
    },
    train_limits={
        **TRAIN,
        "steps": Limit(100, 10_000, default=1800),
        "learning_rate": Limit(1e-6, 1e-2, default=1e-4),
        "rank": Limit(4, 256, default=16),
        "resolution_px": Limit(256, 2048, 16, default=768),
    },
)
_ATTENTION = r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"ff\.net\.0\.proj|ff\.net\.2|ff_context\.net\.0\.proj|ff_context\.net\.2|proj_mlp|proj_out"
_BLOCK = r"(single_)?transformer_blocks\.\d+\."


class Chroma(RectifiedFlow):
    """The Chroma family; see `families.base.Family` for what each method promises."""

    name = "chroma"
    title = "Chroma"
    entries: Sequence[Entry] = (HD,)
    capabilities = Capabilities(negative_prompt=True)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + r"attn\." + _ATTENTION,
        "attention_and_mlp": _BLOCK + rf"(attn\.{_ATTENTION}|{_MLP})",
    }
    classes = ("ChromaTransformer2DModel", "AutoencoderKL", "ChromaPipeline")
    text_class = "T5EncoderModel"

    def encode_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        tokens = encoder.tokenizer(
            list(captions),
            padding="max_length",
            max_length=encoder.max_tokens,
            truncation=True,
            return_tensors="pt",
        ).to(weights.device_of(encoder.model))
        embeds = encoder.model(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        lengths = tokens.attention_mask.sum(1) + 1
        seen = _until(lengths, encoder.max_tokens)
        longest = int(seen.sum(1).max())
        mask = seen[:, :longest].to(embeds.dtype)
        return {"prompt_embeds": embeds[:, :longest] * mask[..., None], "prompt_attention_mask": mask}

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return vae.drawn(autoencoder_config, posterior, generator)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.logit_normal(count, generator)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        import torch

        lengths = _lengths(text)
        predicted = torch.empty_like(noisy)
        for length in sorted(set(lengths)):
            rows = torch.tensor([n for n, own in enumerate(lengths) if own == length], device=noisy.device)
            alike = rows if len(rows) < len(noisy) else slice(None)
            predicted[alike] = _predict(
                denoiser, noisy[alike], sigmas[alike], text["prompt_embeds"][alike, :length]
            ).to(predicted.dtype)
        return predicted

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
            **_cut(text, count),
            **({f"negative_{name}": t for name, t in _cut(negative, count).items()} if negative else {}),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in size_px)
        clean = unpack(flow.clean(pipeline.scheduler.sigmas, before, after, step), height, width)
        scale, shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor
        return clean / float(scale) + float(shift or 0.0)

    def tiny(self, folder: Path) -> Path:
        from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

        with tiny.seeded(11):
            transformer = ChromaTransformer2DModel(
                in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=32, axes_dims_rope=(4, 6, 6),
                approximator_num_channels=16, approximator_hidden_dim=32, approximator_layers=1,
            )  # fmt: skip
            reader = {name.removesuffix("_2"): part for name, part in tiny.t5().items()}
            autoencoder = tiny.autoencoder()
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        ChromaPipeline(
            scheduler=scheduler, vae=autoencoder, transformer=transformer, **reader
        ).save_pretrained(folder)
        return folder


def _predict(denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, embeds: Tensor) -> Tensor:
    height, width = noisy.shape[-2:]
    text_ids, image_ids = position_ids(embeds.shape[1], height // 2, width // 2, noisy.device)
    predicted = denoiser(
        hidden_states=pack(noisy),
        timestep=sigmas,
        encoder_hidden_states=embeds,
        txt_ids=text_ids,
        img_ids=image_ids,
        return_dict=False,
    )[0]
    return unpack(predicted, height, width)


def _until(lengths: Tensor, longest: int) -> Tensor:
    """A mask (B, longest) of the first so many places of each row."""
    import torch

    return torch.arange(longest, device=lengths.device)[None, :] < lengths[:, None]


def _lengths(text: Mapping[str, Tensor]) -> list[int]:
    """How many tokens of each text the model sees."""
    lengths: list[int] = (text["prompt_attention_mask"] > 0.5).sum(1).tolist()
    return lengths


def _cut(text: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """One text without what is not seen of it, for so many pictures."""
    (length,) = _lengths(text)
    return {name: tensor[:, :length].repeat_interleave(count, 0) for name, tensor in text.items()}
