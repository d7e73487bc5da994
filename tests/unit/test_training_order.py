"""The order of batches: even, full, and a function of the seed and the count alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.training.order import Order, step_seed

BUCKETS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(sizes=BUCKETS, batch_size=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_every_picture_is_used_in_every_epoch(sizes: list[int], batch_size: int, seed: int) -> None:
    order = Order(sizes, batch_size=batch_size, seed=seed)
    used: Counter[tuple[int, int]] = Counter()
    for _ in range(40):
        batch = order.next()
        assert len(batch.rows) == min(batch_size, sizes[batch.bucket])
        used.update((batch.bucket, row) for row in batch.rows)
        pictures = [(b, row) for b, size in enumerate(sizes) for row in range(size)]
        assert min(used[p] for p in pictures) == order.epoch


@given(sizes=BUCKETS, batch_size=st.integers(1, 8), skipped=st.integers(0, 60))
def test_an_order_that_skips_goes_on_as_one_that_walked(
    sizes: list[int], batch_size: int, skipped: int
) -> None:
    walked, jumped = (Order(sizes, batch_size=batch_size, seed=5) for _ in range(2))
    for _ in range(skipped):
        walked.next()
    jumped.skip(skipped)
    assert [walked.next() for _ in range(10)] == [jumped.next() for _ in range(10)]
    assert walked.epoch == jumped.epoch


def test_pictures_are_shuffled_anew_in_each_pass_and_by_each_seed() -> None:
    order = Order([12], batch_size=12, seed=1)
    first, second = order.next().rows, order.next().rows
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert Order([12], batch_size=12, seed=2).next().rows != first


@pytest.mark.parametrize("other", [(8, 0, 0), (7, 1, 0), (7, 0, 1)])
def test_every_micro_step_has_a_seed_of_its_own(other: tuple[int, int, int]) -> None:
    assert step_seed(7, 0, 0) == step_seed(7, 0, 0)
    assert step_seed(*other) != step_seed(7, 0, 0)
    assert 0 <= step_seed(*other) < 2**63
