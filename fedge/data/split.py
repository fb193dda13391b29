"""A fixed held-out part for data sets that do not define one themselves."""

import numpy as np

from fedge.arrays import Int64


def stratified_split(
    classes: Int64, *, test_share: float, seed: int
) -> tuple[Int64, Int64]:
    """Return the positions of the training and of the test examples, both ascending.

    Guarantee: every position is in exactly one part; of a class with n examples,
    round(n * test_share) are in the test part; equal arguments, equal answer.

    Args:
        classes: what to stratify by, int64 (n,).
        test_share: share of every class that is held out, in (0, 1).
        seed: decides which examples.
    """
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(classes), np.bool_)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        is_test[members[: round(len(members) * test_share)]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
