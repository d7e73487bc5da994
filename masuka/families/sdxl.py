"""The SDXL family, in the three ways in which its UNet is taught: noise, velocity, EDM.

Which of them a base was taught in decides what is learnt, so each is a family of its own
with the same code. Text is read by two CLIP encoders, whose last hidden states but one
stand side by side; the size of the picture is told to the UNet, as drawing tells it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka.families.base import AdapterReport, Capabilities, Entry
from masuka.families.lora import adapters
from masuka.families.lora import keys_tables as names
from masuka.families.parts import ddpm, edm, flow, tiny, vae, weights
from masuka.families.sdxl_bases import (
    ILLUSTRIOUS,
    JUGGERNAUT,
    NOOB,
    NOOB_V,
    PLAYGROUND,
    PONY,
    SDXL,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_ATTENTION = r"transformer_blocks\.\d+\.attn[12]\.(to_q|to_k|to_v|to_out\.0)"
_MLP = r"transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)|proj_in|proj_out"
_IN_A_BLOCK = r"(down_blocks\.\d+|mid_block|up_blocks\.\d+)\.attentions\.\d+\."
_FOREIGN = r"^lora_(unet|te|te1|te2)_"
"""Layer names of kohya's tools, which diffusers translates."""
_PIXELS_PER_LATENT = 8


@dataclass(frozen=True)
class TextEncoders:
    """CLIP-L and CLIP-G, each behind its tokenizer."""

    tokenizers: tuple[Any, Any]
    models: tuple[Any, Any]


