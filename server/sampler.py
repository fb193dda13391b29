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
    # Rounded: 0.07 of 100 are 7 more, not the 8 that a float's last bit would make.
    wanted = config.cohort + math.ceil(round(config.cohort * config.over_sampling, 9))
    rng = generator(config.seed, Purpose.SAMPLE, round_index, attempt)
    chosen = rng.choice(len(devices), size=min(wanted, len(devices)), replace=False)
    return [devices[index] for index in sorted(chosen.tolist())]
