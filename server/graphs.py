"""Training graphs for devices without PyTorch: made, checked, offered or given up.

A model outside the limits of a graph is no reason to lose a run: the log says why, and
the devices that have PyTorch train.
"""

import logging
from dataclasses import replace

from fedge.config import Backend, Task
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
    proximal = local.proximal_mu > 0.0
    try:
        graphs = _made(setup, proximal=proximal)
    except CompressionError as exc:
        logger.warning(
            "train.backend=onnx: no training graph, so devices without PyTorch cannot "
            "take part and the others train with PyTorch: %s",
            exc,
        )
        graphs = OfferedGraphs(None, None, proximal)
    return replace(setup, graphs=graphs)


def _made(setup: Setup, *, proximal: bool) -> OfferedGraphs:
    from fedge.train.graphs import (  # brings the exporter
        make_evaluation_graph,
        make_training_graph,
    )

    experiment, info = setup.experiment, setup.data.info
    if info.task is Task.detection:
        raise CompressionError("data.task=detection has no training graph yet")
    if experiment.compression.qat_rounds > 0:
        raise CompressionError(
            "compression.qat_rounds: weights are rounded by PyTorch alone"
        )
    step = make_training_graph(
        setup.model,
        info,
        experiment.train,
        proximal=proximal,
        masked=experiment.compression.sparsity > 0.0,
    )
    train = _packed(step, "training")
    if not experiment.run.evaluate_on_devices:
        return OfferedGraphs(train, None, proximal)
    outputs = make_evaluation_graph(setup.model, info)
    return OfferedGraphs(train, _packed(outputs, "evaluation"), proximal)


def _packed(model: bytes, name: str) -> PackedGraph:
    graph = PackedGraph.of(model)
    logger.info("%s graph: bytes=%d sha256=%s", name, len(graph.data), graph.sha256)
    return graph


def _is_done(setup: Setup, local: LocalSettings) -> bool:
    done = setup.graphs
    if done is None:
        return False
    return done.train is None or done.proximal or local.proximal_mu == 0.0
