"""Structured pruning at a round boundary: a narrower network, from now on for good.

The strategy starts anew on the smaller model (its momenta have no meaning there), and
so do the devices, which keep no optimizer state between rounds. What they are sent is
the shapes, as a part of their task.
"""

import logging
from collections.abc import Mapping, Sequence

from fedge.arrays import AnyArray
from fedge.compress.schedule import channel_sparsity_at
from fedge.models.resize import shapes_of
from fedge.models.vector import params_of, set_params
from server.model_state import ModelState, initial_state
from server.setup import Setup, resized

logger = logging.getLogger(__name__)


def check_narrowing(setup: Setup) -> None:
    """Try once, before the first round, what shall be done between rounds.

    Raises:
        CompressionError: channels shall be removed and none can be.
        ConfigError: a device could not build what is left.
    """
    config = setup.experiment.compression
    if config.channel_sparsity > 0.0:
        from fedge.compress.structured import check_removable, narrowed

        model, example = setup.model, _example(setup)
        share, multiple = config.channel_sparsity, config.channel_multiple
        check_removable(model, example, share=share, multiple=multiple)
        smaller = narrowed(model, example, share=share, multiple=multiple)
        resized(setup, shapes_of(smaller))


def _example(setup: Setup) -> AnyArray:
    return setup.data.info.normalization.apply(setup.data.test.features[:1])


def fitted(setup: Setup, shapes: Mapping[str, Sequence[int]]) -> Setup:
    """Return the setup for a state with these shapes (`ModelState.shapes`)."""
    return resized(setup, {name: tuple(shape) for name, shape in shapes.items()})


def narrow(
    setup: Setup, state: ModelState, *, round_index: int
) -> tuple[Setup, ModelState]:
    """Remove channels if that is due when `round_index` rounds are done.

    Returns:
        The same setup and state if nothing is removed.
    """
    config = setup.experiment.compression
    wanted = _removed_at(setup, round_index)
    # Before the first round nothing is removed, whatever the schedule says.
    if not wanted > (_removed_at(setup, round_index - 1) if round_index > 1 else 0.0):
        return setup, state
    from fedge.compress.structured import narrowed  # brings torch-pruning

    set_params(setup.model, setup.spec, state.params)
    smaller = narrowed(
        setup.model,
        _example(setup),
        share=wanted,
        multiple=config.channel_multiple,
        built=shapes_of(resized(setup, {}).model),
    )
    shapes = shapes_of(smaller)
    if shapes == shapes_of(setup.model):  # a small step in narrow layers
        return setup, state
    changed = resized(setup, shapes)
    params = params_of(smaller, changed.spec)
    logger.info(
        "channels removed: parameters=%d before=%d", changed.spec.size, setup.spec.size
    )
    return changed, initial_state(setup.strategy, params, changed.spec, shapes)


def _removed_at(setup: Setup, round_index: int) -> float:
    return channel_sparsity_at(
        setup.experiment.compression,
        round_index=round_index,
        num_rounds=setup.experiment.run.rounds,
    )
