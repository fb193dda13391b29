"""After the last round: the pruned model learns from the best model of the run.

The teacher is the model that scored best, which may still have had all its channels.
The coordinator needs some unlabelled examples for it, as for calibration.
"""

import logging

import numpy as np

from fedge.arrays import Float32
from fedge.config import Quantization
from fedge.models.vector import set_params
from fedge.seeding import Purpose, generator
from fedge.train.distill import distill, mean_outputs
from server.journal import Journal
from server.model_state import ModelState, prototype
from server.narrow import fitted
from server.setup import Setup
from server.state_codec import from_bytes

logger = logging.getLogger(__name__)


def distilled(setup: Setup, state: ModelState, journal: Journal) -> Float32:
    """Return the model that is shipped, float32, shape (d,).

    Guarantee: a function of the journal and the settings alone.

    Args:
        setup: of the final network, whose own values are overwritten.
        state: after the last round.
        journal: knows the best model; without one the final model is returned.
    """
    config, best = setup.experiment.compression, journal.best()
    if config.distill_epochs == 0 or best is None:
        return state.params
    teacher_state = from_bytes(prototype(state), best.state)
    if np.array_equal(teacher_state.params, state.params):
        return state.params  # nothing to learn from itself
    teacher = fitted(setup, teacher_state.shapes)
    set_params(teacher.model, teacher.spec, teacher_state.params)
    rng = generator(setup.experiment.run.seed, Purpose.MODEL, 2)
    drawn = setup.data.train.draw(config.distill_examples, rng).features
    inputs = setup.data.info.normalization.apply(drawn)
    logger.info("distilling: examples=%d epochs=%d", len(inputs), config.distill_epochs)
    qat = config.qat_rounds > 0
    return distill(
        setup.model,
        state.params,
        mean_outputs([teacher.model], inputs),
        inputs,
        setup.data.info.task,
        epochs=config.distill_epochs,
        learning_rate=config.distill_learning_rate,
        rng=rng,
        mask=state.mask,
        weight_form=config.quantization if qat else Quantization.none,
    )
