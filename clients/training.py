"""Handlers of training and evaluation messages."""

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Array, Context, Message, RecordDict

from clients.device import Device
from clients.learner import Learner, learner_of
from fedge.arrays import Bool
from fedge.compress.prune import unpack_mask
from fedge.config.compression import Quantization
from fedge.errors import PeerError
from fedge.flower.batching import Computed, computed
from fedge.flower.entries import arrays_of, config_of
from fedge.flower.records import payload_key
from fedge.flower.wire import (
    TRAIN,
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
    stacked_replies,
    task_of,
)
from fedge.seeding import Purpose, generator
from fedge.stopwatch import measure
from fedge.train.evaluate import evaluate
from fedge.train.stacked import can_stack, train_stacked
from fedge.train.trainer import LocalUpdate, train_locally


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


def _train_alone(message: Message, device: Device) -> LocalUpdate:
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
            mask=_mask_of(request, learner),
            rng=_rng(learner, request, device),
            weight_form=Quantization(request.weight_form or "none"),
            device=_torch_device(),
        )


def train_together(
    pairs: Sequence[tuple[Message, Context]], *, masked: bool
) -> Computed:
    """Train several simulated clients at once, where their model can be stacked.

    Args:
        pairs: each client's message and context.
        masked: whether each client's own handler must still see its update, to mask it.

    Returns:
        All clients' replies, or their updates by message id; nobody's if each must
        train alone.

    Raises:
        FedgeError: as `train`, for one of them.
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
    with measure("reading data"):
        parts = [learner.part(device.partition_id) for _, device in together]
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
            mask=_mask_of(request, learner),
            rngs=[_rng(learner, request, device) for _, device in together],
        )
    if masked or len(together) < len(pairs):
        ids = [message.metadata.message_id for message, _ in together]
        return {message_id: updates.of(row) for row, message_id in enumerate(ids)}
    with measure("building replies"):
        return stacked_replies(
            updates.deltas, updates.num_examples.astype(np.float64), updates.losses
        )


def _read(message: Message, device: Device) -> tuple[Learner, TrainRequest]:
    learner = learner_of(task_of(message.content), device.data_root, device.allow)
    return learner, _REQUESTS.read(message.content, learner)


class _Requests:
    """The last request that was read: simulated clients of a round get the same one.

    The same bytes and the same settings need not be checked again.
    """

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._arrays: list[Array] = []
        self._request: TrainRequest | None = None

    def read(self, content: RecordDict, learner: Learner) -> TrainRequest:
        """Return the request; raise PeerError if it is malformed."""
        arrays = list(arrays_of(content).values())
        settings = list(config_of(content).items())
        key = (learner, *map(payload_key, arrays), settings)
        if self._request is None or key != self._key:
            request = TrainRequest.from_content(content, size=learner.spec.size)
            learner.check_spec(request.spec_digest)
            self._key, self._request = key, request
            self._arrays = arrays  # while they are kept, no others are in their place
        return self._request


_REQUESTS = _Requests()


def _rng(
    learner: Learner, request: TrainRequest, device: Device
) -> np.random.Generator:
    place = (request.round_index, device.partition_id)
    return generator(learner.task.seed, Purpose.TRAIN, *place)


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
