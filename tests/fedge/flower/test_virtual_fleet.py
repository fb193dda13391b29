import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from hypothesis import given
from hypothesis import strategies as st

from fedge.config.fleet import DropPhase
from fedge.errors import ConfigError
from fedge.fleet import (
    IDEAL,
    Availability,
    DeviceProfile,
    Diurnal,
    Event,
    Fleet,
    Outcome,
    Windows,
)
from fedge.flower import GridLayer, LocalGrid, PlainSum
from fedge.flower.partial import Accumulator, Reduction
from fedge.flower.plain_total import NUM_CLIENTS
from fedge.flower.records import array_of
from fedge.flower.virtual_fleet import VirtualFleet

# An operation takes a second; nothing else takes any time.
ONE_FLOP_A_SECOND = replace(
    IDEAL, name="slow", flops_per_second=1.0, compute_watts=3.0, idle_watts=1.0
)


@dataclass
class World:
    """A grid of plain clients that notes who was run, and a fleet above it."""

    seconds: Sequence[float]
    profile: DeviceProfile = ONE_FLOP_A_SECOND
    availability: Availability | None = None
    drop_probability: float = 0.0
    broken: frozenset[int] = frozenset()
    shuffled: bool = False
    ran: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def grid(self) -> VirtualFleet:
        base = LocalGrid(self._app(), num_clients=len(self.seconds), workers=0)
        fleet = Fleet(
            num_devices=len(self.seconds),
            seed=0,
            kinds=((self.profile, 1.0),),
            drop_probability=self.drop_probability,
            drop_phase=DropPhase.compute,
        )
        if self.availability is not None:
            fleet = replace(fleet, availability=self.availability)
        return VirtualFleet(
            Shuffled(base) if self.shuffled else base,
            fleet,
            flops=lambda device, _: self.seconds[device],
            on_event=self.events.append,
        )

    def _app(self) -> ClientApp:
        app = ClientApp()

        def answer(message: Message, context: Context) -> Message:
            place = context.node_config["partition-id"]
            assert isinstance(place, int)
            self.ran.append(place)
            if place in self.broken:
                raise RuntimeError("broken")
            arrays = ArrayRecord({"w": array_of(np.full(4, place, np.float32))})
            metrics = MetricRecord({"num-examples": 1, "place": place})
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            return Message(content, reply_to=message)

        app.train()(answer)
        app.query()(answer)
        return app


