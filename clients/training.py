"""Handlers of training and evaluation messages, for every kind of device.

What computes is chosen here and imported only then: `torch_training` or
`onnx_training`. No PyTorch in this file.
"""

from collections.abc import Sequence

from flwr.app import Context, Message

from clients.device import Device, has_torch
from fedge.config import Backend
from fedge.errors import ConfigError
from fedge.flower.batching import Computed, computed
from fedge.flower.graph_records import PackedGraph, graph_in
from fedge.flower.wire import EvaluateReply, TrainReply
from fedge.runtime.local import LocalUpdate
from fedge.runtime.score import Evaluation
from fedge.stopwatch import measure


def train(message: Message, context: Context) -> Message:
    """Train on the device's own data and reply with the update.

    Guarantee: the reply depends on the message and the device's data alone.

    Raises:
        FedgeError: the request is malformed, does not fit this device, or training
            gave values that are not finite.
    """
    update = computed()  # the simulator may have trained several clients at once
    if not isinstance(update, LocalUpdate):
        update = _train_alone(message, Device.of(context))
    with measure("building replies"):
        reply = TrainReply(update.delta, float(update.num_examples), update.loss)
        return Message(reply.to_content(), reply_to=message)


def train_together(
    pairs: Sequence[tuple[Message, Context]], *, masked: bool
) -> Computed:
    """Train several simulated clients at once, where that can be done.

    Args:
        pairs: each client's message and context.
        masked: whether each client's own handler must still see its update, to mask it.

    Returns:
        All clients' replies, or some clients' updates by message id; nobody's if each
        must train alone.

    Raises:
        FedgeError: as `train`, for one of them.
    """
    chosen = [
        (message, context)
        for message, context in pairs
        if _graph_for(message, Device.of(context)) is None
    ]
    if not chosen:
        return {}
    from clients import torch_training

    alone = len(chosen) < len(pairs)
    return torch_training.train_together(chosen, masked=masked or alone)


def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the model that was sent on the device's own data.

    Raises:
        FedgeError: the request is malformed or does not fit this device.
    """
    result = _evaluate_alone(message, Device.of(context))
    reply = EvaluateReply(result.loss, result.score, float(result.num_examples))
    return Message(reply.to_content(), reply_to=message)


def _train_alone(message: Message, device: Device) -> LocalUpdate:
    graph = _graph_for(message, device)
    if graph is None:
        from clients import torch_training

        return torch_training.train_alone(message, device)
    from clients import onnx_training

    return onnx_training.train_alone(message, device, graph)


def _evaluate_alone(message: Message, device: Device) -> Evaluation:
    graph = _graph_for(message, device)
    if graph is None:
        from clients import torch_training

        return torch_training.evaluate_alone(message, device)
    from clients import onnx_training

    return onnx_training.evaluate_alone(message, device, graph)


def _graph_for(message: Message, device: Device) -> PackedGraph | None:
    """Return the graph this device runs; None if it computes with PyTorch.

    Raises:
        ConfigError: it cannot do either.
        PeerError: the graph's entries are malformed.
    """
    graph = None
    if device.backend is Backend.onnx:
        graph = graph_in(message.content)
    elif not has_torch():
        raise ConfigError(
            "node config train-backend: torch, but PyTorch is not installed here; "
            "install fedge[train], or set train-backend=onnx"
        )
    if graph is None and not has_torch():
        raise ConfigError(
            "this device has no PyTorch and the server offers no graph to train with; "
            "set train.backend=onnx on the server (its log says if the model is "
            "outside the limits), or install fedge[train] here"
        )
    return graph
