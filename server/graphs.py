"""Training graphs for devices without PyTorch: made, checked, offered or given up.

A model outside the limits of a graph is no reason to lose a run: the log says why, and
the devices that have PyTorch train.
"""

import logging
from dataclasses import replace

from fedge.config import Backend
from fedge.errors import CompressionError
from fedge.flower.graph_records import PackedGraph
from fedge.strategy import LocalSettings
from server.setup import OfferedGraphs, Setup

logger = logging.getLogger(__name__)


def offering(setup: Setup, local: LocalSettings) -> Setup:
    """Return the setup with graphs for its network, if `train.backend` wants them.

    Takes some seconds for a network whose graphs were not tried yet, else no time.

    Args:
        setup: its model's values are overwritten.
        local: what the strategy asks of the devices.
    """
    config = setup.experiment.train
    if config.backend is not Backend.onnx or _is_done(setup, local):
        return setup
    from fedge.train.graphs import make_graphs  # brings the exporter

    proximal = local.proximal_mu > 0.0
    try:
        graphs = make_graphs(
            setup.model,
            setup.data.info,
            config,
            proximal=proximal,
            masked=setup.experiment.compression.sparsity > 0.0,
        )
    except CompressionError as exc:
        logger.warning(
            "train.backend=onnx: no training graph, so devices without PyTorch cannot "
            "take part and the others train with PyTorch: %s",
            exc,
        )
        return replace(setup, graphs=OfferedGraphs(None, None, proximal))
    train, outputs = PackedGraph.of(graphs.train), PackedGraph.of(graphs.evaluate)
    logger.info(
        "training graph: bytes=%d sha256=%s; evaluation graph: bytes=%d sha256=%s",
        len(train.data),
        train.sha256,
        len(outputs.data),
        outputs.sha256,
    )
    return replace(setup, graphs=OfferedGraphs(train, outputs, proximal))


def _is_done(setup: Setup, local: LocalSettings) -> bool:
    done = setup.graphs
    if done is None:
        return False
    return done.train is None or done.proximal or local.proximal_mu == 0.0
