"""Independent random generators for every use, derived from the run's one seed.

No generator is stored or shared: whoever needs one makes it again from the seed, the
purpose and where it stands (round, client, ...), so a resumed run draws what the
uninterrupted one would have drawn. For experiments only, never for secrets.

Source: numpy.random.SeedSequence (O'Neill's seed_seq hash).
"""

from enum import IntEnum

import numpy as np

_MAX_PART = 2**64 - 1  # clients' ids are 64 bit numbers


class Purpose(IntEnum):
    """What a generator is for; the numbers are part of every run, never change them."""

    SAMPLE = 0  # which devices a round asks
    TRAIN = 1  # order of the examples, augmentation, dropout
    DROP = 2  # which simulated devices do not answer
    PARTITION = 3  # which device gets which example
    MODEL = 4  # the initial model
    FLEET = 5  # what the simulated devices are, and when they are there


def generator(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return the generator of this purpose at this place of the run.

    Guarantee: equal arguments give equal streams, and different arguments give
    different ones (also another number of indices: `()` and `(0,)` differ).

    Args:
        seed: the run's seed, in [0, 2**64).
        purpose: what is drawn.
        indices: where, such as round and client; each in [0, 2**64).

    Raises:
        ValueError: a number is out of range.
    """
    for part in (seed, *indices):
        if not 0 <= part <= _MAX_PART:
            raise ValueError(f"seed or index {part} not in [0, 2**64)")
    # Two words for every index: SeedSequence splits large numbers into as many words
    # as they need, so that 2**32 alone would be the same as the pair 0, 1.
    words = [word for part in indices for word in (part & 0xFFFFFFFF, part >> 32)]
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *words))
    return np.random.Generator(np.random.PCG64(sequence))
