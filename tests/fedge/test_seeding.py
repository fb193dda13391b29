"""Generators depend on every argument and on nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.seeding import Purpose, generator

PARTS = st.tuples(
    st.integers(0, 2**64 - 1),
    st.sampled_from(Purpose),
    st.lists(st.sampled_from([0, 1, 2, 2**32, 2**63]), max_size=3).map(tuple),
)


def _draw(parts: tuple[int, Purpose, tuple[int, ...]]) -> bytes:
    seed, purpose, indices = parts
    return generator(seed, purpose, *indices).bytes(16)


@given(PARTS, PARTS)
@settings(deadline=None, max_examples=50)
def test_streams_are_equal_exactly_when_the_arguments_are(
    one: tuple[int, Purpose, tuple[int, ...]],
    other: tuple[int, Purpose, tuple[int, ...]],
) -> None:
    assert (_draw(one) == _draw(other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"), [((), (0,)), ((2**32,), (0, 1)), ((1, 2), (2, 1))]
)
def test_places_that_a_seed_sequence_could_mix_up_differ(
    one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    assert _draw((7, Purpose.TRAIN, one)) != _draw((7, Purpose.TRAIN, other))


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_a_number_out_of_range_is_refused(bad: int) -> None:
    with pytest.raises(ValueError, match="not in"):
        generator(0, Purpose.DROP, bad)


def test_numpys_global_generator_is_left_alone() -> None:
    before = np.random.get_state(legacy=False)
    generator(0, Purpose.SAMPLE).random()
    assert str(np.random.get_state(legacy=False)) == str(before)