class Shuffled(GridLayer):
    """Answers backwards, as a grid of many workers may."""

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        assert timeout is None
        yield from reversed(list(super().stream(messages, reduction=reduction)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return reversed(list(self.inner.pull_messages(message_ids)))


def messages(devices: Iterable[int], kind: str = "train") -> list[Message]:
    content = RecordDict({"a": ArrayRecord({"w": array_of(np.zeros(4, np.float32))})})
    return [Message(content, device + 2, kind, group_id="0.0") for device in devices]


def places(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id - 2 for reply in replies]


def test_replies_come_in_the_order_of_their_virtual_arrival() -> None:
    world = World([30.0, 10.0, 20.0])
    grid = world.grid()
    replies = grid.stream(messages(range(3)))
    seen = [(place, grid.clock_seconds) for place in map(one_place, replies)]
    assert seen == [(1, 10.0), (2, 20.0), (0, 30.0)]
    assert world.ran == [1, 2, 0]


def one_place(reply: Message) -> int:
    return places([reply])[0]


def test_time_goes_on_from_request_to_request() -> None:
    grid = World([30.0, 10.0]).grid()
    grid.send_and_receive(messages([1]))
    grid.send_and_receive(messages([0, 1]))
    assert grid.clock_seconds == 40.0


def test_who_would_miss_the_deadline_is_not_run() -> None:
    world = World([30.0, 10.0, 20.0])
    grid = world.grid()
    replies = list(grid.send_and_receive(messages(range(3)), timeout=20.0))
    assert places(replies) == [1, 2, 0]
    assert world.ran == [1, 2]
    assert replies[2].error.code == ErrorCode.NODE_UNAVAILABLE
    assert replies[2].error.reason == (
        "device 0 at 0.0 virtual s: the device needs 30.0 virtual s, past the deadline"
    )
    assert grid.clock_seconds == 20.0
    assert [event.outcome for event in world.events] == ["ok", "ok", "late"]


def test_the_deadline_is_not_waited_for_if_everybody_answered() -> None:
    grid = World([3.0]).grid()
    grid.send_and_receive(messages([0]), timeout=100.0)
    assert grid.clock_seconds == 3.0


def test_who_stops_early_leaves_the_clock_at_the_last_reply() -> None:
    world = World([30.0, 10.0, 20.0])
    grid = world.grid()
    stream = iter(grid.stream(messages(range(3)), timeout=99.0))
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    assert grid.clock_seconds == 10.0
    assert world.ran == [1]
    assert [(e.device, e.outcome, e.received_seconds) for e in world.events] == [
        (1, Outcome.ok, 10.0),
        (2, Outcome.surplus, 10.0),
        (0, Outcome.surplus, 10.0),
    ]


def test_over_sampling_runs_only_the_first_devices() -> None:
    world = World([30.0, 10.0, 20.0, 5.0])
    grid = world.grid()
    (total,) = PlainSum(grid, enough=2).send_and_receive(messages(range(4)))
    assert total.content["metrics"][NUM_CLIENTS] == 2
    assert sorted(world.ran) == [1, 3]
    assert grid.clock_seconds == 10.0


def test_over_sampling_falls_back_on_the_next_device_if_one_fails() -> None:
    world = World([30.0, 10.0, 20.0, 5.0], broken=frozenset({3}))
    grid = world.grid()
    failure, total = PlainSum(grid, enough=2).send_and_receive(messages(range(4)))
    assert failure.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert total.content["metrics"][NUM_CLIENTS] == 2
    assert sorted(world.ran) == [1, 2, 3]
    assert grid.clock_seconds == 20.0
    outcomes = {event.device: event.outcome for event in world.events}
    assert outcomes == {0: "surplus", 1: "ok", 2: "ok", 3: "failed"}


@dataclass
class Enough:
    """A reduction that the grid below need not know."""

    enough: int
    kind: str = "none"

    def to_json(self) -> str:
        return "{}"

    def start(self) -> Accumulator:
        raise NotImplementedError


def test_a_reduction_that_has_enough_runs_the_first_devices_in_one_go() -> None:
    world = World([30.0, 10.0, 20.0, 5.0], shuffled=True, broken=frozenset({3}))
    grid = world.grid()
    replies = list(grid.stream(messages(range(4)), reduction=Enough(2)))
    assert places(replies) == [3, 1, 2]
    assert world.ran == [3, 1, 2]
    assert grid.clock_seconds == 20.0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 6))
def test_the_order_in_which_the_grid_below_answers_does_not_matter(
    seconds: list[int], timeout: int
) -> None:
    one, other = (
        World([float(s) for s in seconds], shuffled=shuffled)
        for shuffled in (False, True)
    )
    answers = []
    for world in (one, other):
        grid = world.grid()
        replies = grid.stream(messages(range(len(seconds))), timeout=timeout)
        answers.append(
            [(place, grid.clock_seconds) for place in map(one_place, replies)]
        )
    assert answers[0] == answers[1]
    assert one.events == other.events


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True),
    st.sampled_from(["train", "query"]),
)
def test_an_ideal_fleet_is_the_grid_below(devices: list[int], kind: str) -> None:
    world = World([1e9] * 10, profile=IDEAL, broken=frozenset({4}))
    grid = world.grid()
    plain, wrapped = (
        [
            (one_place(reply), reply.has_error())
            for reply in some.send_and_receive(messages(devices, kind))
        ]
        for some in (grid.inner, grid)
    )
    assert wrapped == plain
    assert grid.clock_seconds == 0.0


def test_a_device_that_is_offline_is_not_run() -> None:
    there = Windows(
        period_seconds=100.0, windows_by_device={0: [(0.0, 100.0)], 1: [(50.0, 60.0)]}
    )
    world = World([3.0, 3.0], availability=there)
    grid = world.grid()
    first, second = grid.send_and_receive(messages(range(2)))
    assert first.error.reason == "device 1 at 0.0 virtual s: the device is offline"
    assert places([second]) == [0]
    assert world.ran == [0]
    assert grid.clock_seconds == 3.0


