"""A plain Flux LoRA loop, written afresh after what diffusers' own DreamBooth example does.

It is what MASUKA's training is measured against, so it is neither clumsy nor tuned:
everything is loaded at the start, one AdamW over peft's parameters, the denoiser wrapped
by accelerate. By default text encoders and VAE run in every step; with `cached` the
latents are kept, the prompt is encoded once and both are let go, as the example's flags do.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from diffusers.optimization import get_scheduler
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
)
from peft import LoraConfig
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5TokenizerFast

Example = tuple[torch.Tensor, str]


@dataclass(frozen=True)
class Given:
    """What a step draws at random, given instead, so that two loops can be compared."""

    pictures: tuple[int, ...]
    drawn: torch.Tensor
    """(B, C, h, w), the place in the VAE's posterior, in its deviations."""
    noise: torch.Tensor
    sigmas: torch.Tensor
    timesteps: torch.Tensor


def take_weights(model: torch.nn.Module, file: Path) -> None:
    """Puts a LoRA's beginning, a file of `<layer>.lora_A.weight`, into the model's adapter."""
    given = load_file(file)
    named = {n.replace(".default.", "."): p for n, p in model.named_parameters() if p.requires_grad}
    if named.keys() != given.keys():
        raise ValueError(f"{len(named.keys() ^ given.keys())} layers differ between the two loops")
    for name, parameter in named.items():
        parameter.data.copy_(given[name])


class Pictures(Dataset[Example]):
    """Pictures with captions, decoded once and kept as tensors."""

    def __init__(self, files: list[Path], captions: list[str], side_px: int) -> None:
        self._captions = captions
        self._pixels = []
        for file in files:
            picture = Image.open(file).convert("RGB").resize((side_px, side_px), Image.Resampling.BILINEAR)
            array = np.asarray(picture, dtype=np.float32) / 127.5 - 1
            self._pixels.append(torch.from_numpy(array).permute(2, 0, 1))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: int) -> Example:
        return self._pixels[index], self._captions[index]


