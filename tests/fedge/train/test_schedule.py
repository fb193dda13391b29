"""Learning rates against hand computed ones."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.config import ScheduleKind, TrainConfig
from fedge.train.schedule import learning_rate


def rates(num_rounds: int, config: TrainConfig) -> list[float]:
    return [
        learning_rate(config, round_index=index, num_rounds=num_rounds)
        for index in range(num_rounds)
    ]


def test_a_constant_rate_stays() -> None:
    assert rates(3, TrainConfig(learning_rate=0.2)) == [0.2, 0.2, 0.2]


def test_half_a_cosine_falls_to_its_final_factor() -> None:
    config = TrainConfig(
        learning_rate=2.0, schedule=ScheduleKind.cosine, final_factor=0.5
    )
    # 1 - (1 - 0.5) * (1 - cos(pi * t)) / 2 at t = 0, 1/2, 1
    assert rates(3, config) == pytest.approx([2.0, 1.5, 1.0])


def test_steps_fall_every_few_rounds() -> None:
    config = TrainConfig(
        learning_rate=1.0, schedule=ScheduleKind.step, decay_factor=0.5, decay_rounds=2
    )
    assert rates(5, config) == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_exponential_decay_falls_every_round() -> None:
    config = TrainConfig(
        learning_rate=1.0, schedule=ScheduleKind.exponential, decay_factor=0.5
    )
    assert rates(3, config) == [1.0, 0.5, 0.25]


@given(st.sampled_from(ScheduleKind), st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_rates_start_in_full_and_never_rise(kind: ScheduleKind, rounds: int) -> None:
    found = rates(rounds, TrainConfig(learning_rate=0.1, schedule=kind))
    assert found[0] == 0.1
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("index", [-1, 3])
def test_a_round_that_does_not_exist_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="round_index"):
        learning_rate(TrainConfig(), round_index=index, num_rounds=3)
