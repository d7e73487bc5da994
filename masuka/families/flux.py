"""The FLUX.1 family: Pocket, FLUX.1-schnell and FLUX.1-dev, through the same code.

Rectified flow: noisy = (1 - sigma) * latents + sigma * noise; the model predicts
noise - latents (Esser et al. 2024, arXiv:2403.03206). Latents go into the transformer
in 2 × 2 patches, as a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from masuka import pocket
from masuka.families.base import AdapterReport, Capabilities, Entry, Preset, Size, parent_of
from masuka.families.lora import adapters, keys_tables
from masuka.families.parts import flow, tiny, vae, weights
from masuka.families.parts.patches import pack, position_ids, unpack
from masuka.requests.base import Limit
from masuka.requests.images import STANDARD_LIMITS as DRAW
from masuka.requests.training import STANDARD_LIMITS as TRAIN

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

POCKET = Entry(
    id=pocket.MODEL_ID,
    title="Pocket",
    repo="",
    licence="Apache-2.0",
    tier="any",
    size_gib=0.02,
    about="Comes with MASUKA, runs anywhere, draws little robots at 128 pixels.",
    folder=pocket.FOLDER,
    size=Size(8_120_480, 1_367_488, 1_705_043, width=256, blocks=5, text_tokens=16),
    kohya_version="flux1",
    architecture="pocket",
    guidance="true_cfg",
    draw_limits={
        "width": Limit(pocket.SIZE_PX, pocket.SIZE_PX, default=pocket.SIZE_PX),
        "height": Limit(pocket.SIZE_PX, pocket.SIZE_PX, default=pocket.SIZE_PX),
        "num_inference_steps": Limit(1, 100, default=20),
        # More takes away what a LoRA has taught: antennas in 47 of 50 pictures at 1.5, 43 at 2.5.
        "guidance_scale": Limit(1, 5, default=1.5),
        "adapter_weight": Limit(0, 2, default=1.0),
    },
    train_limits={
        "steps": Limit(10, 4000, default=400),
        "learning_rate": Limit(1e-6, 1e-2, default=3.5e-3),
        "lr_scheduler": Limit(default="cosine"),
        # With 5 % of them dropped the antennas came out in 36 of 50 pictures, with none in 38.
        "caption_dropout": Limit(default=0.0),
        "rank": Limit(1, 64, default=16),
        "resolution_px": Limit(pocket.SIZE_PX, pocket.SIZE_PX, default=pocket.SIZE_PX),
        "batch_size": Limit(1, 32, default=16),
        "checkpoint_every": Limit(default=100),
        "sample_every": Limit(default=100),
    },
)
SCHNELL = Entry(
    id="flux1-schnell",
    title="FLUX.1 schnell",
    repo="black-forest-labs/FLUX.1-schnell",
    revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
    licence="Apache-2.0",
    tier="high",
    size_gib=31.5,
    about="Draws in four steps; its pictures may be used for anything. Asks for an account.",
    guidance="none",
    size=Size(
        denoiser=11_901_000_000,
        text_encoders=4_885_000_000,
        autoencoder=84_000_000,
        width=3072,
        blocks=57,
        largest_text_encoder=4_762_000_000,
    ),
    architecture="flux-1-schnell",
    kohya_version="flux1",
    gated=True,
    training_adapter="ostris/FLUX.1-schnell-training-adapter",
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 12, default=4),
        "guidance_scale": Limit(0, 0, default=0.0),
    },
    train_limits={**TRAIN, "steps": Limit(100, 10_000, default=1500)},
    presets=(
        Preset("Fast portrait", {"width": 768, "height": 1024, "num_inference_steps": 4}),
        Preset("Landscape", {"width": 1344, "height": 768, "num_inference_steps": 8}),
    ),
)
DEV = Entry(
    id="flux1-dev",
    title="FLUX.1 dev",
    repo="black-forest-labs/FLUX.1-dev",
    revision="3de623fc3c33e44ffbe2bad470d0f45bccf2eb21",
    licence="FLUX.1-dev Non-Commercial",
    tier="high",
    size_gib=31.5,
    about="The large model that most FLUX LoRAs are made for; asks for an account and a licence click.",
    guidance="embedded",
    size=Size(
        denoiser=11_901_000_000,
        text_encoders=4_885_000_000,
        autoencoder=84_000_000,
        width=3072,
        blocks=57,
        largest_text_encoder=4_762_000_000,
    ),
    architecture="flux-1-dev",
    kohya_version="flux1",
    gated=True,
    commercial=False,
    draw_limits={
        **DRAW,
        "num_inference_steps": Limit(1, 100, default=28),
        "guidance_scale": Limit(0, 20, default=3.5),
    },
    train_limits={**TRAIN, "steps": Limit(100, 10_000, default=1500)},
    presets=(
        Preset("HQ portrait", {"width": 896, "height": 1152, "num_inference_steps": 40}),
        Preset("Cinematic", {"width": 1536, "height": 640, "num_inference_steps": 40}),
    ),
)
_ATTENTION = r"(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
_MLP = r"ff\.net\.0\.proj|ff\.net\.2|ff_context\.net\.0\.proj|ff_context\.net\.2|proj_mlp|proj_out"
_BLOCK = r"(single_)?transformer_blocks\.\d+\."
_FOREIGN = r"(^|[._])(double|single)_blocks[._]\d|^lora_transformer_|^base_model\.model\."
"""Layer names of kohya, XLabs, BFL and fal, which diffusers translates."""
_TEXT_ENCODERS = {"small": "text_encoder", "large": "text_encoder_2"}
"""CLIP and T5; T5's activations overflow in fp16 (diffusers docs, Flux, "FP16")."""
_GUIDANCE_WHILE_TRAINING = 1.0
"""Guidance-distilled models meet real pictures at 1 (as in diffusers' own Flux script)."""


