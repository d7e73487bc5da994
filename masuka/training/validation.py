"""How well pictures are predicted that were not learnt from, measured the same way every time.

Each measurement uses the same pictures, the same noise and the same noise levels, so that a
difference between two steps is one of the LoRA's. It takes nothing from the training's own
randomness. Knows no optimiser and no picture that is drawn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from masuka.training.batches import Micro
from masuka.training.caches import Bucket, Latents, Texts, Variant
from masuka.training.learner import Learner
from masuka.training.plan import Plan
from masuka.training.quick import plain_attention

BANDS: Mapping[str, tuple[float, float]] = {"low": (0.0, 1 / 3), "mid": (1 / 3, 2 / 3), "high": (2 / 3, 1.0)}
"""Noise levels by name: low is about detail, high about composition."""
MEASURED_PER_BAND = 12
"""Predictions in each band; with fewer pictures each is measured at several noise levels."""


def held_out(names: Sequence[str], share: float, seed: int) -> tuple[int, ...]:
    """The places of the pictures that are only measured; () for a share of 0.

    At least one picture and never all; copies of one picture, known by their name (SHA-256),
    stay together. The same names, share and seed give the same choice whatever their order.
    """
    different = sorted(set(names), key=lambda name: random.Random(f"{seed}/held out/{name}").random())
    if share <= 0 or len(different) < 2:
        return ()
    count = min(len(different) - 1, max(1, round(share * len(different))))
    kept = set(different[:count])
    return tuple(place for place, name in enumerate(names) if name in kept)


def parted(latents: Latents, held: Sequence[int]) -> tuple[Latents, Latents]:
    """(the latents to learn from, those of the pictures that are held out)."""
    away = set(held)
    learnt = [_only(bucket, [n for n in bucket.pictures if n not in away]) for bucket in latents.buckets]
    kept = [_only(bucket, [n for n in bucket.pictures if n in away]) for bucket in latents.buckets]
    config = latents.autoencoder_config
    return (
        Latents(tuple(bucket for bucket in learnt if bucket.pictures), config),
        Latents(tuple(bucket for bucket in kept if bucket.pictures), config),
    )


@dataclass(frozen=True)
class _Look:
    """One prediction to be measured: a row of a bucket, its noise level and noise."""

    band: str
    bucket: int
    row: int
    sigma: float
    seed: int


class Validator:
    """Measures the loss of these pictures; `held` says whether they are learnt from."""

    def __init__(self, plan: Plan, latents: Latents, texts: Texts, captions: Sequence[str], *, held: bool) -> None:
        self._plan, self._latents, self._texts, self._captions = plan, latents, texts, captions
        self.held = held
        self._looks = _looks(latents, plan.request.seed)

    @property
    def pictures(self) -> int:
        """How many pictures are measured."""
        return len({(look.bucket, look.row) for look in self._looks})

    def measure(
        self, learner: Learner, told: Callable[[int, int], None] = lambda done, of: None
    ) -> dict[str, float]:
        """The mean error by the score's name: `validation` and `validation_<band>`.

        `told` hears how much of it is done.
        """
        plan = self._plan
        errors: dict[str, list[Tensor]] = {band: [] for band in BANDS}
        with learner.measuring(), plain_attention(plan.device, plan.dtype, plan.request.resolution_px):
            batches = self._batches()
            for number, looks in enumerate(batches):
                told(number, len(batches))
                errors[looks[0].band].append(learner.errors(self._micro(looks)))
        means = {band: float(torch.cat(found).double().mean()) for band, found in errors.items()}
        # Every band counts alike; a family's weighting is for learning, not for measuring.
        whole = math.fsum(means.values()) / len(means)
        return {"validation": whole, **{f"validation_{band}": mean for band, mean in means.items()}}

    def _batches(self) -> list[list[_Look]]:
        """Looks of one band and bucket together, as many as a training step takes."""
        batches: list[list[_Look]] = []
        for look in sorted(self._looks, key=lambda look: (look.band, look.bucket)):
            last = batches[-1] if batches else []
            same = last and (last[0].band, last[0].bucket) == (look.band, look.bucket)
            if same and len(last) < self._plan.request.batch_size:
                last.append(look)
            else:
                batches.append([look])
        return batches

    def _micro(self, looks: Sequence[_Look]) -> Micro:
        family, plan = self._plan.family, self._plan
        bucket = self._latents.buckets[looks[0].bucket]
        captions = tuple(self._captions[bucket.pictures[look.row]] for look in looks)
        drawn = [self._drawn(bucket, look) for look in looks]
        latents, noise = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        sigmas = torch.tensor([look.sigma for look in looks])
        rows = [self._texts.one(caption) for caption in captions]
        text = {name: torch.cat([row[name] for row in rows]).to(plan.device, plan.dtype) for name in rows[0]}
        weights = None
        if bucket.weights is not None:
            weights = bucket.weights[[look.row for look in looks]].to(plan.device)
        return Micro(
            noisy=family.add_noise(latents, noise, sigmas).to(plan.device, plan.dtype),
            sigmas=sigmas.to(plan.device),
            target=family.target(latents, noise, sigmas).to(plan.device),
            text=text,
            captions=captions,
            weights=weights,
        )

    def _drawn(self, bucket: Bucket, look: _Look) -> tuple[Tensor, Tensor]:
        """(latents, noise), each with a batch of one."""
        generator = torch.Generator().manual_seed(look.seed)
        posterior = {name: tensor[look.row : look.row + 1] for name, tensor in bucket.posterior.items()}
        latents = self._plan.family.sample_latents(self._latents.autoencoder_config, posterior, generator)
        return latents, torch.randn(latents.shape, generator=generator)


def _looks(latents: Latents, seed: int) -> list[_Look]:
    places = [(number, row) for number, bucket in enumerate(latents.buckets) for row in range(len(bucket.pictures))]
    random.Random(f"{seed}/validation").shuffle(places)
    places = places[:MEASURED_PER_BAND]
    times = max(1, MEASURED_PER_BAND // len(places))
    looks = []
    for band, (low, high) in BANDS.items():
        for number in range(times * len(places)):
            bucket, row = places[number % len(places)]
            # Spread evenly over the band; never 0 nor 1, where there is nothing to predict.
            sigma = low + (high - low) * (number + 0.5) / (times * len(places))
            own = random.Random(f"{seed}/validation/{band}/{number}").getrandbits(63)
            looks.append(_Look(band, bucket, row, sigma, own))
    return looks


def _only(bucket: Bucket, pictures: Sequence[int]) -> Bucket:
    rows = torch.tensor([bucket.pictures.index(picture) for picture in pictures], dtype=torch.long)
    first, *varied = [_rows(variant, rows) for variant in bucket.variants]
    return Bucket(bucket.shape, first.posterior, tuple(pictures), first.weights, tuple(varied))


def _rows(variant: Variant, rows: Tensor) -> Variant:
    posterior = {name: tensor.index_select(0, rows) for name, tensor in variant.posterior.items()}
    return Variant(posterior, None if variant.weights is None else variant.weights.index_select(0, rows))
