"""Which pictures each step sees: a pure function of the seed and of how many steps were
taken, so that a resumed training goes on exactly where it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Rows of one bucket that are trained together.

    `first` is the place of its first row among the step's pictures; `group` numbers the
    runs of one bucket in a step, which stay together however a step is divided.
    """

    bucket: int
    rows: tuple[int, ...]
    first: int = 0
    group: int = 0


def divided(batches: Iterable[Batch], at_once: int) -> list[Batch]:
    """The same pictures in the same order, at most so many at once."""
    return [
        Batch(batch.bucket, batch.rows[start : start + at_once], batch.first + start, batch.group)
        for batch in batches
        for start in range(0, len(batch.rows), at_once)
    ]


class Order:
    """An endless, even walk over buckets of pictures.

    Each bucket is walked in shuffled passes; a batch may span two of them, so that every
    picture is used once a pass. The bucket that lags behind most goes next, and where it has
    fewer pictures than the step still wants, the next one joins: every step sees `pictures`
    of them, whether they are computed at once or one after another.
    """

    def __init__(self, sizes: Sequence[int], *, pictures: int, seed: int | str) -> None:
        self._sizes = list(sizes)
        self._pictures = pictures
        self._seed = seed
        self._used = [0] * len(self._sizes)
        self._passes: dict[tuple[int, int], list[int]] = {}

    @property
    def epoch(self) -> int:
        """How many times every picture has been used at least."""
        return min(used // size for used, size in zip(self._used, self._sizes, strict=True))

    def next(self) -> list[Batch]:
        """The next step's pictures, one batch a bucket; moves on."""
        batches: list[Batch] = []
        taken = 0
        while taken < self._pictures:
            bucket = min(range(len(self._sizes)), key=self._place)
            count = min(self._pictures - taken, self._sizes[bucket])
            start = self._used[bucket]
            self._used[bucket] = start + count
            rows = tuple(self._row(bucket, place) for place in range(start, start + count))
            batches.append(Batch(bucket, rows, first=taken, group=len(batches)))
            taken += count
        return batches

    def skip(self, steps: int) -> None:
        """Moves on by that many steps."""
        for _ in range(steps):
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


def step_seed(seed: int | str, step: int, picture: int) -> int:
    """A seed of its own for each picture of a step: noise, level, caption dropout."""
    return random.Random(f"{seed}/step/{step}/{picture}").getrandbits(63)
