"""Handlers of training and evaluation messages."""

import torch
from flwr.app import Context, Message

from clients.device import Device
from clients.learner import Learner, learner_of
from fedge.arrays import Bool
from fedge.compress.prune import unpack_mask
from fedge.errors import PeerError
from fedge.flower.wire import (
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
    task_of,
)
from fedge.seeding import Purpose, generator
from fedge.train.evaluate import evaluate
from fedge.train.trainer import train_locally


def train(message: Message, context: Context) -> Message:
    """Train on the device's own data and reply with the update.

    Guarantee: the reply depends on the message and the device's data alone.

    Raises:
        FedgeError: the request is malformed, does not fit this device, or training
            gave values that are not finite.
    """
    device = Device.of(context)
    learner = learner_of(task_of(message.content), device.data_root, device.allow)
    request = TrainRequest.from_content(message.content, size=learner.spec.size)
    learner.check_spec(request.spec_digest)
    update = train_locally(
        learner.model,
        request.params,
        learner.examples(device.partition_id),
        learner.info,
        learner.task.train,
        local=request.local,
        learning_rate=request.learning_rate,
        mask=_mask_of(request, learner),
        rng=generator(
            learner.task.seed, Purpose.TRAIN, request.round_index, device.partition_id
        ),
        device=_torch_device(),
    )
    reply = TrainReply(update.delta, float(update.num_examples), update.loss)
    return Message(reply.to_content(), reply_to=message)


def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the model that was sent on the device's own data.

    Raises:
        FedgeError: the request is malformed or does not fit this device.
    """
    device = Device.of(context)
    learner = learner_of(task_of(message.content), device.data_root, device.allow)
    request = EvaluateRequest.from_content(message.content, size=learner.spec.size)
    learner.check_spec(request.spec_digest)
    examples = learner.examples(device.partition_id)
    result = evaluate(learner.model, request.params, examples, learner.info)
    reply = EvaluateReply(result.loss, result.score, float(result.num_examples))
    return Message(reply.to_content(), reply_to=message)


def _mask_of(request: TrainRequest, learner: Learner) -> Bool | None:
    if request.packed_mask is None:
        return None
    try:
        return unpack_mask(request.packed_mask, learner.spec.size)
    except ValueError as exc:
        raise PeerError(f"pruning mask: {exc}") from exc


def _torch_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
