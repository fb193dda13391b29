"""Does a sequence look random? Two tests that a weak generator fails."""

from collections.abc import Iterable

import numpy as np

from fedge.arrays import AnyArray


def linear_complexity(bits: Iterable[int]) -> int:
    """Return the length of the shortest shift register that makes these bits.

    Random bits need half their number; a generator that is linear over GF(2), such as
    the Mersenne Twister (19 937), never needs more than the size of its state.

    Source: Massey, IEEE Trans. Inf. Theory 15 (1969).
    """
    connection, previous, length, changed = 1, 1, 0, -1
    window = 0
    for position, bit in enumerate(bits):
        window = (window << 1) | bit
        if (connection & window).bit_count() % 2 == 0:
            continue
        updated = connection ^ (previous << (position - changed))
        if 2 * length <= position:
            length, changed = position + 1 - length, position
            previous = connection
        connection = updated
    return length


def chi_square_of_bytes(values: AnyArray) -> float:
    """Return the chi-square statistic of the 256 byte values: 255 +- 23 if uniform."""
    counts = np.bincount(values.astype(np.uint8), minlength=256)
    expected = values.size / 256
    return float(((counts - expected) ** 2 / expected).sum())
