import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.compress.schedule import channel_sparsity_at, sparsity_at
from fedge.config.compression import CompressionConfig

configs = st.builds(
    lambda sparsity, ends: CompressionConfig(
        sparsity=sparsity, prune_begin=min(ends), prune_end=max(ends)
    ),
    st.floats(0.0, 0.999),
    st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)


@settings(deadline=None, max_examples=100)
@given(configs, st.integers(1, 60))
def test_sparsity_never_falls_and_stays_in_range(
    config: CompressionConfig, num_rounds: int
) -> None:
    path = [
        sparsity_at(config, round_index=i, num_rounds=num_rounds)
        for i in range(num_rounds + 3)
    ]
    assert path == sorted(path)
    assert path[0] >= 0.0
    assert path[num_rounds:] == [config.sparsity] * 3


def test_it_begins_at_zero_and_ends_exactly_where_it_should() -> None:
    config = CompressionConfig(sparsity=0.7, prune_begin=0.3, prune_end=0.8)
    path = [sparsity_at(config, round_index=i, num_rounds=10) for i in range(11)]
    assert path[:4] == [0.0] * 4
    assert 0.0 < path[4] < path[7] < 0.7
    assert path[8:] == [0.7] * 3


def test_half_way_seven_eighths_are_pruned() -> None:
    config = CompressionConfig(sparsity=0.8, prune_begin=0.0, prune_end=1.0)
    # 1 - (1 - 1/2)**3 = 7/8, exact in binary
    assert sparsity_at(config, round_index=5, num_rounds=10) == 0.8 * 0.875


@pytest.mark.parametrize(("round_index", "num_rounds"), [(-1, 5), (0, 0)])
def test_impossible_rounds_are_refused(round_index: int, num_rounds: int) -> None:
    with pytest.raises(ValueError, match=r"round_index .* num_rounds"):
        sparsity_at(CompressionConfig(), round_index=round_index, num_rounds=num_rounds)


channel_configs = st.builds(
    lambda share, ends, steps: CompressionConfig(
        channel_sparsity=share,
        channel_begin=min(ends),
        channel_end=max(ends),
        channel_steps=steps,
    ),
    st.floats(0.0, 0.999),
    st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
    st.integers(1, 8),
)


@settings(deadline=None, max_examples=100)
@given(channel_configs, st.integers(1, 60))
def test_channels_never_come_back_and_the_last_share_is_the_target(
    config: CompressionConfig, num_rounds: int
) -> None:
    path = [
        channel_sparsity_at(config, round_index=i, num_rounds=num_rounds)
        for i in range(num_rounds + 3)
    ]
    assert path == sorted(path)
    assert path[0] >= 0.0
    assert path[num_rounds:] == [config.channel_sparsity] * 3
    assert len(set(path)) <= config.channel_steps + 1


def test_each_step_removes_the_same_share_of_what_is_left() -> None:
    config = CompressionConfig(
        channel_sparsity=0.75, channel_begin=0.2, channel_end=0.6, channel_steps=2
    )
    path = [channel_sparsity_at(config, round_index=i, num_rounds=5) for i in range(6)]
    assert path == [0.0, 0.5, 0.5, 0.75, 0.75, 0.75]
