"""What a model family must say about itself; the training loop and the drawing code ask
nothing else, and know no family by name.

A family file is light: facts at the top, heavy imports inside its methods, so that the
page may read it. All tensors a family returns are on the CPU unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from masuka.requests.base import Limit

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from masuka.requests.images import DrawImages

Tier = Literal["any", "low", "mid", "high"]
Guidance = Literal["embedded", "true_cfg", "none"]
"""How a base takes `guidance_scale`: as an input of its denoiser; by a second pass
without the prompt (twice the time); or not at all (distilled for few steps)."""


OWN = "+"
"""Between a catalogue entry's id and the name of a person's own base that is of its kind."""


@dataclass(frozen=True)
class Preset:
    """Settings for drawing under one name, which no other base uses."""

    name: str
    values: Mapping[str, Any]
    """Fields of `DrawImages`, within the base's limits."""


@dataclass(frozen=True)
class Size:
    """What a base weighs and how much work a picture is, for estimates.

    Counts are of parameters. The denoiser's tokens of a picture are its pixels divided by
    `pixels_per_token`; `width` is what each token is long inside.
    """

    denoiser: int
    text_encoders: int
    autoencoder: int
    width: int
    blocks: int
    pixels_per_token: int = 256
    text_tokens: int = 512
    largest_text_encoder: int = 0
    """The largest of several, which are loaded one by one; 0: there is one only."""


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
    guidance: Guidance = "embedded"
    gated: bool = False
    commercial: bool = True
    size: Size | None = None
    """None where nobody has counted; then nothing is estimated."""
    architecture: str = ""
    """modelspec.architecture without `/lora`; other tools sort LoRA files by it."""
    kohya_version: str = ""
    """ss_base_model_version, by which A1111 and Forge know whom a LoRA is for."""
    prediction: str = ""
    """What the denoiser predicts where that differs within a family: epsilon, v, edm."""
    autoencoder_repo: str | None = None
    """A VAE that takes the place of the base's own, e.g. one that stays finite in fp16."""
    captions: Literal["sentence", "tags"] = "sentence"
    """How the base was taught, and so how its data sets are best captioned."""
    trainable: bool = True
    draws_adapters_of: tuple[str, ...] = ()
    """Bases of its family whose LoRAs it draws with too: what it was distilled from."""
    training_adapter: str | None = None
    """A LoRA repo that is merged while training a distilled base, and left out when drawing."""
    draw_limits: Mapping[str, Limit] = field(default_factory=dict)
    train_limits: Mapping[str, Limit] = field(default_factory=dict)
    presets: Sequence[Preset] = ()


def parent_of(base_id: str) -> str:
    """The id of the catalogue's entry whose facts hold for this base.

    A person's own base is named `<entry>+<name>`: a fine-tune of `sdxl` is `sdxl+my-film-look`.
    """
    return base_id.partition(OWN)[0]


@dataclass(frozen=True)
class Capabilities:
    """What the installed libraries can do with this family; the page shows no more."""

    negative_prompt: bool
    lora: bool = True
    text_encoder_lora: bool = False
    fp16: bool = True
    """Whether fp16 compute is known to stay finite (cards without bf16)."""
    snr_weighting: bool = False
    """Whether noise is added by a schedule of signal-to-noise ratios (min-SNR, noise offset)."""


@dataclass(frozen=True)
class AdapterReport:
    """How much of a LoRA landed in the model: 0 is an error for the caller."""

    applied: int
    total: int


