"""What the denoiser sees at one micro-step, from the caches and a seed.

Nothing is decoded or encoded here and nothing is remembered: the same step gives the
same batch in every process. Each picture's noise is its own, so that a batch of four is
what two of two are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from masuka.families.base import Family
from masuka.training.caches import Bucket, Latents, Texts, Variant
from masuka.training.objective import Objective
from masuka.training.order import Batch, step_seed

EMPTY = 0
"""The row of the empty text."""
RESIDENT_BYTES = 2**30
"""Caches up to this size live on the device; larger ones are copied row by row."""


@dataclass(frozen=True)
class Micro:
    """One micro-step's input: noisy latents, noise levels, text, what to predict.

    `weights` (B, 1, h, w) say how much each place counts; None where all count alike.
    """

    noisy: Tensor
    sigmas: Tensor
    target: Tensor
    text: Mapping[str, Tensor]
    captions: tuple[str, ...]
    weights: Tensor | None = None


class Batches:
    """Micro-steps by step and the pictures that the order names.

    `captions` is each picture's caption, or several of which each step says one; the empty
    one takes its place with probability `dropout`, its embedding is cached like any other.
    """

    def __init__(
        self,
        family: Family,
        latents: Latents,
        texts: Texts,
        captions: Sequence[str | Sequence[str]],
        *,
        dropout: float,
        seed: int | str,
        device: str,
        dtype: torch.dtype,
        objective: Objective | None = None,
    ) -> None:
        self._family = family
        self._objective = objective or Objective(family)
        self._config = latents.autoencoder_config
        self._dropout = dropout
        self._seed = seed
        self._device = device
        self._dtype = dtype
        self._generator = torch.Generator()
        self._texts = texts.texts
        place = device if _bytes(latents, texts) <= RESIDENT_BYTES else "cpu"
        self._text = {name: tensor.to(place, dtype) for name, tensor in texts.tensors.items()}
        self._buckets = [_placed(bucket, place) for bucket in latents.buckets]
        said = [(text,) if isinstance(text, str) else text for text in captions]
        self._caption_rows = [
            [[texts.row(text) for text in said[picture]] for picture in bucket.pictures]
            for bucket in latents.buckets
        ]

    def at(self, step: int, batch: Batch) -> Micro:
        """The input of that step's batch, on the device."""
        rows = torch.tensor(batch.rows)
        variant = self._variant(step, batch.group, self._buckets[batch.bucket].variants)
        posterior = _rows(variant.posterior, rows)
        said = self._caption_rows[batch.bucket]
        drawn = [
            self._drawn(
                step, batch.first + place, {name: t[place : place + 1] for name, t in posterior.items()}, said[row]
            )
            for place, row in enumerate(batch.rows)
        ]
        latents, noise, sigmas, texts = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        noise = noise.to(latents.device)
        return Micro(
            noisy=self._family.add_noise(latents, noise, sigmas).to(self._device, self._dtype),
            sigmas=sigmas.to(self._device),
            target=self._family.target(latents, noise, sigmas).to(self._device),
            text={name: t.to(self._device) for name, t in _rows(self._text, texts).items()},
            captions=tuple(self._texts[row] for row in texts.tolist()),
            weights=None
            if variant.weights is None
            else _rows({"": variant.weights}, rows)[""].to(self._device),
        )

    def said(self, text: str, count: int) -> dict[str, Tensor]:
        """The embedding of a text for that many pictures, on the device."""
        rows = torch.full((count,), self._texts.index(text))
        return {name: tensor.to(self._device) for name, tensor in _rows(self._text, rows).items()}

    def _drawn(
        self, step: int, picture: int, posterior: Mapping[str, Tensor], said: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(latents, noise, noise level, row of the text) of a picture of the step."""
        self._generator.manual_seed(step_seed(self._seed, step, picture))
        latents = self._family.sample_latents(self._config, posterior, self._generator)
        noise = self._objective.noise(latents, self._generator)
        sigma = self._objective.sigma(latents, self._generator)
        dropped = bool(torch.rand(1, generator=self._generator) < self._dropout)
        chosen = 0
        if len(said) > 1:
            chosen = int(torch.randint(len(said), (1,), generator=self._generator))
        return latents, noise, sigma, torch.tensor([EMPTY if dropped else said[chosen]])

    def _variant(self, step: int, group: int, variants: Sequence[Variant]) -> Variant:
        """One of them by the step alone; what a step draws besides does not depend on it."""
        if len(variants) == 1:
            return variants[0]
        return random.Random(f"{self._seed}/variant/{step}/{group}").choice(variants)


def _rows(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in tensors.items()}


def _placed(bucket: Bucket, place: str) -> Bucket:
    first, *varied = [_on(variant, place) for variant in bucket.variants]
    return Bucket(bucket.shape, first.posterior, bucket.pictures, first.weights, tuple(varied))


def _on(variant: Variant, place: str) -> Variant:
    weights = None if variant.weights is None else variant.weights.to(place)
    return Variant({name: tensor.to(place) for name, tensor in variant.posterior.items()}, weights)


def _bytes(latents: Latents, texts: Texts) -> int:
    variants = [variant for bucket in latents.buckets for variant in bucket.variants]
    tensors = [*texts.tensors.values(), *(t for v in variants for t in v.posterior.values())]
    return sum(tensor.nbytes for tensor in tensors)
