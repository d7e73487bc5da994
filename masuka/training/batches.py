"""What the denoiser sees at one micro-step, from the caches and a seed.

Nothing is decoded or encoded here and nothing is remembered: the same step gives the
same batch in every process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from masuka.families.base import Family
from masuka.training.caches import Bucket, Latents, Texts
from masuka.training.order import Batch, step_seed

RESIDENT_BYTES = 2**30
"""Caches up to this size live on the device; larger ones are copied row by row."""


@dataclass(frozen=True)
class Micro:
    """One micro-step's input: noisy latents, noise levels, text, what to predict."""

    noisy: Tensor
    sigmas: Tensor
    target: Tensor
    text: Mapping[str, Tensor]
    captions: tuple[str, ...]


class Batches:
    """Micro-steps by (step, micro-step) and the pictures that the order names.

    `captions` is each picture's caption; the empty one takes its place with probability
    `dropout`, its embedding is cached like any other.
    """

    def __init__(
        self,
        family: Family,
        latents: Latents,
        texts: Texts,
        captions: Sequence[str],
        *,
        dropout: float,
        seed: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        self._family = family
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
        self._caption_rows = [
            torch.tensor([texts.row(captions[picture]) for picture in bucket.pictures])
            for bucket in latents.buckets
        ]

    def at(self, step: int, micro_step: int, batch: Batch) -> Micro:
        """The input of that micro-step, on the device."""
        self._generator.manual_seed(step_seed(self._seed, step, micro_step))
        rows = torch.tensor(batch.rows)
        posterior = _rows(self._buckets[batch.bucket].posterior, rows)
        latents = self._family.sample_latents(self._config, posterior, self._generator)
        count = len(batch.rows)
        noise = torch.randn(latents.shape, generator=self._generator).to(latents.device)
        sigmas = self._family.sample_sigmas(count, latents.shape, self._generator)
        dropped = torch.rand(count, generator=self._generator) < self._dropout
        texts = self._caption_rows[batch.bucket][rows].masked_fill(dropped, 0)
        levels = sigmas.to(latents.device).view(-1, *(1 for _ in latents.shape[1:]))
        noisy = latents + levels * (noise - latents)
        return Micro(
            noisy=noisy.to(self._device, self._dtype),
            sigmas=sigmas.to(self._device),
            target=self._family.target(latents, noise).to(self._device),
            text={name: t.to(self._device) for name, t in _rows(self._text, texts).items()},
            captions=tuple(self._texts[row] for row in texts.tolist()),
        )


def _rows(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in tensors.items()}


def _placed(bucket: Bucket, place: str) -> Bucket:
    posterior = {name: tensor.to(place) for name, tensor in bucket.posterior.items()}
    return Bucket(bucket.shape, posterior, bucket.pictures)


def _bytes(latents: Latents, texts: Texts) -> int:
    tensors = [*texts.tensors.values(), *(t for b in latents.buckets for t in b.posterior.values())]
    return sum(tensor.nbytes for tensor in tensors)
