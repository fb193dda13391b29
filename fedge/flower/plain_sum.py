"""PlainSum: a cohort's training replies become one, in constant memory.

The synthetic reply holds the weighted mean of the arrays, the total weight under the
weight's own key, and the weighted means of the other metrics, so Flower's mean-based
strategies accept it unchanged. It has the shape of secure aggregation without masks.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from fedge.errors import PeerError
from fedge.flower.layer import GridLayer, answers_to, stream_replies
from fedge.flower.partial import Reduction, is_partial, nodes_of
from fedge.flower.plain_total import Layout, PlainReduction, PlainTotal

logger = logging.getLogger(__name__)


class PlainSum(GridLayer):
    """Sums training replies; other messages pass through.

    Guarantee: the mean does not depend on the order in which replies arrive, nor on
    which of them were added up before, and memory is that of a few models whatever the
    cohort's size.

    Attributes:
        enough: stop waiting after so many good replies (over-sampling); 0 takes all.
        weighted_by_key: the metric that is a reply's weight.
        expect: what a reply must consist of; None: what most of them have in common.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        enough: int = 0,
        weighted_by_key: str = "num-examples",
        expect: Layout | None = None,
    ) -> None:
        super().__init__(inner)
        self.enough = enough
        self.weighted_by_key = weighted_by_key
        self.expect = expect

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield failures as they arrive and the one synthetic reply at the end."""
        sent = list(messages)
        if not sent or not sent[0].metadata.message_type.startswith("train"):
            yield from stream_replies(
                self.inner, sent, timeout=timeout, reduction=reduction
            )
            return
        settings = PlainReduction(self.weighted_by_key, self.expect, self.enough)
        total, message_by_node = settings.start(), _by_node(sent)
        replies = stream_replies(self.inner, sent, timeout=timeout, reduction=settings)
        for reply in answers_to(sent, replies):
            if reply.has_error():
                yield reply
                continue
            try:
                _add(total, reply)
            except PeerError as exc:
                for node in nodes_of(reply):
                    yield _left_out(message_by_node[node], str(exc))
            if total.num_clients >= self.enough > 0:
                break
        content, odd = total.close()
        for node in odd:
            reason = "reply: other arrays or metrics than most replies have"
            yield _left_out(message_by_node[node], reason)
        if content is not None:
            yield Message(content, reply_to=sent[0])


def _by_node(sent: list[Message]) -> Mapping[int, Message]:
    return {message.metadata.dst_node_id: message for message in sent}


def _add(total: PlainTotal, reply: Message) -> None:
    if is_partial(reply):
        total.merge(reply.content, nodes_of(reply))
    else:
        total.add(reply)


def _left_out(message: Message, reason: str) -> Message:
    logger.warning("node %d left out: %s", message.metadata.dst_node_id, reason)
    return Message(Error(ErrorCode.MOD_FAILED_PRECONDITION, reason), reply_to=message)
