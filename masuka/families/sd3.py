"""The Stable Diffusion 3.5 family: a rectified-flow transformer that is told by three encoders.

Both CLIPs stand side by side, padded with zeros to T5's width, and T5's tokens come after
them; what the CLIPs pool goes into the modulation. Latents are not packed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import Capabilities, Entry, Preset, Size
from masuka.families.parts import flow, tiny, vae, weights
from masuka.families.parts.rectified import RectifiedFlow, repeated
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

CLIP_L, CLIP_G, T5 = 123_650_304, 694_659_840, 4_762_310_656
_LICENCE = "Stability AI Community (free below a million dollars of revenue a year)"


def _size(denoiser: int, width: int, blocks: int) -> Size:
    """Counted from the published configurations, built on torch's meta device."""
    return Size(
        denoiser=denoiser,
        text_encoders=CLIP_L + CLIP_G + T5,
        autoencoder=83_819_683,
        width=width,
        blocks=blocks,
        text_tokens=333,
        largest_text_encoder=T5,
    )


_DRAWS: Mapping[str, Limit] = {
    **DRAW,
    "num_inference_steps": Limit(1, 100, default=28),
    "guidance_scale": Limit(1, 20, default=4.5),
}
_LEARNS: Mapping[str, Limit] = {
    **TRAIN,
    "steps": Limit(100, 10_000, default=1800),
    "learning_rate": Limit(1e-6, 1e-2, default=1e-4),
    "rank": Limit(4, 256, default=16),
    "resolution_px": Limit(256, 2048, 16, default=1024),
    # Long trainings fall apart with the usual 1.
    "max_grad_norm": Limit(default=0.1),
}
MEDIUM = Entry(
    id="sd35-medium",
    title="Stable Diffusion 3.5 Medium",
    repo="stabilityai/stable-diffusion-3.5-medium",
    revision="b940f670f0eda2d07fbb75229e779da1ad11eb80",
    licence=_LICENCE,
    tier="mid",
    size_gib=15.2,
    about="The small one of its kind; learns at 512 to 1,024 pixels. Asks for an account.",
    guidance="true_cfg",
    gated=True,
    size=_size(2_243_171_520, 1536, 24),
    architecture="stable-diffusion-3-medium",
    kohya_version="sd3",
    draw_limits=_DRAWS,
    train_limits=_LEARNS,
)
LARGE = Entry(
    id="sd35-large",
    title="Stable Diffusion 3.5 Large",
    repo="stabilityai/stable-diffusion-3.5-large",
    revision="ceddf0a7fdf2064ea28e2213e3b84e4afa170a0f",
    licence=_LICENCE,
    tier="high",
    size_gib=25.7,
    about="Illustration and type beside photographs; takes a negative prompt. Asks for an account.",
    guidance="true_cfg",
    gated=True,
    size=_size(8_056_627_520, 2432, 38),
    architecture="stable-diffusion-3-large",
    kohya_version="sd3",
    draw_limits=_DRAWS,
    train_limits=_LEARNS,
    presets=(
        Preset(
            "Character design",
            {"width": 768, "height": 1024, "num_inference_steps": 35, "guidance_scale": 7.5},
        ),
    ),
)
TURBO = Entry(
    id="sd35-large-turbo",
    title="Stable Diffusion 3.5 Large Turbo",
    repo="stabilityai/stable-diffusion-3.5-large-turbo",
    revision="ec07796fc06b096cc56de9762974a28f4c632eda",
    licence=_LICENCE,
    tier="high",
    size_gib=25.7,
    about="Large, drawing in four steps; not to be trained: distillation would be undone.",
    guidance="none",
    gated=True,
    size=_size(8_056_627_520, 2432, 38),
    architecture="stable-diffusion-3-large",
    kohya_version="sd3",
    trainable=False,
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 12, default=4),
        "guidance_scale": Limit(0, 0, default=0.0),
    },
    train_limits=_LEARNS,
)
_BLOCK = r"transformer_blocks\.\d+\."
_ATTENTION = r"attn2?\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"ff(_context)?\.net\.(0\.proj|2)"
_SHIFT = 3.0
"""Towards noise, as the scheduler of every 3.5 states."""
_MOST_T5_TOKENS = 256
_SKIPPED_LAYERS = [7, 8, 9]
"""Medium draws better anatomy where guidance also leads away from itself without these layers."""


@dataclass(frozen=True)
class TextEncoders:
    """CLIP-L, CLIP-G and T5, each behind its tokenizer, and T5's token count."""

    tokenizers: tuple[Any, Any, Any]
    models: tuple[Any, Any, Any]
    max_tokens: int


