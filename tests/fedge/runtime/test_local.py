"""Batches as both trainers draw them; sizes: tests/fedge/train/test_batches.py."""

from itertools import islice

import numpy as np
import torch

from fedge.runtime.local import endless_indices


def test_indices_are_those_of_a_permutation_per_pass() -> None:
    found = list(islice(endless_indices(7, [3, 4], np.random.default_rng(5)), 4))
    rng = np.random.default_rng(5)
    expected = [
        part.numpy()
        for _ in range(2)
        for part in torch.split(torch.from_numpy(rng.permutation(7)), [3, 4])
    ]
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]
