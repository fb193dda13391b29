"""The global model between two rounds, and how a round changes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fedge.aggregation import UpdateMatrix
from fedge.arrays import Bool, Float32, ModelSpec, check_finite
from fedge.compress.prune import magnitude_mask
from fedge.config import CompressionConfig
from fedge.errors import RoundAbortedError
from fedge.strategy import Strategy, Total


@dataclass(frozen=True, slots=True)
class ModelState:
    """Everything that a round hands on to the next; this is what the journal stores.

    Attributes:
        strategy_state: the strategy's own; its `params` are the trainable coordinates.
        buffers: the others, averaged and never optimized, float32.
        mask: which coordinates of the whole model are kept, bool; None keeps all.
        shapes: of the network's parameters after structured pruning; empty if they are
            those it was built with.
    """

    strategy_state: Any
    buffers: Float32
    mask: Bool | None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def params(self) -> Float32:
        """The whole model, float32, shape (d,)."""
        return np.concatenate([self.strategy_state.params, self.buffers])


def initial_state(
    strategy: Strategy[Any],
    params: Float32,
    spec: ModelSpec,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> ModelState:
    """Return the state before the first round, or after channels were removed."""
    trainable, buffers = np.split(params, [spec.num_trainable])
    return ModelState(strategy.init(trainable), buffers, None, shapes or {})


def sparsity_of(state: ModelState, spec: ModelSpec) -> float:
    """Return the share of the prunable weights that the mask holds at zero."""
    if state.mask is None:
        return 0.0
    places = zip(spec.arrays, spec.slices().values(), strict=True)
    prunable = [state.mask[place] for array, place in places if array.prunable]
    total = sum(mask.size for mask in prunable)
    kept = sum(int(np.count_nonzero(mask)) for mask in prunable)
    return 1.0 - kept / total if total else 0.0


def prototype(state: ModelState) -> ModelState:
    """Return a state whose classes say how a stored one is to be read."""
    return replace(state, mask=None, shapes={})


def advance(
    state: ModelState, total: Total, strategy: Strategy[Any], spec: ModelSpec
) -> ModelState:
    """Return the state after a round; pruned coordinates stay zero.

    Args:
        state: before the round.
        total: the cohort's answers over the whole model.
        strategy: changes the trainable part; buffers move by their weighted mean.
        spec: says where the buffers begin.

    Raises:
        RoundAbortedError: the strategy refused, or the new model is not finite.
    """
    # What overflows becomes an infinity without a word, and is refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        trainable, buffer_delta = _split(total, spec.num_trainable)
        advanced = ModelState(
            strategy.apply(state.strategy_state, trainable),
            (state.buffers + buffer_delta).astype(np.float32),
            state.mask,
            state.shapes,
        )
    try:
        check_finite(advanced.params, "global model")
    except ValueError as exc:
        raise RoundAbortedError(f"{exc}; lower the server's learning rate") from exc
    return _masked(advanced, spec)


def pruned(
    state: ModelState,
    spec: ModelSpec,
    sparsity: float,
    config: CompressionConfig,
) -> ModelState:
    """Return the state with the smallest weights set to zero, from now on for good."""
    if sparsity <= 0.0:
        return state
    mask = magnitude_mask(
        state.params,
        spec,
        sparsity=sparsity,
        previous=state.mask,
        scope=config.prune_scope,
        group=config.prune_group,
    )
    return _masked(replace(state, mask=mask), spec)


def _masked(state: ModelState, spec: ModelSpec) -> ModelState:
    if state.mask is None:
        return state
    inner = state.strategy_state
    kept = np.where(state.mask[: spec.num_trainable], inner.params, np.float32(0.0))
    return replace(state, strategy_state=replace(inner, params=kept))


def _split(total: Total, num_trainable: int) -> tuple[Total, Float32]:
    """Return the trainable part of a total and the mean update of the buffers."""
    if isinstance(total, UpdateMatrix):
        summed = total.total()
        trainable: Total = replace(total, deltas=total.deltas[:, :num_trainable])
    else:
        summed = total
        trainable = replace(total, delta_sum=total.delta_sum[:num_trainable])
    return trainable, summed.mean()[num_trainable:].astype(np.float32)
