"""How the local learning rate changes over the rounds.

Pure: the coordinator computes the rate and sends it, so devices need no memory of the
rounds they missed.
"""

import math
from typing import assert_never

from fedge.config import ScheduleKind, TrainConfig


def learning_rate(config: TrainConfig, *, round_index: int, num_rounds: int) -> float:
    """Return the local learning rate of a round.

    Guarantee: the first round has the full rate, no round has more, and the last one of
    a cosine schedule has `final_factor` of it.

    Args:
        config: full rate and schedule.
        round_index: from 0.
        num_rounds: rounds of the whole run.

    Raises:
        ValueError: there is no such round.
    """
    if not 0 <= round_index < num_rounds:
        raise ValueError(f"round_index: {round_index} not in [0, {num_rounds})")
    return config.learning_rate * _factor(config, round_index, num_rounds)


def _factor(config: TrainConfig, round_index: int, num_rounds: int) -> float:
    match config.schedule:
        case ScheduleKind.constant:
            return 1.0
        case ScheduleKind.cosine:
            done = round_index / max(num_rounds - 1, 1)
            fall = (1.0 - math.cos(math.pi * done)) / 2.0
            return 1.0 - (1.0 - config.final_factor) * fall
        case ScheduleKind.step:
            return config.decay_factor ** (round_index // config.decay_rounds)
        case ScheduleKind.exponential:
            return config.decay_factor**round_index
        case _:
            assert_never(config.schedule)
