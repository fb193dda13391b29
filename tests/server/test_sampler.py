from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.config import RunConfig
from server.sampler import draw_cohort


@settings(deadline=None, max_examples=100)
@given(
    num_devices=st.integers(1, 300),
    cohort=st.integers(1, 300),
    over_sampling=st.floats(0.0, 10.0),
    round_index=st.integers(0, 10**6),
)
def test_nobody_is_asked_twice_and_the_order_is_fixed(
    num_devices: int, cohort: int, over_sampling: float, round_index: int
) -> None:
    devices = [7 * i for i in range(num_devices)]
    config = RunConfig(cohort=cohort, over_sampling=over_sampling)
    drawn = draw_cohort(devices, config, round_index=round_index, attempt=0)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(devices)
    assert len(drawn) >= min(cohort, num_devices)
    assert len(drawn) <= min(cohort + cohort * over_sampling + 1, num_devices)


def test_a_share_that_gives_whole_devices_is_not_rounded_up() -> None:
    devices = list(range(1000))
    for cohort, share, wanted in [
        (10, 0.0, 10),
        (100, 0.1, 110),
        (100, 0.07, 107),
        (3, 0.1, 4),
        (10, 10.0, 110),
    ]:
        config = RunConfig(cohort=cohort, over_sampling=share)
        assert len(draw_cohort(devices, config, round_index=0, attempt=0)) == wanted


def test_the_same_arguments_draw_the_same_devices() -> None:
    devices, config = list(range(100)), RunConfig(cohort=10, seed=3)
    drawn = draw_cohort(devices, config, round_index=5, attempt=1)
    assert draw_cohort(devices, config, round_index=5, attempt=1) == drawn


def test_rounds_tries_and_seeds_draw_other_devices() -> None:
    devices, config = list(range(100)), RunConfig(cohort=10, seed=3)
    other_seed = RunConfig(cohort=10, seed=4)
    draws = {
        tuple(draw_cohort(devices, config, round_index=5, attempt=1)),
        tuple(draw_cohort(devices, config, round_index=5, attempt=2)),
        tuple(draw_cohort(devices, config, round_index=6, attempt=1)),
        tuple(draw_cohort(devices, other_seed, round_index=5, attempt=1)),
    }
    assert len(draws) == 4


def test_every_device_gets_its_turn() -> None:
    devices, config = list(range(20)), RunConfig(cohort=5)
    seen = {
        device
        for round_index in range(40)
        for device in draw_cohort(devices, config, round_index=round_index, attempt=0)
    }
    assert seen == set(devices)
