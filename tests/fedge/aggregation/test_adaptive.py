"""The step that the adaptive strategies share."""

import numpy as np

from fedge.aggregation.adaptive import AdaptiveState, adaptive_step, initial_state


def test_a_step_known_by_hand() -> None:
    state = AdaptiveState(
        np.array([1.0], "f4"), np.array([2.0]), np.array([0.0]), rounds_done=3
    )
    after = adaptive_step(
        state,
        np.array([4.0]),
        np.array([9.0]),
        learning_rate=2.0,
        beta_1=0.75,
        tau=1.0,
    )
    assert after.momentum.tolist() == [0.75 * 2 + 0.25 * 4]
    assert after.params.tolist() == [1 + 2 * 2.5 / (3 + 1)]
    assert after.variance.tolist() == [9.0]
    assert after.rounds_done == 4
    assert after.params.dtype == np.float32
    assert after.momentum.dtype == np.float64


def test_both_moments_begin_at_zero() -> None:
    params = np.array([1.0, 2.0], np.float32)
    state = initial_state(params)
    assert state.params is params
    assert state.momentum.tolist() == state.variance.tolist() == [0.0, 0.0]
    assert state.momentum.dtype == np.float64
    assert state.rounds_done == 0