class Sd3(RectifiedFlow):
    """The Stable Diffusion 3.5 family; see `families.base.Family` for its methods."""

    name = "sd3"
    title = "Stable Diffusion 3.5"
    entries: Sequence[Entry] = (MEDIUM, LARGE, TURBO)
    capabilities = Capabilities(negative_prompt=True)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + _ATTENTION,
        "attention_and_mlp": rf"{_BLOCK}({_ATTENTION}|{_MLP})",
    }
    classes = ("SD3Transformer2DModel", "AutoencoderKL", "StableDiffusion3Pipeline")
    text_class = "T5EncoderModel"
    foreign = r"^diffusion_model\.|^lora_(unet|te\d?|transformer)_|^lycoris_|^base_model\.model\."

    # Text

    def text_encoder(  # type: ignore[override]
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> TextEncoders:
        from transformers import (
            CLIPTextModelWithProjection,
            CLIPTokenizer,
            T5EncoderModel,
            T5TokenizerFast,
        )

        def loaded(kind: Any, name: str) -> Any:
            model = kind.from_pretrained(
                folder / name, local_files_only=True, use_safetensors=True, dtype=dtypes[name]
            )
            return weights.frozen(model, device)

        dtypes = _text_dtypes(dtype, device)
        tokenizers = (
            CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            CLIPTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True),
            T5TokenizerFast.from_pretrained(folder / "tokenizer_3", local_files_only=True),
        )
        models = (
            loaded(CLIPTextModelWithProjection, "text_encoder"),
            loaded(CLIPTextModelWithProjection, "text_encoder_2"),
            loaded(T5EncoderModel, "text_encoder_3"),
        )
        return TextEncoders(tokenizers, models, _text_tokens(tokenizers[2]))

    def text_encoder_of(self, pipeline: Any) -> TextEncoders:  # type: ignore[override]
        return TextEncoders(
            (pipeline.tokenizer, pipeline.tokenizer_2, pipeline.tokenizer_3),
            (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3),
            _text_tokens(pipeline.tokenizer_3),
        )

    def encode_text(self, encoder: TextEncoders, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        longest = encoder.tokenizers[0].model_max_length
        first, second = (
            encoder.models[n](
                _token_ids(encoder.tokenizers[n], captions, longest, encoder.models[n]),
                output_hidden_states=True,
            )
            for n in (0, 1)
        )
        third = encoder.models[2](
            _token_ids(encoder.tokenizers[2], captions, encoder.max_tokens, encoder.models[2])
        )[0]
        both = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        both = torch.nn.functional.pad(both, (0, third.shape[-1] - both.shape[-1]))
        return {
            "prompt_embeds": torch.cat([both, third.to(both)], dim=1),
            "pooled_prompt_embeds": torch.cat([first[0], second[0]], dim=-1),
        }

    # Pixels and latents

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        return vae.drawn(autoencoder_config, posterior, generator)

    # Denoising

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.shifted(flow.logit_normal(count, generator), _SHIFT)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        predicted: Tensor = denoiser(
            hidden_states=noisy,
            timestep=sigmas * 1000,
            encoder_hidden_states=text["prompt_embeds"],
            pooled_projections=text["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return predicted

    # Drawing

    def pipeline(
        self, folder: Path, *, dtype: torch.dtype, device: str, computes_on: str = "", **parts: Any
    ) -> Any:
        from diffusers import StableDiffusion3Pipeline

        dtypes = {"default": dtype, **_text_dtypes(dtype, computes_on or device)}
        pipeline = weights.load(StableDiffusion3Pipeline, folder, dtypes, **parts)
        pipeline.set_progress_bar_config(disable=True)
        encoders = (pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3)
        for part in (pipeline.transformer, pipeline.vae, *encoders):
            if part is not None and part not in parts.values():
                weights.frozen(part, device)
        return pipeline

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        medium = self._entry(request.base).id == MEDIUM.id
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if negative else 1.0,
            "skip_guidance_layers": _SKIPPED_LAYERS if medium and negative else None,
            "generator": list(generators),
            **repeated(text, count),
            **(repeated(negative, count, "negative_") if negative else {}),
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        clean = flow.clean(pipeline.scheduler.sigmas, before, after, step)
        scale, shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor
        return clean / float(scale) + float(shift or 0.0)

    def tiny(self, folder: Path) -> Path:
        from diffusers import (
            FlowMatchEulerDiscreteScheduler,
            SD3Transformer2DModel,
            StableDiffusion3Pipeline,
        )

        with tiny.seeded(13):
            transformer = SD3Transformer2DModel(
                sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=3,
                attention_head_dim=16, num_attention_heads=2, joint_attention_dim=64,
                caption_projection_dim=32, pooled_projection_dim=64, pos_embed_max_size=32,
                dual_attention_layers=(0,), qk_norm="rms_norm",
            )  # fmt: skip
            second = {f"{name}_2": part for name, part in tiny.projecting_clip().items()}
            third = {name.replace("_2", "_3"): part for name, part in tiny.t5(width=64).items()}
            parts = {**tiny.projecting_clip(), **second, **third, "vae": tiny.autoencoder()}
        scheduler = FlowMatchEulerDiscreteScheduler(shift=_SHIFT)
        StableDiffusion3Pipeline(
            scheduler=scheduler, transformer=transformer, **parts
        ).save_pretrained(folder)
        return folder


def _text_dtypes(dtype: torch.dtype, device: str) -> dict[str, torch.dtype]:
    """Beside fp16, in which T5 overflows and the CLIPs do not."""
    import torch

    beside = weights.beside_fp16(device) if dtype == torch.float16 else dtype
    return {"text_encoder": dtype, "text_encoder_2": dtype, "text_encoder_3": beside}


def _text_tokens(tokenizer: Any) -> int:
    return min(_MOST_T5_TOKENS, int(tokenizer.model_max_length))


def _token_ids(tokenizer: Any, captions: Sequence[str], longest: int, model: Any) -> Tensor:
    tokens = tokenizer(
        list(captions), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
    )
    ids: Tensor = tokens.input_ids.to(weights.device_of(model))
    return ids
