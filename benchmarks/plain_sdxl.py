"""A plain SDXL LoRA loop, written afresh after what diffusers' own DreamBooth example does.

As `plain_loop`, for a UNet: everything is loaded at the start, the VAE stays in fp32 and
encodes the pictures in every step, which that example has no flag against. By default both
text encoders read the captions in every step too; with `cached` one prompt is encoded once
for all pictures and they are let go, which is what the example does without captions.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from torch.utils.data import DataLoader
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from benchmarks.plain_loop import Example, Given, Pictures, take_weights

Text = tuple[torch.Tensor, torch.Tensor]


class PlainSdxl:
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
        cached: bool,
        weights: Path | None = None,
    ) -> None:
        torch.manual_seed(0)
        self._side_px = side_px
        self._accelerator = Accelerator(cpu=True, mixed_precision={"fp32": "no"}.get(precision, precision))
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._load(folder)
        self._unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        )
        if weights is not None:
            take_weights(self._unet, weights)
        trainable = [p for p in self._unet.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trainable, lr=learning_rate, weight_decay=1e-4, eps=1e-8)
        self.pictures = Pictures(files, captions, side_px)
        loader = DataLoader(self.pictures, batch_size=batch_size, shuffle=True, drop_last=True)
        self._text: Text | None = None
        if cached:
            self._text = self._encode([captions[0]] * batch_size)
            del self._encoders
            gc.collect()
        schedule = get_scheduler("constant", optimizer=optimizer)
        self._unet, self._optimizer, self._loader, self._schedule = self._accelerator.prepare(
            self._unet, optimizer, loader, schedule
        )
        self._unet.train()
        self._batches = self._endless()

    def step(self) -> float:
        """One step in the example's order: latents, noise, text, prediction, loss, update."""
        pixels, captions = next(self._batches)
        return self._update(pixels, list(captions), None)

    def step_with(self, given: Given) -> float:
        """One step on these pictures, with this noise in place of its own."""
        chosen = [self.pictures[index] for index in given.pictures]
        return self._update(torch.stack([p for p, _ in chosen]), [c for _, c in chosen], given)

    def _update(self, pixels: torch.Tensor, captions: list[str], given: Given | None) -> float:
        with self._accelerator.accumulate([self._unet]):
            with torch.no_grad():
                posterior = self._vae.encode(pixels.float()).latent_dist
            sampled = posterior.sample() if given is None else posterior.mean + posterior.std * given.drawn
            latents = (sampled * self._vae.config.scaling_factor).to(self._dtype)
            noise = torch.randn_like(latents) if given is None else given.noise.to(self._dtype)
            steps = self._scheduler.config.num_train_timesteps
            timesteps = torch.randint(0, steps, (len(latents),)) if given is None else given.timesteps.long()
            noisy = self._scheduler.add_noise(latents, noise, timesteps)
            embeds, pooled = self._text or self._encode(captions)
            sizes = torch.tensor([self._side_px, self._side_px, 0, 0, self._side_px, self._side_px])
            predicted = self._unet(
                noisy, timesteps, embeds, return_dict=False,
                added_cond_kwargs={"time_ids": sizes.repeat(len(latents), 1).to(self._dtype), "text_embeds": pooled},
            )[0]  # fmt: skip
            loss = torch.nn.functional.mse_loss(predicted.float(), noise.float())
            self._accelerator.backward(loss)
            self._accelerator.clip_grad_norm_(self._unet.parameters(), 1.0)
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
        return float(loss.detach().item())

    def _load(self, folder: Path) -> None:
        load: dict[str, Any] = {"local_files_only": True}
        kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
        self._encoders = [
            (CLIPTokenizer.from_pretrained(folder / f"tokenizer{name[12:]}", **load), kind.from_pretrained(folder / name, **load))
            for name, kind in kinds.items()
        ]  # fmt: skip
        self._vae = AutoencoderKL.from_pretrained(folder / "vae", **load)
        self._unet = UNet2DConditionModel.from_pretrained(folder / "unet", **load)
        self._scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        for model in (*(encoder for _, encoder in self._encoders), self._unet):
            model.requires_grad_(False)
            model.to(self._accelerator.device, dtype=self._dtype)
        self._vae.requires_grad_(False)
        self._vae.to(self._accelerator.device, dtype=torch.float32)

    def _encode(self, captions: list[str]) -> Text:
        hidden = []
        for tokenizer, encoder in self._encoders:
            ids = tokenizer(
                captions, padding="max_length", truncation=True, return_tensors="pt",
                max_length=tokenizer.model_max_length,
            ).input_ids  # fmt: skip
            with torch.no_grad():
                said = encoder(ids, output_hidden_states=True, return_dict=True)
            pooled = said[0]
            hidden.append(said.hidden_states[-2])
        return torch.cat(hidden, dim=-1).to(self._dtype), pooled.to(self._dtype)

    def _endless(self) -> Iterator[Example]:
        while True:
            yield from self._loader
