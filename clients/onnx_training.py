"""Training and evaluation on a device without PyTorch: the server's graph is run.

The graph is data, but it decides what is computed from this device's examples. It is
checked before it is loaded (`fedge.runtime.graph`), and an owner may name the only
graphs that the device runs (node config `train-graphs`).
"""

from functools import lru_cache

from flwr.app import Message

from clients.device import Device
from clients.local_task import LocalTask, local_task
from clients.requests import Requests, mask_of, read_evaluation
from fedge.data.inputs import inputs_of
from fedge.errors import PeerError, VerificationError
from fedge.flower.graph_records import PackedGraph
from fedge.flower.wire import task_of
from fedge.runtime.augment import check_augmentation
from fedge.runtime.graph import Graph, GraphKind, load_graph
from fedge.runtime.local import LocalUpdate
from fedge.runtime.score import Evaluation
from fedge.runtime.training import evaluate_on_graph, train_on_graph
from fedge.stopwatch import measure

_REQUESTS = Requests()


def train_alone(message: Message, device: Device, packed: PackedGraph) -> LocalUpdate:
    """Return this device's update; errors as `clients.training.train`."""
    with measure("reading data"):
        local, graph = _prepared(message, device, packed, GraphKind.train)
        request = _REQUESTS.read(message.content, graph.spec)
        if request.weight_form:
            raise PeerError(
                f"the server asks to train for {request.weight_form} weights, which "
                f"this device cannot do without PyTorch"
            )
        check_augmentation(local.task.train, local.info.kind, local.info.task)
        inputs, targets = inputs_of(local.examples(device.partition_id), local.info)
    with measure("training"):
        return train_on_graph(
            graph,
            request.params,
            inputs,
            targets,
            local.task.train,
            local=request.local,
            learning_rate=request.learning_rate,
            mask=mask_of(request, graph.spec.size),
            rng=local.rng(request.round_index, device.partition_id),
        )


def evaluate_alone(message: Message, device: Device, packed: PackedGraph) -> Evaluation:
    """Return how good the model is here; errors as `training.evaluate_model`."""
    if not device.may_train_openly and not device.graphs:
        # Answers to evaluation are open, and a loss can be any function of the data.
        raise VerificationError(
            "this device answers openly to graphs that its owner knows only: name them "
            "in node config train-graphs (the server's log says their SHA-256), or set "
            "run.evaluate_on_devices=false on the server"
        )
    local, graph = _prepared(message, device, packed, GraphKind.evaluate)
    request = read_evaluation(message.content, graph.spec)
    examples = local.examples(device.partition_id)
    return evaluate_on_graph(graph, request.params, *inputs_of(examples, local.info))


def _prepared(
    message: Message, device: Device, packed: PackedGraph, kind: GraphKind
) -> tuple[LocalTask, Graph]:
    local = local_task(task_of(message.content), device.data_root, device.allow)
    device.check_allowed(packed.sha256)
    graph = _loaded(packed, kind)
    if graph.info.task is not local.info.task:
        raise PeerError(
            f"the server's graph is for {graph.info.task}, the task's data for "
            f"{local.info.task}"
        )
    return local, graph


@lru_cache(maxsize=4)  # two of a task, and those after channels were removed
def _loaded(packed: PackedGraph, kind: GraphKind) -> Graph:
    return load_graph(packed.model(), kind)
