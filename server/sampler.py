"""Which devices a round asks; a resumed run asks the same ones."""

import math
from collections.abc import Sequence

from fedge.config import RunConfig
from fedge.seeding import Purpose, generator


def draw_cohort(
    devices: Sequence[int], config: RunConfig, *, round_index: int, attempt: int
) -> list[int]:
    """Return the devices to ask, in a fixed order.

    Guarantee: depends on the arguments alone; no device twice; `cohort` devices, plus
    the share of over-sampling, but never more than there are.

    Args:
        devices: all devices, in a fixed order.
        config: cohort size, over-sampling and seed.
        round_index: the round, from 0.
        attempt: the try of this round, from 0.
    """
    wanted = math.ceil(config.cohort * (1.0 + config.over_sampling))
    rng = generator(config.seed, Purpose.SAMPLE, round_index, attempt)
    chosen = rng.choice(len(devices), size=min(wanted, len(devices)), replace=False)
    return [devices[index] for index in sorted(chosen.tolist())]
