"""How much of the model is removed, and how much is zero, after each round.

Most of the pruning happens early, while the network still has rounds to recover in.

Source, for weights: Zhu, Gupta (2017), arXiv:1710.01878, section 3. Differs in: one
step per round.
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
    _check_place(round_index, num_rounds)
    begin, end = config.prune_begin * num_rounds, config.prune_end * num_rounds
    if round_index >= end:
        return config.sparsity
    if round_index <= begin:
        return 0.0
    left = (end - round_index) / (end - begin)
    return config.sparsity * (1.0 - left * left * left)


def channel_sparsity_at(
    config: CompressionConfig, *, round_index: int, num_rounds: int
) -> float:
    """Return the share of the channels that is removed at this point of the run.

    In `channel_steps` equal steps, spread evenly: each removes the same share of what
    is left. A step changes the shapes of the model, so there are few.

    Guarantee: never falls with `round_index`, lies in [0, config.channel_sparsity], and
    is exactly `config.channel_sparsity` from `channel_end` on.

    Args:
        config: channel_sparsity, channel_begin, channel_end and channel_steps.
        round_index: rounds that are done: 0 before the first, num_rounds at the end.
        num_rounds: rounds of the run, >= 1.

    Raises:
        ValueError: `round_index` is negative or `num_rounds` is below 1.
    """
    _check_place(round_index, num_rounds)
    begin, end = config.channel_begin * num_rounds, config.channel_end * num_rounds
    if round_index >= end:
        return config.channel_sparsity
    if round_index < begin:
        return 0.0
    # The last step is at the end, so there is one interval less than steps.
    done = 1 + int((config.channel_steps - 1) * (round_index - begin) / (end - begin))
    if done == config.channel_steps:
        return config.channel_sparsity
    kept = (1.0 - config.channel_sparsity) ** (done / config.channel_steps)
    return min(1.0 - float(kept), config.channel_sparsity)


def _check_place(round_index: int, num_rounds: int) -> None:
    if round_index < 0 or num_rounds < 1:
        raise ValueError(
            f"round_index {round_index} must be >= 0 and num_rounds {num_rounds} >= 1"
        )
