import numpy as np
import pytest

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.arrays import ArraySpec, ModelSpec
from fedge.config import CompressionConfig
from fedge.errors import RoundAbortedError
from server.model_state import advance, initial_state, pruned
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg

SPEC = ModelSpec(
    (
        ArraySpec("weight", (4, 4), prunable=True),
        ArraySpec("bias", (4,)),
        ArraySpec("running_mean", (3,), trainable=False),
    )
)
PARAMS = np.linspace(-1, 1, SPEC.size, dtype=np.float32)


def total_of(delta: float, weight: float = 4.0) -> WeightedSum:
    return WeightedSum(np.full(SPEC.size, delta * weight), weight)


def test_the_whole_model_comes_back() -> None:
    state = initial_state(FedAvg(), PARAMS, SPEC)
    assert state.params.tobytes() == PARAMS.tobytes()
    assert state.buffers.size == 3
    assert state.mask is None


def test_buffers_are_averaged_and_never_optimized() -> None:
    state = initial_state(FedAdam(learning_rate=0.1), PARAMS, SPEC)
    after = advance(state, total_of(0.5), FedAdam(learning_rate=0.1), SPEC)
    np.testing.assert_allclose(after.buffers, PARAMS[-3:] + 0.5, rtol=1e-6)
    # Adam's steps are about as long as the learning rate, whatever the update.
    assert (after.params[:-3] - PARAMS[:-3] < 0.2).all()


def test_of_single_updates_the_buffers_are_the_weighted_mean() -> None:
    deltas = np.stack([np.full(SPEC.size, 1.0), np.full(SPEC.size, 5.0)])
    updates = UpdateMatrix(deltas.astype(np.float32), np.array([3.0, 1.0]), np.ones(2))

    class Keeps(FedAvg):
        __slots__ = ()

        def apply(self, state, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            assert total.deltas.shape == (2, SPEC.num_trainable)
            return state

    after = advance(initial_state(FedAvg(), PARAMS, SPEC), updates, Keeps(), SPEC)
    np.testing.assert_allclose(after.buffers, PARAMS[-3:] + 2.0, rtol=1e-6)


def test_what_is_pruned_stays_zero_under_momentum() -> None:
    strategy = FedAdam(learning_rate=0.1)
    state = advance(
        initial_state(strategy, PARAMS, SPEC), total_of(0.5), strategy, SPEC
    )
    state = pruned(state, SPEC, 0.5, CompressionConfig())
    assert state.mask is not None
    gone = ~state.mask
    assert gone.sum() == 8
    # What was pruned still has momentum, and gets updates.
    assert (np.abs(state.strategy_state.momentum[gone[:20]]) > 0).all()
    for _ in range(3):
        state = advance(state, total_of(0.1), strategy, SPEC)
        assert (state.params[gone] == 0.0).all()
        assert (state.params[~gone][:-3] != 0.0).all()


def test_the_mask_only_grows() -> None:
    state = initial_state(FedAvg(), PARAMS, SPEC)
    half = pruned(state, SPEC, 0.5, CompressionConfig())
    moved = advance(half, total_of(1.0), FedAvg(), SPEC)
    more = pruned(moved, SPEC, 0.75, CompressionConfig())
    assert half.mask is not None
    assert more.mask is not None
    assert not more.mask[~half.mask].any()
    assert (~more.mask).sum() == 12
    assert pruned(state, SPEC, 0.0, CompressionConfig()) is state


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_is_not_finite_aborts_the_round(bad: float) -> None:
    state = initial_state(FedAvg(), PARAMS, SPEC)
    for place in (0, SPEC.size - 1):
        delta = np.zeros(SPEC.size)
        delta[place] = bad
        with pytest.raises(RoundAbortedError, match="lower the server's learning"):
            advance(state, WeightedSum(delta, 1.0), FedAvg(), SPEC)


def test_a_model_beyond_float32_aborts_the_round() -> None:
    state = initial_state(FedAvg(), PARAMS, SPEC)
    with pytest.raises(RoundAbortedError, match="values are not finite"):
        advance(state, total_of(1e39), FedAvg(), SPEC)


def test_no_weight_aborts_the_round_and_changes_nothing() -> None:
    state = initial_state(FedAvg(), PARAMS, SPEC)
    with pytest.raises(RoundAbortedError, match="no weight"):
        advance(state, WeightedSum(np.zeros(SPEC.size), 0.0), FedAvg(), SPEC)
    assert state.params.tobytes() == PARAMS.tobytes()
