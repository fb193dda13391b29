"""Apps, questions, clocks and processes for tests of LocalGrid's workers."""

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedge.flower.records import array_of

Handler = Callable[[Message, Context], Message]
SIZE = 50


def app_of(handler: Handler) -> ClientApp:
    """Return an app that does the same whatever it is asked for."""
    app = ClientApp()
    for register in (app.train, app.evaluate, app.query):
        register()(handler)
    return app


def index_of(context: Context) -> int:
    index = context.node_config["partition-id"]
    assert isinstance(index, int)
    return index


def tell(message: Message, **metrics: float) -> Message:
    return Message(RecordDict({"m": MetricRecord(dict(metrics))}), reply_to=message)


def update(message: Message, context: Context, size: int = SIZE) -> Message:
    """Answer with arrays and a weight that differ from client to client."""
    rng = np.random.default_rng(context.node_id)
    arrays = ArrayRecord({"w": array_of(rng.normal(size=size).astype(np.float32))})
    own = {"num-examples": float(rng.uniform(1, 9)), "loss": context.node_id / 7}
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(dict(own))})
    return Message(content, reply_to=message)


def count(message: Message, context: Context) -> Message:
    """Tell how often this client was asked before; learn it by heart."""
    seen = context.state.get("seen") or MetricRecord({"times": 0})
    assert isinstance(seen, MetricRecord)
    times = seen["times"]
    assert isinstance(times, int)
    context.state["seen"] = MetricRecord({"times": times + 1})
    context.state["large"] = ConfigRecord({"data": bytes([times]) * 20_000})
    return tell(message, times=times)


def messages(
    nodes: Iterable[int], kind: str = "query", content: RecordDict | None = None
) -> list[Message]:
    content = content or RecordDict()
    return [Message(content, node, kind) for node in nodes]


def ask(grid: Grid, kind: str = "query", nodes: Iterable[int] = ()) -> list[Message]:
    """Return the replies of these nodes, or of all."""
    asked = list(nodes) or list(grid.get_node_ids())
    return list(grid.send_and_receive(messages(asked, kind)))


def told(replies: Iterable[Message], name: str) -> list[object]:
    return [reply.content.metric_records["m"][name] for reply in replies]


def nodes_of(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def failures(replies: Iterable[Message]) -> dict[int, str]:
    """Return the reasons of those that failed, by node."""
    failed = [reply for reply in replies if reply.has_error()]
    return {r.metadata.src_node_id: r.error.reason or "" for r in failed}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the main thread if a block hangs."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"still busy after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _fields_of(pid: int) -> list[str]:
    """Return a process's name, state and parent; nothing if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return []
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, *rest.split()[:2]]


def nursery_of(pid: int) -> int:
    """Return the process that has made this worker."""
    parent = int(_fields_of(pid)[2])
    assert _fields_of(parent)[0] == "fedge-nursery"
    return parent


def still_there(pids: Iterable[int]) -> list[int]:
    """Return which of these processes have not ended a few seconds later."""
    for _ in range(100):
        left = [pid for pid in pids if _fields_of(pid)[1:2] not in ([], ["Z"])]
        if not left:
            break
        time.sleep(0.05)
    return left
