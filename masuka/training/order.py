"""Which pictures each micro-step sees: a pure function of the seed and of how many
micro-steps were taken, so that a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Rows of one bucket that are trained together."""

    bucket: int
    rows: tuple[int, ...]


class Order:
    """An endless, even walk over buckets of pictures.

    Each bucket is walked in shuffled passes; a batch may span two of them, so that every
    batch is full and every picture is used once a pass. The bucket that lags behind most
    goes next. A bucket smaller than a batch gives batches of its own size.
    """

    def __init__(self, sizes: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._sizes = list(sizes)
        self._batch_size = batch_size
        self._seed = seed
        self._used = [0] * len(self._sizes)
        self._passes: dict[tuple[int, int], list[int]] = {}

    @property
    def epoch(self) -> int:
        """How many times every picture has been used at least."""
        return min(used // size for used, size in zip(self._used, self._sizes, strict=True))

    def next(self) -> Batch:
        """The next batch; moves on."""
        bucket = min(range(len(self._sizes)), key=self._place)
        count = min(self._batch_size, self._sizes[bucket])
        start = self._used[bucket]
        self._used[bucket] = start + count
        return Batch(bucket, tuple(self._row(bucket, place) for place in range(start, start + count)))

    def skip(self, batches: int) -> None:
        """Moves on by that many batches."""
        for _ in range(batches):
            self.next()

    def _place(self, bucket: int) -> tuple[float, int]:
        ahead = self._used[bucket] / self._sizes[bucket]
        return ahead, self._shuffled(-1, int(ahead), len(self._sizes)).index(bucket)

    def _row(self, bucket: int, place: int) -> int:
        number, offset = divmod(place, self._sizes[bucket])
        return self._shuffled(bucket, number, self._sizes[bucket])[offset]

    def _shuffled(self, bucket: int, number: int, size: int) -> list[int]:
        """The shuffle of pass `number`; bucket -1 is the order of buckets that are level."""
        key = (bucket, number)
        if key not in self._passes:
            if number > 1:
                self._passes.pop((bucket, number - 2), None)
            rows = list(range(size))
            random.Random(f"{self._seed}/{bucket}/{number}").shuffle(rows)
            self._passes[key] = rows
        return self._passes[key]


def step_seed(seed: int, step: int, micro_step: int) -> int:
    """A seed of its own for each micro-step: noise, levels, caption dropout."""
    return random.Random(f"{seed}/step/{step}/{micro_step}").getrandbits(63)
