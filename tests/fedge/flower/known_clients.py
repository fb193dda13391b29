"""Clients whose answers are known, and what their sums must be; not a test."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from hypothesis import HealthCheck, Phase, settings

from fedge.aggregation import ExactSum
from fedge.arrays import Float32
from fedge.flower import GridLayer, LocalGrid, secure_mod, stream_replies
from fedge.flower.checksums import checksum_mod
from fedge.flower.crashing import with_mod
from fedge.flower.partial import Reduction
from fedge.flower.records import array_of

SIZE, NUM_CLIENTS, GROUPS = 30, 10, ("0.0", "1.0", "2.0")
NODES = range(2, 2 + NUM_CLIENTS)


def update_of(node: int, group: str) -> Float32:
    rng = np.random.default_rng([node, *group.encode()])
    return rng.normal(0.0, 0.1, SIZE).astype(np.float32)


def answer_of(node: int, group: str) -> RecordDict:
    arrays = ArrayRecord({"w": array_of(update_of(node, group))})
    metrics = MetricRecord({"num-examples": 10 + node, "loss": node / 4})
    return RecordDict({"arrays": arrays, "metrics": metrics})


def base(*, secure: bool = False, checked: bool = True) -> LocalGrid:
    app = ClientApp(mods=[secure_mod] if secure else [])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        group = message.metadata.group_id
        return Message(answer_of(context.node_id, group), reply_to=message)

    app = with_mod(app, checksum_mod) if checked else app
    return LocalGrid(app, num_clients=NUM_CLIENTS, workers=0)


class Tap(GridLayer):
    """Remembers the replies that pass, as they are."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.passed: list[Message] = []

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        for reply in stream_replies(self.inner, messages, timeout=timeout):
            self.passed.append(reply)
            yield reply


def ask(grid: Grid, group: str, request: RecordDict | None = None) -> list[Message]:
    content = request or RecordDict()
    messages = [Message(content, node, "train", group_id=group) for node in NODES]
    return list(grid.send_and_receive(messages))


def mean_over(nodes: Sequence[int], group: str) -> Float32:
    total = ExactSum(SIZE)
    for node in nodes:
        total.add(update_of(node, group), 10 + node)
    mean: Float32 = total.mean().astype(np.float32)
    return mean


# Not shrunk: a mix that breaks a sum is told as it is.
FEW = settings(
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
    deadline=None,
)