def test_a_server_that_reaches_nobody_waits_for_the_first_device() -> None:
    night = Diurnal(seed=0, from_hour=22.0, until_hour=6.0, offset_hours=0.0)
    grid = World([7 * 3600.0, 3.0], availability=night).grid()
    grid.send_and_receive(messages([1]))
    # Works until it is gone, and nobody comes before the next night.
    (lost,) = grid.send_and_receive(messages([0]))
    assert "dropped out after 21597.0 virtual s" in (lost.error.reason or "")
    assert grid.clock_seconds == 6 * 3600.0
    (lost,) = grid.send_and_receive(messages([1]))
    assert lost.has_error()
    assert grid.clock_seconds == 22 * 3600.0
    assert not next(iter(grid.send_and_receive(messages([1])))).has_error()


def test_a_device_that_drops_out_has_used_energy() -> None:
    world = World([10.0], drop_probability=0.999999)
    grid = world.grid()
    (lost,) = grid.send_and_receive(messages([0]), timeout=60.0)
    assert "dropped out" in (lost.error.reason or "")
    assert world.ran == []
    assert grid.clock_seconds == 60.0
    (event,) = world.events
    assert event.energy_joules == pytest.approx(3.0 * event.compute_seconds)
    assert 0.0 < grid.account_by_device[0].energy_joules < 30.0


def test_accounts_hold_the_bytes_that_were_really_sent() -> None:
    world = World([1.0, 1.0])
    grid = world.grid()
    sent = messages([1])
    grid.send_and_receive(sent)
    account = grid.account_by_device[1]
    assert list(grid.account_by_device) == [1]
    # 4 float32 after a header, under a name of one letter; and two more metrics.
    down = len(sent[0].content.array_records["a"]["w"].data)
    assert account.bytes_down == down
    assert account.bytes_up == down + len("num-examples") + len("place") + 2 * 8
    assert account.energy_joules == 3.0


def test_the_upload_of_a_trained_model_takes_as_long_as_its_download() -> None:
    slow = replace(IDEAL, down_bits_per_second=8.0, up_bits_per_second=8.0)
    grid = World([0.0], profile=slow).grid()
    sent = messages([0])
    size = len(sent[0].content.array_records["a"]["w"].data)
    grid.send_and_receive(sent)
    assert grid.clock_seconds == 2 * size
    grid.send_and_receive(messages([0], "query"))
    assert grid.clock_seconds == 3 * size + 1024


def test_pushed_messages_are_pulled_one_arrival_after_the_other() -> None:
    world = World([30.0, 10.0, 20.0], shuffled=True)
    grid = world.grid()
    waiting = list(grid.push_messages(messages(range(3))))
    seen = []
    while waiting:
        (reply,) = grid.pull_messages(waiting)
        waiting.remove(reply.metadata.reply_to_message_id)
        seen.append((one_place(reply), grid.clock_seconds))
    assert seen == [(1, 10.0), (2, 20.0), (0, 30.0)]
    assert sorted(world.ran) == [0, 1, 2]
    assert grid.pull_messages(["unknown"]) == []


