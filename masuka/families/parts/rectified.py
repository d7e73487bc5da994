"""What rectified-flow transformers with one frozen text encoder have in common.

FLUX.2, Z-Image, Qwen-Image, Krea 2 and FLUX 3 differ in what they read and in how they are
called; the classes that are loaded, the objective and the LoRA's way are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from masuka.errors import InvalidInput
from masuka.families.base import AdapterReport, Entry, parent_of
from masuka.families.lora import adapters, keys_tables
from masuka.families.parts import flow, weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

_TEXT_STEP = 32
"""Tokens; texts of a batch are cut to a multiple of it, so that few lengths are compiled."""


@dataclass(frozen=True)
class TextEncoder:
    """A language model that reads prompts, its tokenizer, and its token count."""

    tokenizer: Any
    model: Any
    max_tokens: int
    layers: tuple[int, ...] = ()
    """Which of its layers' states are the text, where the checkpoint says so."""


class RectifiedFlow:
    """The part of a `families.base.Family` that these have in common.

    A family adds its facts, `encode_text`, `encode_pixels`, `sample_latents`,
    `sample_sigmas`, `predict`, `call_arguments`, `clean_latents` and `tiny`.
    """

    name: str
    title: str
    entries: Sequence[Entry]
    denoiser_part = "transformer"
    text_encoder_targets = ""
    max_tokens: ClassVar[int] = 512
    classes: ClassVar[tuple[str, str, str]]
    """Names in diffusers: of the transformer, the VAE and the pipeline."""
    text_class: ClassVar[str]
    """The text encoder's name in transformers."""
    guidance_from: ClassVar[float] = 1.0
    """Above it the pipeline makes a second pass; some count from 0."""
    foreign: ClassVar[str] = r"^diffusion_model\.|^lora_unet_|^lycoris_"
    """Tensor names of other tools' LoRA files, which diffusers translates."""

    # Text

    def text_encoder(
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> TextEncoder:
        import transformers

        beside = _text_dtype(dtype, device)
        kind = getattr(transformers, self.text_class)
        model = kind.from_pretrained(
            folder / "text_encoder", local_files_only=True, use_safetensors=True, dtype=beside
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        return self._reading(tokenizer, weights.frozen(model, device))

    def text_encoder_of(self, pipeline: Any) -> TextEncoder:
        return self._reading(pipeline.tokenizer, pipeline.text_encoder)

    def adaptable_text_encoder(self, encoder: TextEncoder) -> nn.Module:
        raise self._no_text_lora()

    def encode_adapted_text(self, encoder: TextEncoder, captions: Sequence[str]) -> dict[str, Tensor]:
        raise self._no_text_lora()

    # Pixels and latents

    def autoencoder(self, folder: Path, *, dtype: torch.dtype, device: str) -> nn.Module:
        model: nn.Module = weights.frozen(weights.load(_diffusers(self.classes[1]), folder / "vae", dtype), device)
        return model

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
        options = weights.quantized(quantize, dtype=dtype, device=device)
        loaded = weights.load(_diffusers(self.classes[0]), folder / "transformer", dtype, **options)
        model: nn.Module = weights.frozen(loaded, None if options else device)
        if training_adapter is not None:
            adapters.merge_for_training(
                model, training_adapter, reader=_diffusers(self.classes[2]), names=keys_tables.names_of(self.name)
            )
        return model

    def drawing(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        return adapters.without_training_adapter(denoiser)

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
        dtypes = {"default": dtype, "text_encoder": _text_dtype(dtype, computes_on or device)}
        pipeline = weights.load(_diffusers(self.classes[2]), folder, dtypes, **parts)
        pipeline.set_progress_bar_config(disable=True)
        for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
            if part is not None and part not in parts.values():
                weights.frozen(part, device)
        return pipeline

    def negative_text(self, request: DrawImages) -> str | None:
        by_second_pass = self._entry(request.base).guidance == "true_cfg"
        if not by_second_pass or request.guidance_scale <= self.guidance_from:
            return None
        return request.negative_prompt

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
        names = keys_tables.names_of(self.name)
        adapters.save(file, {"transformer": layers}, metadata, alpha=alpha, names=names)

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        return adapters.load(
            pipeline, file, name, parts=("transformer",), foreign=self.foreign, family=self.title,
            names=keys_tables.names_of(self.name),
        )  # fmt: skip

    def _reading(self, tokenizer: Any, model: Any) -> TextEncoder:
        """The encoder; a tokenizer that states fewer tokens than the family reads has the say."""
        longest = int(getattr(tokenizer, "model_max_length", self.max_tokens))
        return TextEncoder(tokenizer, model, min(self.max_tokens, longest))

    def _no_text_lora(self) -> InvalidInput:
        return InvalidInput(
            f"The text encoder of {self.title} is a language model, which a LoRA does not train here.",
            "Leave 'Train the text encoder' off.",
            field="train_text_encoder",
        )

    def _entry(self, base: str) -> Entry:
        return next(entry for entry in self.entries if entry.id == parent_of(base))


def repeated(text: Mapping[str, Tensor], count: int, prefix: str = "") -> dict[str, Any]:
    """Each text as often as there are pictures of it, under the pipeline's names."""
    return {
        f"{prefix}{name}": (tensor > 0.5 if name.endswith("_mask") else tensor).repeat_interleave(count, 0)
        for name, tensor in text.items()
    }


def within(text: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Embeddings (B, T, …) and a boolean mask (B, T), without what no text reaches."""
    mask = text["prompt_embeds_mask"] > 0.5
    reached = int(mask.any(0).nonzero().max()) + 1
    length = min(mask.shape[1], -(-reached // _TEXT_STEP) * _TEXT_STEP)
    return text["prompt_embeds"][:, :length], mask[:, :length]


def packed(texts: Sequence[Tensor]) -> dict[str, Tensor]:
    """Texts (T, …) of different lengths as one batch, zeros behind the shorter ones."""
    import torch

    mask = torch.nn.utils.rnn.pad_sequence([text.new_ones(len(text)) for text in texts], batch_first=True)
    embeds = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    return {"prompt_embeds": embeds, "prompt_embeds_mask": mask}


def shift_of(tokens: int, *, most_tokens: int = 4096) -> float:
    """How far FLUX's relatives move noise levels for a picture of so many tokens.

    e^mu, with mu rising in a line from 0.5 at 256 tokens to 1.15 at the most.
    """
    import math

    return math.exp(0.5 + 0.65 * (tokens - 256) / (most_tokens - 256))


def _diffusers(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _text_dtype(dtype: torch.dtype, device: str) -> torch.dtype:
    """The denoiser's format on a CPU; on a GPU one in which a language model fits and stays finite.

    In fp32, which older cards draw and learn in, four billion weights are as much as they hold.
    """
    import torch

    exact = dtype == torch.bfloat16 or (dtype == torch.float32 and not device.startswith("cuda"))
    return dtype if exact else weights.beside_fp16(device)
