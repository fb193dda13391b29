"""How much of the model is zero after each round.

Half of the pruning happens early, while the network still has rounds to recover in.

Source: Zhu, Gupta (2017), arXiv:1710.01878, section 3. Differs in: one step per round.
"""

from fedge.config.compression import CompressionConfig


def sparsity_at(
    config: CompressionConfig, *, round_index: int, num_rounds: int
) -> float:
    """Return the share of prunable weights that are zero at this point of the run.

    Guarantee: never falls with `round_index`, lies in [0, config.sparsity], is 0 up to
    `prune_begin` (where pruning has any length) and exactly `config.sparsity` from
    `prune_end` on.

    Args:
        config: sparsity, prune_begin and prune_end.
        round_index: rounds that are done: 0 before the first, num_rounds at the end.
        num_rounds: rounds of the run, >= 1.

    Raises:
        ValueError: `round_index` is negative or `num_rounds` is below 1.
    """
    if round_index < 0 or num_rounds < 1:
        raise ValueError(
            f"round_index {round_index} must be >= 0 and num_rounds {num_rounds} >= 1"
        )
    begin, end = config.prune_begin * num_rounds, config.prune_end * num_rounds
    if round_index >= end:
        return config.sparsity
    if round_index <= begin:
        return 0.0
    left = (end - round_index) / (end - begin)
    return config.sparsity * (1.0 - left * left * left)


def prunes_at(config: CompressionConfig, *, round_index: int, num_rounds: int) -> bool:
    """Return whether the mask grows when `round_index` rounds are done.

    Raises:
        ValueError: as `sparsity_at`.
    """
    now = sparsity_at(config, round_index=round_index, num_rounds=num_rounds)
    if round_index == 0:
        return now > 0.0
    return now > sparsity_at(config, round_index=round_index - 1, num_rounds=num_rounds)
