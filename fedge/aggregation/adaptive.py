"""What the adaptive server optimizers share: state, momentum and the step.

Source: Reddi et al. (2021), "Adaptive Federated Optimization", arXiv:2003.00295,
algorithm 2. Their beta_1, beta_2 and tau keep their names here, and eta is
`learning_rate`. They differ only in the second moment, which each strategy computes.
"""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import Float32, Float64


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """What the server carries from one round to the next.

    Attributes:
        params: global model, float32, shape (d,).
        momentum: first moment of the mean updates, float64, shape (d,).
        variance: second moment of the mean updates, float64, shape (d,).
        rounds_done: completed rounds; 0 before the first.
    """

    params: Float32
    momentum: Float64
    variance: Float64
    rounds_done: int


def initial_state(params: Float32) -> AdaptiveState:
    """Return the state before the first round: both moments zero."""
    zeros = np.zeros(params.shape, np.float64)
    return AdaptiveState(params, zeros, zeros, rounds_done=0)


def adaptive_step(
    state: AdaptiveState,
    delta: Float64,
    variance: Float64,
    *,
    learning_rate: float,
    beta_1: float,
    tau: float,
) -> AdaptiveState:
    """Return params + learning_rate * momentum / (sqrt(variance) + tau).

    Args:
        state: the state before the round.
        delta: the cohort's mean update, float64, shape (d,).
        variance: the new second moment, float64, shape (d,), >= 0.
        learning_rate: server learning rate.
        beta_1: share of the old momentum that is kept.
        tau: floor of the denominator.
    """
    momentum = beta_1 * state.momentum + (1.0 - beta_1) * delta
    step = learning_rate * momentum / (np.sqrt(variance) + tau)
    params = (state.params + step).astype(np.float32)
    return AdaptiveState(params, momentum, variance, state.rounds_done + 1)
