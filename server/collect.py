"""One round's answers, from any grid, as what the strategy needs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Message, MetricRecord
from flwr.serverapp import Grid

from fedge.aggregation import UpdateMatrix, WeightedSum
from fedge.errors import PeerError
from fedge.flower.entries import METRICS
from fedge.flower.layer import answers_to, stream_replies
from fedge.flower.plain_total import NUM_CLIENTS
from fedge.flower.records import content_of_reply
from fedge.flower.wire import TrainReply
from fedge.strategy import Needs, Total

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back from a cohort.

    Attributes:
        total: over the whole model, buffers too; None if nobody answered.
        answered: answers in it.
        failed: devices that answered with an error or with something unusable.
        examples: total weight.
        train_loss: weighted mean of the training losses; NaN if nobody answered.
    """

    total: Total | None
    answered: int
    failed: int
    examples: float
    train_loss: float


def collect(
    grid: Grid,
    messages: Sequence[Message],
    *,
    needs: Needs,
    size: int,
    enough: int,
    timeout: float | None,
) -> Answers:
    """Send the messages and gather the answers.

    Guarantee: does not depend on the order in which answers arrive, as long as the same
    ones are used.

    Args:
        grid: with a summing layer on top if `needs` is SUM.
        messages: one training message per device.
        needs: what the strategy must be given.
        size: coordinates of an update.
        enough: answers after which no more are waited for, when each is seen (a summing
            layer counts for itself).
        timeout: seconds to wait; None waits for everybody.
    """
    good: list[tuple[int, int, TrainReply]] = []
    failed = 0
    replies = stream_replies(grid, messages, timeout=timeout)
    if needs is Needs.UPDATES:  # a summing layer has done so, and answers for others
        replies = answers_to(messages, replies)
    for reply in replies:
        node_id = reply.metadata.src_node_id
        try:
            update = TrainReply.from_content(content_of_reply(reply), size=size)
        except PeerError as exc:
            failed += 1
            logger.warning("node %d left out: %s", node_id, exc)
            continue
        # Only a summing layer may speak for others than itself.
        count = num_clients(reply) if needs is Needs.SUM else 1
        good.append((node_id, count, update))
        if needs is Needs.UPDATES and len(good) == enough:
            break
    if not good:
        return Answers(None, 0, failed, 0.0, float("nan"))
    return _answers(sorted(good, key=lambda item: item[0]), failed, needs)


def _answers(
    good: list[tuple[int, int, TrainReply]], failed: int, needs: Needs
) -> Answers:
    updates = [update for _, _, update in good]
    weights = np.array([update.num_examples for update in updates], np.float64)
    losses = np.array([update.loss for update in updates], np.float64)
    matrix = UpdateMatrix(np.stack([u.delta for u in updates]), weights, losses)
    total: Total = matrix
    if needs is Needs.SUM:
        total = WeightedSum(matrix.total().delta_sum, float(weights.sum()))
    return Answers(
        total=total,
        answered=sum(count for _, count, _ in good),
        failed=failed,
        examples=float(weights.sum()),
        train_loss=float(losses @ weights / weights.sum()),
    )


def num_clients(reply: Message) -> int:
    """Return how many devices a reply stands for: a synthetic one says so."""
    metrics = reply.content[METRICS]
    count = metrics.get(NUM_CLIENTS, 1) if isinstance(metrics, MetricRecord) else 1
    return count if isinstance(count, int) else 1
