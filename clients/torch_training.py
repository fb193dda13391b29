"""Training and evaluation on a device with PyTorch."""

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Context, Message

from clients.device import Device
from clients.learner import Learner, learner_of
from clients.requests import Requests, mask_of, read_evaluation
from fedge.config import Quantization
from fedge.flower.batching import Computed
from fedge.flower.wire import TRAIN, TrainRequest, stacked_replies, task_of
from fedge.runtime.local import LocalUpdate
from fedge.runtime.score import Evaluation
from fedge.stopwatch import measure
from fedge.train.evaluate import evaluate
from fedge.train.stacked import can_stack, train_stacked
from fedge.train.trainer import train_locally

_REQUESTS = Requests()


def train_alone(message: Message, device: Device) -> LocalUpdate:
    """Return this device's update; errors as `clients.training.train`."""
    with measure("reading data"):
        learner, request = _read(message, device)
        examples = learner.examples(device.partition_id)
    with measure("training"):
        return train_locally(
            learner.model,
            request.params,
            examples,
            learner.info,
            learner.task.train,
            local=request.local,
            learning_rate=request.learning_rate,
            mask=mask_of(request, learner.spec.size),
            rng=learner.local.rng(request.round_index, device.partition_id),
            weight_form=Quantization(request.weight_form or "none"),
            device="cuda" if torch.cuda.is_available() else "cpu",
        )


def train_together(
    pairs: Sequence[tuple[Message, Context]], *, masked: bool
) -> Computed:
    """Train several simulated clients at once, where their model can be stacked.

    Arguments, result and errors as `clients.training.train_together`.
    """
    first = pairs[0][0]
    content = first.content
    together = [(m, Device.of(c)) for m, c in pairs if m.content is content]
    if first.metadata.message_type != TRAIN or len({d.source for _, d in together}) > 1:
        return {}
    with measure("reading data"):
        learner, request = _read(first, together[0][1])
    if torch.cuda.is_available() or request.weight_form:
        return {}
    if not can_stack(learner.model, learner.task.train):
        return {}
    places = [device.partition_id for _, device in together]
    with measure("reading data"):
        parts = [learner.local.part(place) for place in places]
    with measure("training"):
        updates = train_stacked(
            learner.model,
            request.params,
            learner.data.train,
            parts,
            learner.info,
            config=learner.task.train,
            local=request.local,
            learning_rate=request.learning_rate,
            mask=mask_of(request, learner.spec.size),
            rngs=[learner.local.rng(request.round_index, place) for place in places],
        )
    if masked or len(together) < len(pairs):
        ids = [message.metadata.message_id for message, _ in together]
        return {message_id: updates.of(row) for row, message_id in enumerate(ids)}
    with measure("building replies"):
        return stacked_replies(
            updates.deltas, updates.num_examples.astype(np.float64), updates.losses
        )


def evaluate_alone(message: Message, device: Device) -> Evaluation:
    """Return how good the model is here; errors as `training.evaluate_model`."""
    learner = learner_of(task_of(message.content), device.data_root, device.allow)
    request = read_evaluation(message.content, learner.spec)
    examples = learner.examples(device.partition_id)
    return evaluate(learner.model, request.params, examples, learner.info)


def _read(message: Message, device: Device) -> tuple[Learner, TrainRequest]:
    learner = learner_of(task_of(message.content), device.data_root, device.allow)
    return learner, _REQUESTS.read(message.content, learner.spec)