class Family(Protocol):
    """One model family: entries, ranges, and what differs between families.

    Encoded text is a mapping of tensors, batch first, named as the pipeline's `__call__`
    names them (`prompt_embeds`, `pooled_prompt_embeds`, …).
    """

    name: str
    title: str
    entries: Sequence[Entry]
    capabilities: Capabilities
    lora_targets: Mapping[str, str]
    """Choice of `TrainImage.layers` → regular expression over whole module names, which is
    what peft's `target_modules` takes as a string (endings alone would also catch the
    output layer of some models)."""
    text_encoder_targets: str
    """The same for the text encoder that may be adapted; '' when none may."""
    denoiser_part: str
    """The denoiser's name in the pipeline and in front of its layers: transformer or unet."""

    def text_encoder(
        self, folder: Path, *, dtype: torch.dtype, device: str, adaptable_only: bool = False
    ) -> Any:
        """The loaded text encoders and tokenizers, ready for `encode_text`.

        `dtype` is the denoiser's; an encoder that overflows in fp16 takes another one. With
        `adaptable_only` just what `encode_adapted_text` needs is loaded.
        """
        ...

    def text_encoder_of(self, pipeline: Any) -> Any:
        """The same around the encoders that a loaded pipeline already holds."""
        ...

    def encode_text(self, encoder: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Embeddings, batch first, e.g. prompt_embeds (B, T, D).

        A family whose texts differ in length gives a mask (B, T) beside them; those are then
        padded with zeros, and `predict` leaves out what no text of its batch reaches.
        """
        ...

    def adaptable_text_encoder(self, encoder: Any) -> nn.Module:
        """The text encoder that a LoRA may adapt (`text_encoder.` in a LoRA file)."""
        ...

    def encode_adapted_text(self, encoder: Any, captions: Sequence[str]) -> dict[str, Tensor]:
        """Only the embeddings that come from the adaptable encoder, with gradients."""
        ...

    def autoencoder(self, folder: Path, *, dtype: torch.dtype, device: str) -> nn.Module:
        """The loaded VAE, frozen."""
        ...

    def encode_pixels(self, autoencoder: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
        """Posterior mean and std, (B, C, h, w) fp32, of pixels (B, 3, H, W) in [-1, 1]."""
        ...

    def sample_latents(
        self,
        autoencoder_config: Mapping[str, Any],
        posterior: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """One draw from the posterior, scaled as the denoiser expects, (B, C, h, w)."""
        ...

    def denoiser(
        self,
        folder: Path,
        *,
        dtype: torch.dtype,
        device: str,
        quantize: str = "none",
        training_adapter: Path | None = None,
    ) -> nn.Module:
        """The loaded denoiser (transformer or UNet), frozen.

        A distilled base learns with `training_adapter` merged in; see `drawing`.
        Raises NoAccelerator for a quantised base without an NVIDIA GPU.
        """
        ...

    def drawing(self, denoiser: nn.Module) -> AbstractContextManager[None]:
        """Within it the denoiser draws as it will later: without the training adapter."""
        ...

    def sample_sigmas(self, count: int, latents_shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Noise levels in (0, 1), (count,), from the family's training distribution.

        0 is the picture and 1 is noise, whatever the family counts in itself.
        """
        ...

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, sigmas: Tensor, text: Mapping[str, Tensor]
    ) -> Tensor:
        """The denoiser's prediction for noisy latents (B, C, h, w), same shape."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        """The latents (B, C, h, w) at these noise levels (B,), as `predict` takes them."""
        ...

    def target(self, latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
        """What `predict` should have returned."""
        ...

    def loss_weight(self, sigmas: Tensor) -> Tensor:
        """Weight of each sample's squared error, (B,)."""
        ...

    def min_snr(self, sigmas: Tensor, gamma: float) -> Tensor:
        """Weight of each sample's squared error by min-SNR, (B,), at most 1.

        The signal-to-noise ratio, gamma at the most, by how large the error of `predict` is for
        an error of the picture, which differs with what is predicted (arXiv:2303.09556). Asked
        only where `capabilities.snr_weighting` is.
        """
        ...

    def pipeline(
        self, folder: Path, *, dtype: torch.dtype, device: str, computes_on: str = "", **parts: Any
    ) -> Any:
        """The family's stock diffusers pipeline, loaded, quiet and without gradients.

        `computes_on` is the device that it will be put on when that is not `device` yet.
        `parts` are components that are there already, under the pipeline's names
        (`transformer=…, vae=…`); None leaves one out.
        """
        ...

    def negative_text(self, request: DrawImages) -> str | None:
        """The text that guidance leads away from, to be encoded too; None: none is needed."""
        ...

    def call_arguments(
        self,
        request: DrawImages,
        generators: Sequence[torch.Generator],
        *,
        text: Mapping[str, Tensor],
        negative: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Keyword arguments for the pipeline's `__call__`: one picture a generator.

        `text` is the prompt and `negative` what `negative_text` asked for, both from
        `encode_text` with a batch of one.
        """
        ...

    def clean_latents(
        self, pipeline: Any, before: Tensor, after: Tensor, step: int, size_px: tuple[int, int]
    ) -> Tensor:
        """A guess at the finished latents (B, C, h, w), as the VAE takes them.

        `before` and `after` are the pipeline's latents around the step of that index;
        `size_px` is (width, height).
        """
        ...

    def save_adapter(
        self,
        file: Path,
        layers: Mapping[str, Tensor],
        metadata: Mapping[str, str],
        *,
        alpha: float | None = None,
        text_layers: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Writes a LoRA that diffusers and the tools of this family's users open.

        `layers` and `text_layers` are peft state dicts of the denoiser and of the adaptable
        text encoder (`….lora_A.weight`). `alpha` is the one they were trained with, the
        rank when None; it is folded into the weights, so that readers that know no alpha
        agree with those that do. The file appears whole or not at all.
        """
        ...

    def load_adapter(self, pipeline: Any, file: Path, name: str) -> AdapterReport:
        """Loads a LoRA into the pipeline under that name and counts the layers it reached.

        Raises InvalidInput, before anything is changed, when no layer of it fits.
        """
        ...

    def tiny(self, folder: Path) -> Path:
        """A random-weights checkpoint of the real classes, a few MB, for tests."""
        ...
