"""The order of batches: even, full, and a function of the seed and the count alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masuka.training.order import Order, divided, step_seed

BUCKETS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(sizes=BUCKETS, batch_size=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_every_picture_is_used_in_every_epoch(sizes: list[int], batch_size: int, seed: int) -> None:
    order = Order(sizes, pictures=batch_size, seed=seed)
    used: Counter[tuple[int, int]] = Counter()
    for _ in range(40):
        batches = order.next()
        assert sum(len(batch.rows) for batch in batches) == batch_size
        assert all(len(set(batch.rows)) <= sizes[batch.bucket] for batch in batches)
        used.update((batch.bucket, row) for batch in batches for row in batch.rows)
        pictures = [(b, row) for b, size in enumerate(sizes) for row in range(size)]
        assert min(used[p] for p in pictures) == order.epoch


@given(sizes=BUCKETS, batch_size=st.integers(1, 8), skipped=st.integers(0, 60))
def test_an_order_that_skips_goes_on_as_one_that_walked(
    sizes: list[int], batch_size: int, skipped: int
) -> None:
    walked, jumped = (Order(sizes, pictures=batch_size, seed=5) for _ in range(2))
    for _ in range(skipped):
        walked.next()
    jumped.skip(skipped)
    assert [walked.next() for _ in range(10)] == [jumped.next() for _ in range(10)]
    assert walked.epoch == jumped.epoch


def test_pictures_are_shuffled_anew_in_each_pass_and_by_each_seed() -> None:
    order = Order([12], pictures=12, seed=1)
    first, second = order.next()[0].rows, order.next()[0].rows
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert Order([12], pictures=12, seed=2).next()[0].rows != first


@pytest.mark.parametrize("other", [(8, 0, 0), (7, 1, 0), (7, 0, 1)])
def test_every_picture_of_a_step_has_a_seed_of_its_own(other: tuple[int, int, int]) -> None:
    assert step_seed(7, 0, 0) == step_seed(7, 0, 0)
    assert step_seed(*other) != step_seed(7, 0, 0)
    assert 0 <= step_seed(*other) < 2**63


@given(sizes=BUCKETS, at_once=st.integers(1, 8))
def test_a_divided_step_has_the_same_pictures_in_the_same_places(sizes: list[int], at_once: int) -> None:
    for _ in range(3):
        whole = Order(sizes, pictures=8, seed=5).next()
        parts = divided(whole, at_once)
        places = [(b.bucket, row, b.first + n, b.group) for b in parts for n, row in enumerate(b.rows)]
        assert [place for _, _, place, _ in places] == list(range(8))
        assert places == [(b.bucket, row, b.first + n, b.group) for b in whole for n, row in enumerate(b.rows)]
        assert max(len(b.rows) for b in parts) <= at_once