class Sdxl:
    """SDXL that predicts the noise; see `families.base.Family` for its methods."""

    name = "sdxl"
    title = "SDXL"
    entries: Sequence[Entry] = (SDXL, JUGGERNAUT, ILLUSTRIOUS, PONY, NOOB)
    capabilities = Capabilities(negative_prompt=True, text_encoder_lora=True, snr_weighting=True)
    lora_targets: Mapping[str, str] = {
        "attention": _IN_A_BLOCK + _ATTENTION,
        "attention_and_mlp": _IN_A_BLOCK + rf"({_ATTENTION}|{_MLP})",
    }
    denoiser_part = "unet"
    text_encoder_targets = r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"
    schedule = ddpm.Schedule()

    # Text

    def text_encoder(
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> TextEncoders:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

        def loaded(kind: Any, name: str) -> Any:
            model = kind.from_pretrained(
                folder / name, local_files_only=True, use_safetensors=True, dtype=dtypes[name]
            )
            return weights.frozen(model, device)

        dtypes = _text_dtypes(dtype)
        # What is adapted is half of each embedding, so the other half is needed beside it.
        return TextEncoders(
            (
                CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
                CLIPTokenizer.from_pretrained(folder / "tokenizer_2", local_files_only=True),
            ),
            (loaded(CLIPTextModel, "text_encoder"), loaded(CLIPTextModelWithProjection, "text_encoder_2")),
        )

    def text_encoder_of(self, pipeline: Any) -> TextEncoders:
        return TextEncoders(
            (pipeline.tokenizer, pipeline.tokenizer_2), (pipeline.text_encoder, pipeline.text_encoder_2)
        )

    def encode_text(self, encoder: TextEncoders, captions: Sequence[str]) -> dict[str, Tensor]:
        first, second = _read(encoder, captions, 0), _read(encoder, captions, 1)
        return {"prompt_embeds": _beside(first, second), "pooled_prompt_embeds": second[0]}

    def adaptable_text_encoder(self, encoder: TextEncoders) -> nn.Module:
        clip: nn.Module = encoder.models[0]
        return clip

    def encode_adapted_text(self, encoder: TextEncoders, captions: Sequence[str]) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            second = _read(encoder, captions, 1)
        return {"prompt_embeds": _beside(_read(encoder, captions, 0), second)}

    # Pixels and latents

    def autoencoder(self, folder: Path, *, dtype: torch.dtype, device: str) -> nn.Module:
        from diffusers import AutoencoderKL

        model: nn.Module = weights.frozen(weights.load(AutoencoderKL, folder / "vae", dtype), device)
        return model

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        return vae.posterior(autoencoder, pixels)

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        mean, std = _statistics(autoencoder_config)
        drawn = vae.draw(posterior, generator)
        return (drawn - mean.to(drawn)) / std.to(drawn)

    # Denoising

    def denoiser(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        device: str,
        quantize: str = "none",
        training_adapter: Path | None = None,
    ) -> nn.Module:
        from diffusers import UNet2DConditionModel

        options = weights.quantized(quantize, dtype=dtype, device=device)
        loaded = weights.load(UNet2DConditionModel, folder / "unet", dtype, **options)
        model: nn.Module = weights.frozen(loaded, None if options else device)
        if training_adapter is not None:
            adapters.merge_for_training(model, training_adapter, names=names.SDXL)
        return model

    def drawing(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        return adapters.without_training_adapter(denoiser)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return ddpm.evenly_spread(count, generator)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        embeds = text["prompt_embeds"]
        height, width = (side * _PIXELS_PER_LATENT for side in noisy.shape[-2:])
        size = embeds.new_tensor([height, width, 0, 0, height, width]).repeat(len(noisy), 1)
        predicted: Tensor = denoiser(
            noisy,
            self.timesteps(sigmas),
            encoder_hidden_states=embeds,
            added_cond_kwargs={"text_embeds": text["pooled_prompt_embeds"], "time_ids": size},
            return_dict=False,
        )[0]
        return predicted

    def timesteps(self, sigmas: Tensor) -> Tensor:
        """What the UNet is told of each noise level, (B,)."""
        return self.schedule.timesteps(sigmas).float()

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return self.schedule.add_noise(latents, noise, sigmas)

    def target(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return self.schedule.target(latents, noise, sigmas)

    def loss_weight(self, sigmas: Tensor) -> Tensor:
        return flow.evenly(sigmas)

    def min_snr(self, sigmas: Tensor, gamma: float) -> Tensor:
        return self.schedule.min_snr(sigmas, gamma)

    # Drawing

    def scheduler(self) -> Any:
        """The scheduler that draws as the UNet was taught, whatever the folder names."""
        return self.schedule.scheduler()

    def pipeline(
        self, folder: Path, *, dtype: torch.dtype, device: str, computes_on: str = "", **parts: Any
    ) -> Any:
        from diffusers import StableDiffusionXLPipeline

        dtypes = {"default": dtype, **_text_dtypes(dtype)}
        pipeline = weights.load(StableDiffusionXLPipeline, folder, dtypes, add_watermarker=False, **parts)
        pipeline.scheduler = self.scheduler()
        pipeline.set_progress_bar_config(disable=True)
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            if part is not None and part not in parts.values():
                weights.frozen(part, device)
        return pipeline

    def negative_text(self, request: DrawImages) -> str | None:
        return request.negative_prompt if request.guidance_scale > 1 else None

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        apart = {f"negative_{name}": t.repeat_interleave(count, 0) for name, t in (negative or {}).items()}
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if apart else 1.0,
            **apart,
            "generator": list(generators),
            **{name: tensor.repeat_interleave(count, 0) for name, tensor in text.items()},
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        mean, std = _statistics(pipeline.vae.config)
        clean = flow.clean(pipeline.scheduler.sigmas, before, after, step)
        return clean * std.to(clean) + mean.to(clean)

    # Adapters

    def save_adapter(
        self,
        file: Path,
        layers: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        alpha: float | None = None,
        text_layers: Mapping[str, Tensor] | None = None,
    ) -> None:
        parts = {"unet": layers, "text_encoder": text_layers or {}}
        adapters.save(file, parts, metadata, alpha=alpha, names=names.SDXL)

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        parts = ("unet", "text_encoder", "text_encoder_2")
        return adapters.load(
            pipeline, file, name, parts=parts, foreign=_FOREIGN, family=self.title, names=names.SDXL
        )

    def tiny(self, folder: Path) -> Path:
        from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

        with tiny.seeded(7):
            unet = UNet2DConditionModel(
                sample_size=8, block_out_channels=(8, 16, 24), layers_per_block=2, norm_num_groups=4,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=(1, 2, 3), transformer_layers_per_block=(1, 1, 2),
                use_linear_projection=True, cross_attention_dim=64,
                addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 32,
            )  # fmt: skip
            second = tiny.projecting_clip()
            parts = {**tiny.clip(), **{f"{name}_2": part for name, part in second.items()}}
            autoencoder = tiny.autoencoder(**self.tiny_statistics)
        pipeline = StableDiffusionXLPipeline(
            unet=unet, vae=autoencoder, scheduler=self.scheduler(), add_watermarker=False, **parts
        )
        pipeline.save_pretrained(folder)
        return folder

    tiny_statistics: Mapping[str, Any] = {"shift_factor": None}
    """How the tiny VAE's latents are scaled, as the family's bases do it."""


class SdxlVelocity(Sdxl):
    """SDXL that predicts the velocity, on a schedule that ends in pure noise."""

    name = "sdxl-v"
    title = "SDXL, v-prediction"
    entries: Sequence[Entry] = (NOOB_V,)
    schedule = ddpm.Schedule(prediction="v", ends_in_noise=True)


class SdxlEdm(Sdxl):
    """SDXL's UNet with EDM's preconditioning, latents by their mean and deviation."""

    name = "sdxl-edm"
    title = "Playground"
    entries: Sequence[Entry] = (PLAYGROUND,)
    capabilities = Capabilities(negative_prompt=True, text_encoder_lora=True)
    tiny_statistics: Mapping[str, Any] = {
        "shift_factor": None,
        "scaling_factor": edm.DEVIATION,
        "latents_mean": [-1.6, 0.9, 0.3, 0.1],
        "latents_std": [8.4, 6.3, 4.8, 5.2],
    }

    def timesteps(self, sigmas: Tensor) -> Tensor:
        return edm.timesteps(sigmas)

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return edm.add_noise(latents, noise, sigmas)

    def target(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return edm.target(latents, noise, sigmas)

    def min_snr(self, sigmas: Tensor, gamma: float) -> Tensor:
        return edm.min_snr(sigmas, gamma)

    def scheduler(self) -> Any:
        return edm.scheduler()


def _text_dtypes(dtype: torch.dtype) -> dict[str, torch.dtype]:
    """CLIP-L, which may be trained, stays exact beside fp16; CLIP-G is finite in it, and the
    pipeline takes its own format from it."""
    import torch

    return {"text_encoder": torch.float32 if dtype == torch.float16 else dtype, "text_encoder_2": dtype}


def _read(encoder: TextEncoders, captions: Sequence[str], which: int) -> Any:
    """What one CLIP encoder makes of the captions, with its hidden states."""
    tokenizer, model = encoder.tokenizers[which], encoder.models[which]
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return model(tokens.input_ids.to(weights.device_of(model)), output_hidden_states=True)


def _beside(first: Any, second: Any) -> Tensor:
    import torch

    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)


def _statistics(autoencoder_config: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the VAE's latents, which are 0 and 1 for the UNet, (1, C, 1, 1)."""
    import torch

    scale = float(autoencoder_config["scaling_factor"])
    mean, std = autoencoder_config.get("latents_mean"), autoencoder_config.get("latents_std")
    if mean is None or std is None:
        return torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 1 / scale)
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1) / scale
