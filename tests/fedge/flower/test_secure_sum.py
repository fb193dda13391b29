"""Secure aggregation in Flower apps: exact, whoever drops out, and closed to misuse."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower

from fedge.arrays import AnyArray, Float32
from fedge.config import SecAggConfig, SecAggMode
from fedge.enrolment.folders import (
    ENROLMENT_KEY,
    ENROLMENT_PUBLIC,
    create_key,
    enroll_device,
)
from fedge.enrolment.key_files import read_public
from fedge.errors import ConfigError
from fedge.flower import GridLayer, LocalGrid, PlainSum, SecureSum, secure_mod
from fedge.flower.layer import stream_replies
from fedge.flower.partial import Reduction
from fedge.flower.records import array_of, payload_bytes, read_array
from fedge.flower.secure_messages import Step, step_of
from fedge.flower.secure_plan import ArrayLayout, Plan

SIZE, NUM_CLIENTS = 300, 7
START = np.linspace(-1.0, 1.0, SIZE, dtype=np.float32)
MODES = [SecAggMode.semi_honest, SecAggMode.malicious]


def update_of(client: int) -> Float32:
    rng = np.random.default_rng(client)
    return rng.normal(0.0, 0.1, SIZE).astype(np.float32)


def make_app(*, mods: Sequence[Mod] = (secure_mod,)) -> ClientApp:
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = int(context.node_config["partition-id"])
        model = array_in(message.content, "w") + update_of(client)
        metrics = MetricRecord({"num-examples": 10 + client, "train_loss": client / 4})
        arrays = ArrayRecord({"w": array_of(model.astype(np.float32))})
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def content(**arrays: AnyArray) -> RecordDict:
    given = arrays or {"w": START}
    record = ArrayRecord({name: array_of(value) for name, value in given.items()})
    return RecordDict({"arrays": record})


def array_in(content: RecordDict, name: str) -> AnyArray:
    (record,) = content.array_records.values()
    return read_array(record[name])


def ask(grid: Grid, request: RecordDict | None = None) -> list[Message]:
    request = request or content()
    nodes = list(grid.get_node_ids())
    return list(grid.send_and_receive([Message(request, n, "train") for n in nodes]))


def settings(
    mode: SecAggMode = SecAggMode.semi_honest, *, min_cohort: int = 5
) -> SecAggConfig:
    return SecAggConfig(mode=mode, max_weight=16.0, min_cohort=min_cohort)


class Dropper(GridLayer):
    """Loses the answers of some nodes to one step, and keeps what it saw.

    It looks at single replies, so none are added up below.
    """

    def __init__(
        self, inner: LocalGrid, step: Step | None, nodes: Iterable[int]
    ) -> None:
        super().__init__(inner)
        self.step, self.nodes, self.seen = step, set(nodes), list[Message]()

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        sent = list(messages)
        steps = {m.metadata.dst_node_id: step_of(m.content) for m in sent}
        for reply in stream_replies(self.inner, sent, timeout=timeout):
            node = reply.metadata.src_node_id
            self.seen.append(reply)
            if not (steps[node] is self.step and node in self.nodes):
                yield reply


def grid_of(app: ClientApp | None = None, workers: int | None = None) -> LocalGrid:
    return LocalGrid(app or make_app(), num_clients=NUM_CLIENTS, workers=workers)


def mean_of(clients: Iterable[int]) -> Float32:
    weights = np.array([10.0 + client for client in clients])
    updates = np.stack([update_of(client) for client in clients])
    mean: Float32 = (START + weights @ updates / weights.sum()).astype(np.float32)
    return mean


# One rounding of each of 7 clients: clip / weight code, weight code about Q * 10 / 16.
TOLERANCE = 1.0 / (32767 * 10 / 16)


@pytest.mark.parametrize("mode", MODES)
def test_one_reply_holds_the_mean_the_weight_and_the_metrics(mode: SecAggMode) -> None:
    (reply,) = ask(SecureSum(grid_of(), settings(mode), metrics=["train_loss"]))
    everybody = range(NUM_CLIENTS)
    found = array_in(reply.content, "w")
    np.testing.assert_allclose(found, mean_of(everybody), atol=TOLERANCE)
    (metrics,) = reply.content.metric_records.values()
    weights = np.array([10.0 + client for client in everybody])
    loss = weights @ (np.arange(NUM_CLIENTS) / 4) / weights.sum()
    assert metrics["num-examples"] == pytest.approx(weights.sum(), rel=1e-3)
    assert metrics["train_loss"] == pytest.approx(loss, rel=1e-3)
    assert metrics["num-clients"] == NUM_CLIENTS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", [Step.hello, Step.fit, Step.mask, Step.unmask])
def test_a_device_may_drop_out_at_any_step(step: Step, mode: SecAggMode) -> None:
    local = grid_of()
    dropped = list(local.get_node_ids())[2]
    layer = Dropper(local, step, [dropped])
    *_, reply = ask(SecureSum(layer, settings(mode)))
    # Who drops out of the last trip has given its update already.
    left = [c for c in range(NUM_CLIENTS) if c != 2 or step is Step.unmask]
    found = array_in(reply.content, "w")
    np.testing.assert_allclose(found, mean_of(left), atol=TOLERANCE)


@pytest.mark.parametrize("step", [Step.fit, Step.mask, Step.unmask])
def test_too_many_drop_outs_open_nothing(step: Step) -> None:
    local = grid_of()
    layer = Dropper(local, step, list(local.get_node_ids())[:4])
    *_, reply = ask(SecureSum(layer, settings()))
    assert reply.has_error()
    assert "need" in str(reply.error.reason)


def test_a_round_after_an_aborted_one_succeeds() -> None:
    local = grid_of()
    layer = Dropper(local, Step.mask, list(local.get_node_ids())[:4])
    secure = SecureSum(layer, settings())
    assert ask(secure)[-1].has_error()
    layer.step = None
    assert ask(secure)[-1].has_content()


@pytest.mark.parametrize(
    ("strategy", "arguments"),
    [
        (flower.FedAvg, {}),
        (flower.FedAdam, {}),
        (flower.FedAvgM, {"server_momentum": 0.9}),
        (flower.FedYogi, {}),
    ],
)
def test_flowers_mean_based_strategies_work_unchanged(
    strategy: Callable[..., flower.Strategy], arguments: dict[str, float]
) -> None:
    def result_on(grid: Grid) -> Float32:
        made = strategy(fraction_evaluate=0.0, **arguments)
        record = ArrayRecord({"w": Array(START)})
        result = made.start(grid, record, num_rounds=2)
        values: Float32 = read_array(result.arrays["w"]).astype(np.float32)
        return values

    secure = result_on(SecureSum(grid_of(), settings()))
    plain = result_on(PlainSum(grid_of(make_app(mods=()))))
    # An adaptive step is at most eta = 0.1 and may turn round for an update near zero.
    close = np.isclose(secure, plain, atol=0.01)
    assert close.mean() > 0.95


def test_the_sum_is_the_same_in_every_order_and_mode() -> None:
    replies = [
        array_in(ask(SecureSum(grid_of(), settings(mode)))[-1].content, "w")
        for mode in (*MODES, *MODES)
    ]
    assert len({reply.tobytes() for reply in replies}) == 1


def test_nothing_that_crosses_the_wire_holds_an_update_or_a_weight() -> None:
    layer = Dropper(grid_of(), None, [])
    ask(SecureSum(layer, settings(), metrics=["train_loss"]))
    for reply in layer.seen:
        assert not reply.content.metric_records
        names = {name for r in reply.content.array_records.values() for name in r}
        assert names <= {"data"}
        for client in range(NUM_CLIENTS):
            needle = update_of(client)[:4].tobytes()
            for record in reply.content.array_records.values():
                assert all(needle not in array.data for array in record.values())


def test_nothing_secret_is_left_after_a_session() -> None:
    contexts: dict[int, Context] = {}

    def remember(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        contexts[context.node_id] = context
        reply: Message = call_next(message, context)
        return reply

    app = make_app(mods=(remember, secure_mod))
    ask(SecureSum(grid_of(app, workers=0), settings()))
    assert len(contexts) == NUM_CLIENTS
    for context in contexts.values():
        state = context.state["fedge.secagg.state"]
        assert state["phase"] == "done"
        for name in ("mask-key", "seed", "peers", "seed-shares", "key-shares"):
            assert not state[name], name
        codes = context.state.array_records["fedge.secagg.codes"]
        assert codes["data"].data == b""


def test_plain_training_messages_are_refused() -> None:
    replies = ask(grid_of())
    assert all(reply.has_error() for reply in replies)
    assert "secure aggregation only" in str(replies[0].error.reason)


def test_other_messages_pass() -> None:
    app = make_app()

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    secure = SecureSum(grid_of(app), settings())
    messages = [Message(content(), node, "evaluate") for node in secure.get_node_ids()]
    assert len(list(secure.send_and_receive(messages))) == NUM_CLIENTS


def test_a_diverged_device_is_left_out() -> None:
    def diverge(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == 3:
            bad = np.full(SIZE, np.nan, np.float32)
            reply.content["arrays"] = ArrayRecord({"w": array_of(bad)})
        return reply

    failure, reply = ask(
        SecureSum(grid_of(make_app(mods=(secure_mod, diverge))), settings())
    )
    assert "not finite" in str(failure.error.reason)
    found = array_in(reply.content, "w")
    left = [client for client in range(NUM_CLIENTS) if client != 3]
    np.testing.assert_allclose(found, mean_of(left), atol=TOLERANCE)


def test_a_mask_makes_the_upload_smaller_and_the_rest_stays_zero() -> None:
    kept = np.zeros(SIZE, np.bool_)
    kept[::5] = True
    app = ClientApp(mods=[secure_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = ArrayRecord(
            {"delta": array_of(np.where(kept, START, 0.0).astype("f4"))}
        )
        metrics = MetricRecord({"num-examples": 16})
        return Message(
            RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message
        )

    layout = (ArrayLayout("delta", "float32", (SIZE,)),)
    plan = Plan(layout, False, "mask", (), "num-examples")
    request = content(w=START, mask=np.packbits(kept))
    layer = Dropper(grid_of(app), None, [])
    *_, reply = ask(SecureSum(layer, settings(), plan=plan), request)
    found = array_in(reply.content, "delta")
    np.testing.assert_allclose(found, np.where(kept, START, 0.0), atol=TOLERANCE)
    assert (found[~kept] == 0.0).all()
    vectors = [r for r in layer.seen if "fedge.secagg.vector" in r.content]
    # 60 of 300 coordinates and a few more for weight and metrics, three bytes each.
    assert all(payload_bytes(r.content) < 3 * 70 + 50 for r in vectors)


def test_frozen_arrays_are_not_sent_and_come_back_as_they_were() -> None:
    app = ClientApp(mods=[secure_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        (record,) = message.content.array_records.values()
        moved = read_array(record["head"]) + 0.25
        arrays = ArrayRecord({"body": record["body"], "head": array_of(moved)})
        metrics = MetricRecord({"num-examples": 4})
        return Message(
            RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message
        )

    request = content(body=START, head=np.zeros(5, np.float32))
    *_, reply = ask(SecureSum(grid_of(app), settings(), frozen=["body"]), request)
    assert (array_in(reply.content, "body") == START).all()
    head = array_in(reply.content, "head")
    np.testing.assert_allclose(head, 0.25, atol=4 * TOLERANCE)


def test_different_models_for_different_devices_are_refused() -> None:
    secure = SecureSum(grid_of(), settings())
    messages = [
        Message(content(w=START + node), node, "train")
        for node in secure.get_node_ids()
    ]
    with pytest.raises(ConfigError, match="one model and one configuration"):
        secure.send_and_receive(messages)


def test_a_cohort_below_the_devices_floor_is_refused_by_the_devices() -> None:
    local = LocalGrid(make_app(), num_clients=4)
    replies = ask(SecureSum(local, settings(min_cohort=3)))
    assert all(reply.has_error() for reply in replies)
    assert "this client needs 5" in str(replies[0].error.reason)


def enrolled_grid(folder: Path, **entries: bool | int | float | str) -> LocalGrid:
    """Six certified devices, and one that is not; all with these entries."""
    create_key(folder / "authority")
    for place in range(6):
        enroll_device(
            folder / "authority" / ENROLMENT_KEY,
            folder / str(place),
            uid=place + 1,
            fast_aes=bool(place % 2),
            not_after=2**32,
        )

    def node_config(index: int) -> dict[str, bool | int | float | str]:
        own = {"secagg-dir": str(folder / str(index))} if index < 6 else {}
        return {**own, **entries}

    return LocalGrid(make_app(), num_clients=NUM_CLIENTS, node_config=node_config)


def test_the_server_cannot_talk_a_device_out_of_the_consistency_trip(
    tmp_path: Path,
) -> None:
    local = enrolled_grid(tmp_path, **{"secagg-malicious": True})
    public = read_public(tmp_path / "authority" / ENROLMENT_PUBLIC)
    lenient = SecureSum(local, settings(), enrolment_key=public)
    assert "consistency trip" in str(ask(lenient)[0].error.reason)
    strict = settings(SecAggMode.malicious)
    assert ask(SecureSum(local, strict, enrolment_key=public))[-1].has_content()


def test_a_device_that_borrows_anothers_certificate_is_left_out() -> None:
    first: list[RecordDict] = []

    def borrow(
        message: Message, context: Context, call_next: ClientAppCallable
    ) -> Message:
        reply = call_next(message, context)
        if step_of(message.content) is Step.hello:
            first.append(reply.content)
            return Message(first[0], reply_to=message)
        return reply

    app = make_app(mods=(borrow, secure_mod))
    # Only the first is who it says: six take a certificate whose key they have not.
    local = LocalGrid(app, num_clients=6, workers=0)
    (reply,) = ask(SecureSum(local, settings()))
    assert "1 of 6 devices can take part" in str(reply.error.reason)


def test_a_device_without_a_certificate_does_not_spoil_the_round(
    tmp_path: Path,
) -> None:
    local = enrolled_grid(tmp_path)
    public = read_public(tmp_path / "authority" / ENROLMENT_PUBLIC)
    (reply,) = ask(SecureSum(local, settings(), enrolment_key=public))
    np.testing.assert_allclose(
        array_in(reply.content, "w"), mean_of(range(6)), atol=TOLERANCE
    )
    # Who certified the others a server without the key cannot tell, and asks nobody.
    (reply,) = ask(SecureSum(local, settings()))
    assert "1 of 7 devices can take part" in str(reply.error.reason)


def test_off_is_no_mode_of_a_secure_sum() -> None:
    with pytest.raises(ConfigError, match="use PlainSum"):
        SecureSum(grid_of(), SecAggConfig(mode=SecAggMode.off))


def test_a_ring_that_would_overflow_is_refused_before_anything_is_sent() -> None:
    layer = Dropper(LocalGrid(make_app(), num_clients=300), None, [])
    with pytest.raises(ConfigError, match="overflow a ring of 24 bits"):
        ask(SecureSum(layer, settings()))
    assert len(layer.seen) == 300, "the devices were asked for more than their names"