class PlainLoop:
    """One training of that kind; `step` is one optimiser step and returns its loss."""

    def __init__(
        self,
        folder: Path,
        files: list[Path],
        captions: list[str],
        *,
        side_px: int,
        targets: str,
        rank: int,
        batch_size: int,
        learning_rate: float,
        precision: str,
        tokens: int,
        cached: bool,
        weights: Path | None = None,
        on_cpu: bool = True,
    ) -> None:
        torch.manual_seed(0)
        self._cached, self._tokens = cached, tokens
        self._accelerator = Accelerator(cpu=on_cpu, mixed_precision={"fp32": "no"}.get(precision, precision))
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._load(folder)
        self._transformer.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        )
        if weights is not None:
            take_weights(self._transformer, weights)
        trainable = [p for p in self._transformer.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=1e-4, eps=1e-8)
        self.pictures = Pictures(files, captions, side_px)
        loader = DataLoader(self.pictures, batch_size=batch_size, shuffle=True, drop_last=True)
        self._keep = self._cache(loader, captions[0], batch_size) if cached else None
        schedule = get_scheduler("constant", optimizer=optimizer)
        self._transformer, self._optimizer, self._loader, self._schedule = self._accelerator.prepare(
            self._transformer, optimizer, loader, schedule
        )
        self._transformer.train()
        self._batches = self._endless()

    def step(self) -> float:
        """One step in the example's order: text, latents, noise, prediction, loss, update."""
        number, (pixels, captions) = next(self._batches)
        if self._keep:
            text, pooled = self._keep[1]
            latents = self._keep[0][number % len(self._keep[0])].sample()
        else:
            text, pooled = self._encode(list(captions), len(captions))
            latents = self._vae.encode(pixels.to(dtype=self._vae.dtype)).latent_dist.sample()
        return self._update(latents, text, pooled, None)

    def step_with(self, given: Given) -> float:
        """One step on these pictures, with this noise in place of its own."""
        chosen = [self.pictures[index] for index in given.pictures]
        text, pooled = self._encode([caption for _, caption in chosen], len(chosen))
        pixels = torch.stack([pixels for pixels, _ in chosen])
        posterior = self._vae.encode(pixels.to(dtype=self._vae.dtype)).latent_dist
        return self._update(posterior.mean + posterior.std * given.drawn, text, pooled, given)

    def _update(
        self, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor, given: Given | None
    ) -> float:
        with self._accelerator.accumulate([self._transformer]):
            latents = (latents - self._shift) * self._scaling
            loss = self._loss(latents.to(dtype=self._dtype), text, pooled, given)
            self._accelerator.backward(loss)
            self._accelerator.clip_grad_norm_(self._transformer.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        return float(loss.detach().item())

    def _load(self, folder: Path) -> None:
        load: dict[str, Any] = {"local_files_only": True}
        self._clip_tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", **load)
        self._t5_tokenizer = T5TokenizerFast.from_pretrained(folder / "tokenizer_2", **load)
        self._clip = CLIPTextModel.from_pretrained(folder / "text_encoder", **load)
        self._t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", **load)
        self._vae = AutoencoderKL.from_pretrained(folder / "vae", **load)
        self._transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer", **load)
        self._scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler")
        self._shift = self._vae.config.shift_factor or 0.0
        self._scaling = self._vae.config.scaling_factor
        for model in (self._clip, self._t5, self._vae, self._transformer):
            model.requires_grad_(False)
            model.to(self._accelerator.device, dtype=self._dtype)

    def _cache(
        self, loader: DataLoader[Example], prompt: str, batch_size: int
    ) -> tuple[list[Any], tuple[torch.Tensor, torch.Tensor]]:
        with torch.no_grad():
            kept = [self._vae.encode(pixels.to(self._dtype)).latent_dist for pixels, _ in loader]
        text = self._encode([prompt], batch_size)
        del self._vae, self._clip, self._t5
        gc.collect()
        return kept, text

    def _encode(self, captions: list[str], count: int) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            clip_ids = self._clip_tokenizer(
                captions, padding="max_length", truncation=True, return_tensors="pt",
                max_length=self._clip_tokenizer.model_max_length,
            ).input_ids.to(self._clip.device)  # fmt: skip
            pooled = self._clip(clip_ids).pooler_output
            t5_ids = self._t5_tokenizer(
                captions, padding="max_length", truncation=True, return_tensors="pt", max_length=self._tokens
            ).input_ids.to(self._t5.device)
            text = self._t5(t5_ids)[0]
        if len(captions) < count:
            text, pooled = text.repeat(count, 1, 1), pooled.repeat(count, 1)
        return text.to(self._dtype), pooled.to(self._dtype)

    def _loss(
        self, latents: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor, given: Given | None
    ) -> torch.Tensor:
        count, channels, height, width = latents.shape
        noise = torch.randn_like(latents) if given is None else given.noise.to(latents.dtype)
        density = compute_density_for_timestep_sampling("none", count, 0.0, 1.0, 1.29)
        places = (density * self._scheduler.config.num_train_timesteps).long()
        timesteps = self._scheduler.timesteps[places].to(latents.device)
        sigmas = self._scheduler.sigmas[places].to(latents.device, latents.dtype).view(-1, 1, 1, 1)
        if given is not None:
            timesteps, sigmas = 1000 * given.sigmas, given.sigmas.to(latents.dtype).view(-1, 1, 1, 1)
        noisy = (1.0 - sigmas) * latents + sigmas * noise
        packed = FluxPipeline._pack_latents(noisy, count, channels, height, width)
        image_ids = FluxPipeline._prepare_latent_image_ids(
            count, height // 2, width // 2, latents.device, self._dtype
        )
        model = self._accelerator.unwrap_model(self._transformer)
        predicted = self._transformer(
            hidden_states=packed,
            timestep=timesteps / 1000,
            guidance=torch.full((count,), 1.0, device=latents.device) if model.config.guidance_embeds else None,
            pooled_projections=pooled,
            encoder_hidden_states=text,
            txt_ids=torch.zeros(text.shape[1], 3, dtype=self._dtype, device=latents.device),
            img_ids=image_ids,
            return_dict=False,
        )[0]
        predicted = FluxPipeline._unpack_latents(predicted, height * 8, width * 8, 8)
        weights = compute_loss_weighting_for_sd3("none", sigmas=sigmas)
        errors = (weights.float() * (predicted.float() - (noise - latents).float()) ** 2).flatten(1)
        return errors.mean(1).mean()

    def _endless(self) -> Iterator[tuple[int, Any]]:
        number = 0
        while True:
            for batch in self._loader:
                yield number, batch
                number += 1
