"""Batches cover the examples, and batch normalization gets what it needs."""

from itertools import islice

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedge.train.batches import (
    batch_norms,
    batch_sizes,
    endless_batches,
    freeze_batch_norms,
)


@given(st.integers(1, 200), st.integers(1, 40), st.booleans())
@settings(deadline=None, max_examples=60)
def test_sizes_add_up_and_respect_the_limit(n: int, size: int, avoid: bool) -> None:
    sizes = batch_sizes(n, size, avoid_one=avoid)
    assert sum(sizes) == n
    assert min(sizes) >= 1
    assert max(sizes) <= size + (avoid and n % size == 1)


def test_the_last_short_batch_is_kept() -> None:
    assert batch_sizes(70, 32, avoid_one=False) == [32, 32, 6]


def test_a_last_single_example_joins_the_batch_before_if_asked() -> None:
    assert batch_sizes(65, 32, avoid_one=False) == [32, 32, 1]
    assert batch_sizes(65, 32, avoid_one=True) == [32, 33]
    assert batch_sizes(1, 32, avoid_one=True) == [1]


def test_every_pass_sees_every_example_once_in_a_new_order() -> None:
    batches = endless_batches(7, [3, 4], np.random.default_rng(0))
    one, two = (torch.cat(list(islice(batches, 2))) for _ in range(2))
    assert sorted(one.tolist()) == sorted(two.tolist()) == list(range(7))
    assert one.tolist() != two.tolist()


def test_frozen_batch_norms_take_a_single_example() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    freeze_batch_norms(net)
    assert net(torch.ones(1, 2)).shape == (1, 3)
    assert len(batch_norms(net)) == 1