@dataclass(frozen=True)
class TextEncoders:
    """CLIP (pooled) and T5 (sequence), their tokenizers, and T5's token count.

    T5 is None where only CLIP was asked for.
    """

    clip_tokenizer: Any
    clip: Any
    t5_tokenizer: Any
    t5: Any
    max_tokens: int


class Flux:
    """The FLUX.1 family; see `families.base.Family` for what each method promises."""

    name = "flux"
    title = "FLUX.1"
    entries: Sequence[Entry] = (POCKET, SCHNELL, DEV)
    capabilities = Capabilities(negative_prompt=False, text_encoder_lora=True)
    lora_targets: Mapping[str, str] = {
        "attention": _BLOCK + r"attn\." + _ATTENTION,
        "attention_and_mlp": _BLOCK + rf"(attn\.{_ATTENTION}|{_MLP})",
    }
    denoiser_part = "transformer"
    text_encoder_targets = r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"

    # Text

    def text_encoder(
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> TextEncoders:
        from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

        def loaded(kind: Any, name: str) -> Any:
            model = kind.from_pretrained(
                folder / name, local_files_only=True, use_safetensors=True, dtype=dtypes[name]
            )
            return weights.frozen(model, device)

        dtypes = weights.text_dtypes(dtype, device, **_TEXT_ENCODERS)
        tokenizer_2 = T5TokenizerFast.from_pretrained(folder / "tokenizer_2", local_files_only=True)
        return TextEncoders(
            CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
            loaded(CLIPTextModel, "text_encoder"),
            tokenizer_2,
            None if adaptable_only else loaded(T5EncoderModel, "text_encoder_2"),
            _text_tokens(tokenizer_2, adapters.read_json(folder / "transformer" / "config.json")),
        )

    def text_encoder_of(self, pipeline: Any) -> TextEncoders:
        return TextEncoders(
            pipeline.tokenizer,
            pipeline.text_encoder,
            pipeline.tokenizer_2,
            pipeline.text_encoder_2,
            _text_tokens(pipeline.tokenizer_2, pipeline.transformer.config),
        )

    def encode_text(self, encoder: TextEncoders, captions: Sequence[str]) -> dict[str, Tensor]:
        ids = _token_ids(encoder.t5_tokenizer, captions, encoder.max_tokens, encoder.t5)
        return {"prompt_embeds": encoder.t5(ids)[0], **self.encode_adapted_text(encoder, captions)}

    def adaptable_text_encoder(self, encoder: TextEncoders) -> nn.Module:
        clip: nn.Module = encoder.clip
        return clip

    def encode_adapted_text(self, encoder: TextEncoders, captions: Sequence[str]) -> dict[str, Tensor]:
        longest = encoder.clip_tokenizer.model_max_length
        ids = _token_ids(encoder.clip_tokenizer, captions, longest, encoder.clip)
        return {"pooled_prompt_embeds": encoder.clip(ids).pooler_output}

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
        return vae.drawn(autoencoder_config, posterior, generator)

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
        from diffusers import FluxTransformer2DModel

        options = weights.quantized(quantize, dtype=dtype, device=device)
        loaded = weights.load(FluxTransformer2DModel, folder / "transformer", dtype, **options)
        model: nn.Module = weights.frozen(loaded, None if options else device)
        if training_adapter is not None:
            adapters.merge_for_training(model, training_adapter, names=keys_tables.FLUX)
        return model

    def drawing(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        return adapters.without_training_adapter(denoiser)

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        return flow.logit_normal(count, generator)

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        config: Any = getattr(denoiser, "module", denoiser).config
        height, width = noisy.shape[-2:]
        tokens = text["prompt_embeds"].shape[1]
        text_ids, image_ids = position_ids(tokens, height // 2, width // 2, noisy.device)
        guidance = (
            sigmas.new_full((len(noisy),), _GUIDANCE_WHILE_TRAINING) if config.guidance_embeds else None
        )
        predicted = denoiser(
            hidden_states=pack(noisy),
            timestep=sigmas,
            guidance=guidance,
            pooled_projections=text["pooled_prompt_embeds"],
            encoder_hidden_states=text["prompt_embeds"],
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return unpack(predicted, height, width)

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return flow.add_noise(latents, noise, sigmas)

    def target(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        return flow.velocity(latents, noise)

    def loss_weight(self, sigmas: Tensor) -> Tensor:
        return flow.evenly(sigmas)

    def min_snr(self, sigmas: Tensor, gamma: float) -> Tensor:
        return flow.min_snr(sigmas, gamma)

    # Drawing

    def pipeline(
        self, folder: Path, *, dtype: torch.dtype, device: str, computes_on: str = "", **parts: Any
    ) -> Any:
        from diffusers import FluxPipeline

        dtypes = {"default": dtype, **weights.text_dtypes(dtype, computes_on or device, **_TEXT_ENCODERS)}
        pipeline = weights.load(FluxPipeline, folder, dtypes, **parts)
        pipeline.set_progress_bar_config(disable=True)
        for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            if part is not None and part not in parts.values():
                weights.frozen(part, device)
        return pipeline

    def negative_text(self, request: DrawImages) -> str | None:
        by_second_pass = self._entry(request.base).guidance == "true_cfg" and request.guidance_scale > 1
        return "" if by_second_pass else None  # else it is an input of the model or distilled into it

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        count = len(generators)
        embedded = self._entry(request.base).guidance == "embedded"
        apart = {
            f"negative_{name}": tensor.repeat_interleave(count, 0)
            for name, tensor in (negative or {}).items()
        }
        return {
            "width": request.width,
            "height": request.height,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale if embedded else 0.0,
            "true_cfg_scale": request.guidance_scale if apart else 1.0,
            **apart,
            "generator": list(generators),
            **{name: tensor.repeat_interleave(count, 0) for name, tensor in text.items()},
        }

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        width, height = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in size_px)
        clean = unpack(flow.clean(pipeline.scheduler.sigmas, before, after, step), height, width)
        scale, shift = pipeline.vae.config.scaling_factor, pipeline.vae.config.shift_factor
        return clean / float(scale) + float(shift or 0.0)

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
        parts = {"transformer": layers, "text_encoder": text_layers or {}}
        adapters.save(file, parts, metadata, alpha=alpha, names=keys_tables.FLUX)

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        parts = ("transformer", "text_encoder")
        return adapters.load(
            pipeline, file, name, parts=parts, foreign=_FOREIGN, family=self.title, names=keys_tables.FLUX
        )

    def tiny(self, folder: Path) -> Path:
        from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

        with tiny.seeded(7):
            transformer = FluxTransformer2DModel(
                in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
                num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
                guidance_embeds=True, axes_dims_rope=(4, 6, 6),
            )  # fmt: skip
            parts = {**tiny.clip(), **tiny.t5(), "vae": tiny.autoencoder(), "transformer": transformer}
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        FluxPipeline(scheduler=scheduler, **parts).save_pretrained(folder)
        return folder

    def _entry(self, base: str) -> Entry:
        return next(entry for entry in self.entries if entry.id == parent_of(base))


def _text_tokens(tokenizer: Any, transformer_config: Mapping[str, Any]) -> int:
    # schnell was distilled with 256 tokens, dev with 512; Pocket's tokenizer says fewer.
    longest = 512 if transformer_config["guidance_embeds"] else 256
    return min(longest, int(tokenizer.model_max_length))


def _token_ids(tokenizer: Any, captions: Sequence[str], length: int, model: Any) -> Tensor:
    batch = tokenizer(
        list(captions), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    ids: Tensor = batch.input_ids.to(weights.device_of(model))
    return ids