def test_an_asynchronous_loop_keeps_every_device_at_work() -> None:
    # Two devices, 3 and 5 seconds; each is asked again as soon as it answered.
    grid = World([3.0, 5.0]).grid()
    waiting = set(grid.push_messages(messages(range(2))))
    seen = []
    for _ in range(6):
        for reply in list(grid.pull_messages(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
            seen.append((one_place(reply), grid.clock_seconds))
            waiting.update(grid.push_messages(messages([one_place(reply)])))
    assert seen == [(0, 3.0), (1, 5.0), (0, 6.0), (0, 9.0), (1, 10.0), (0, 12.0)]


def test_what_is_due_comes_at_once_and_in_order() -> None:
    grid = World([10.0, 10.0, 4.0, 99.0]).grid()
    early, *rest = grid.push_messages(messages(range(4)))
    assert places(grid.pull_messages([early])) == [0]
    assert grid.clock_seconds == 10.0
    assert places(grid.pull_messages(rest)) == [2, 1]
    assert grid.clock_seconds == 10.0


def test_a_pushed_message_to_an_offline_device_becomes_an_error_reply() -> None:
    never = Windows(period_seconds=9.0, windows_by_device={0: [], 1: [(0.0, 9.0)]})
    world = World([1.0, 1.0], availability=never)
    grid = world.grid()
    ids = list(grid.push_messages(messages(range(2))))
    (lost,) = grid.pull_messages(ids)
    assert lost.metadata.reply_to_message_id == ids[0]
    assert lost.error.code == ErrorCode.NODE_UNAVAILABLE
    assert places(grid.pull_messages(ids)) == [1]
    assert world.ran == [1]


def test_a_node_outside_of_the_fleet_is_left_to_the_grid_below() -> None:
    world = World([1.0])
    grid = world.grid()
    (reply,) = grid.send_and_receive(messages([77]))
    assert reply.error.reason == "node 79 is not in this grid"
    assert world.events == []


def test_events_are_in_the_order_of_time() -> None:
    world = World([float(s) for s in (9, 2, 7, 4)], drop_probability=0.4)
    grid = world.grid()
    for timeout in (None, 5.0, None):
        grid.send_and_receive(messages(range(4)), timeout=timeout)
    times = [event.received_seconds for event in world.events]
    assert len(times) == 12
    assert times == sorted(times)
    assert all(e.received_seconds <= e.clock_seconds for e in world.events)


def test_the_clock_begins_where_it_is_told_to() -> None:
    base = World([1.0]).grid().inner
    fleet = Fleet(num_devices=1, seed=0)
    grid = VirtualFleet(base, fleet, flops=lambda *_: 0.0, start_seconds=5.0)
    assert grid.clock_seconds == 5.0
    with pytest.raises(ConfigError, match="start_seconds: -1"):
        VirtualFleet(base, fleet, flops=lambda *_: 0.0, start_seconds=-1)


def test_a_million_devices_cost_nothing_until_they_are_asked() -> None:
    app = ClientApp()

    @app.train()
    def refuse(message: Message, context: Context) -> Message:
        return Message(Error(ErrorCode.UNKNOWN, "no"), reply_to=message)

    tracemalloc.start()
    try:
        base = LocalGrid(app, num_clients=10**6, workers=0)
        fleet = Fleet(num_devices=10**6, seed=0)
        grid = VirtualFleet(base, fleet, flops=lambda *_: 1.0)
        grid.send_and_receive(messages([0, 999_999]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * 2**20


def pooled(world: World, base: LocalGrid) -> VirtualFleet:
    fleet = Fleet(num_devices=6, seed=0, kinds=((ONE_FLOP_A_SECOND, 1.0),))
    return VirtualFleet(
        base,
        fleet,
        flops=lambda device, _: world.seconds[device],
        on_event=world.events.append,
    )


def total_of(world: World, *, workers: int, enough: int) -> tuple[Message, float]:
    app = world.grid().inner.client_app  # type: ignore[attr-defined]  # a LocalGrid
    with LocalGrid(app, num_clients=6, workers=workers) as base:
        grid = pooled(world, base)
        *_, total = PlainSum(grid, enough=enough).send_and_receive(messages(range(6)))
        return total, grid.clock_seconds


@pytest.mark.parametrize("enough", [0, 4])
def test_partial_sums_of_workers_change_nothing(enough: int) -> None:
    alone, together = (
        World([6.0, 1.0, 5.0, 2.0, 4.0, 3.0], broken=frozenset({1})) for _ in range(2)
    )
    one, one_clock = total_of(alone, workers=0, enough=enough)
    other, other_clock = total_of(together, workers=2, enough=enough)
    assert other.content["metrics"] == one.content["metrics"]
    assert one.content["metrics"][NUM_CLIENTS] == (enough or 5)
    assert one_clock == other_clock == (5.0 if enough else 6.0)
    # A partial sum has no parts to weigh: a share of it stands for each.
    assert [replace(e, bytes_up=0) for e in together.events] == [
        replace(e, bytes_up=0) for e in alone.events
    ]
