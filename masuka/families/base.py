"""What a model family must say about itself; the training loop and the drawing code ask
nothing else, and know no family by name.

A family file is light: facts at the top, heavy imports inside its methods, so that the
page may read it. All tensors a family returns are on the CPU unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from masuka.requests.base import Limit

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

Tier = Literal["any", "low", "mid", "high"]


@dataclass(frozen=True)
class Entry:
    """One base model of a family, as the catalogue lists it."""

    id: str
    title: str
    repo: str
    licence: str
    tier: Tier
    size_gib: float
    about: str
    revision: str | None = None
    folder: Path | None = None
    """Where it lies if MASUKA ships it; None means it is downloaded into the workspace."""
    gated: bool = False
    commercial: bool = True
    training_adapter: str | None = None
    """A LoRA repo that is merged while training a distilled base, and left out when drawing."""
    draw_limits: Mapping[str, Limit] = field(default_factory=dict)
    train_limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """What the installed libraries can do with this family; the page shows no more."""

    negative_prompt: bool
    lora: bool = True
    text_encoder_lora: bool = False
    fp16: bool = True
    """Whether fp16 compute is known to stay finite (cards without bf16)."""


@dataclass(frozen=True)
class AdapterReport:
    """How much of a LoRA landed in the model: 0 of anything is an error for the caller."""

    applied: int
    total: int


class Family(Protocol):
    """One model family: entries, ranges, and the few operations that differ between families."""

    name: str
    title: str
    entries: Sequence[Entry]
    capabilities: Capabilities
    lora_targets: Mapping[str, Sequence[str]]
    """Choice of `TrainImage.layers` → module-name endings for peft."""
    preview_factors: Sequence[Sequence[float]] | None
    """(latent channels, 3) linear latent → RGB factors, or None."""

    def text_encoder(self, folder: Path, *, dtype: torch.dtype, device: str) -> Any:
        """The loaded text encoders and tokenizers, ready for `encode_text`."""
        ...

    def encode_text(self, encoder: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings, batch first, all of one length, e.g. prompt_embeds (B, T, D)."""
        ...

    def autoencoder(self, folder: Path, *, dtype: torch.dtype, device: str) -> nn.Module:
        """The loaded VAE."""
        ...

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        """Posterior mean and std, each (B, C, h, w), of pixels (B, 3, H, W) in [-1, 1]."""
        ...

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """One draw from the posterior, scaled as the denoiser expects, (B, C, h, w)."""
        ...

    def denoiser(self, folder: Path, *, dtype: torch.dtype, device: str, quantize: str = "none") -> nn.Module:
        """The loaded denoiser (transformer or UNet), frozen."""
        ...

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Noise levels in (0, 1), (count,), from the family's training distribution."""
        ...

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        """The denoiser's prediction for noisy latents (B, C, h, w), same shape."""
        ...

    def target(self, latents: Tensor, noise: Tensor) -> Tensor:
        """What `predict` should have returned."""
        ...

    def loss_weight(self, sigmas: Tensor) -> Tensor:
        """Weight of each sample's squared error, (B,)."""
        ...

    def pipeline(self, folder: Path, *, dtype: torch.dtype, device: str) -> Any:
        """The stock diffusers pipeline of this family, loaded."""
        ...

    def call_arguments(self, request: DrawImages, generators: Sequence[torch.Generator]) -> dict[str, Any]:
        """Keyword arguments for the pipeline's `__call__` that draw what is asked."""
        ...

    def save_adapter(self, file: Path, layers: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Writes a LoRA that diffusers and the tools of this family's users open."""
        ...

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        """Loads a LoRA into the pipeline under that name and counts the layers it reached."""
        ...

    def tiny(self, folder: Path) -> Path:
        """A random-weights checkpoint of the real classes, a few MB, for tests."""
        ...
