import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedge.config.fleet import AvailabilityKind, FleetConfig
from fedge.fleet import IDEAL, DeviceProfile, Event, Fleet, make_fleet, read_trace
from fedge.fleet.trace import write_trace
from fedge.flower import GridLayer, LocalGrid
from fedge.flower.partial import Reduction
from fedge.flower.recorder import Recorder
from fedge.flower.virtual_fleet import VirtualFleet


def base(**metrics: float) -> LocalGrid:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            raise RuntimeError("broken")
        content = RecordDict({"m": MetricRecord({"x": 1, **metrics})})
        return Message(content, reply_to=message)

    return LocalGrid(app, num_clients=3, workers=0)


class Silent(GridLayer):
    """Takes every message and answers none."""

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        list(messages)
        yield from ()


def ticking() -> Callable[[], float]:
    """Return a clock on which a second passes with every look."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def ask(nodes: list[int]) -> list[Message]:
    content = RecordDict({"m": MetricRecord({"ab": 1})})
    return [Message(content, node, "train", group_id="0.0") for node in nodes]


def test_a_row_is_written_for_every_reply(tmp_path: Path) -> None:
    with Recorder(base(), tmp_path / "t.csv", clock=ticking()) as grid:
        replies = list(grid.send_and_receive(ask([4, 3, 77])))
    assert len(replies) == 3
    rows = read_trace(tmp_path / "t.csv")
    assert [(row.device, row.outcome) for row in rows] == [
        (2, "ok"),
        (1, "failed"),
        (0, "offline"),  # no such node: numbered as it was first seen
    ]
    assert [row.received_seconds - row.sent_seconds for row in rows] == [1.0, 1.0, 1.0]
    assert (rows[0].bytes_down, rows[0].bytes_up) == (2 + 8, 1 + 8)
    assert (rows[0].compute_seconds, rows[0].group) == (1.0, "0.0")


def test_a_row_is_there_before_the_reply_is_handed_on(tmp_path: Path) -> None:
    with Recorder(base(), tmp_path / "t.csv") as grid:
        for number, _ in enumerate(grid.stream(ask([2, 4])), 1):
            assert len(read_trace(tmp_path / "t.csv")) == number


def test_a_reply_may_say_how_long_its_device_computed(tmp_path: Path) -> None:
    inner = base(**{"compute-seconds": 0.25})
    with Recorder(inner, tmp_path / "t.csv", clock=ticking()) as grid:
        list(grid.stream(ask([2])))
    assert read_trace(tmp_path / "t.csv")[0].compute_seconds == 0.25


@pytest.mark.parametrize("told", [-1.0, 99.0, float("nan")])
def test_a_device_cannot_claim_what_is_impossible(tmp_path: Path, told: float) -> None:
    inner = base(**{"compute-seconds": told})
    with Recorder(inner, tmp_path / "t.csv", clock=ticking()) as grid:
        list(grid.stream(ask([2])))
    assert read_trace(tmp_path / "t.csv")[0].compute_seconds == 1.0


def test_who_was_not_waited_for_is_recorded_too(tmp_path: Path) -> None:
    with Recorder(base(), tmp_path / "t.csv") as grid:
        stream = grid.stream(iter(ask([2, 4])))
        next(iter(stream))
        stream.close()  # type: ignore[attr-defined]  # it is a generator
    rows = read_trace(tmp_path / "t.csv")
    # The second client was never asked: this grid takes message after message.
    assert [row.outcome for row in rows] == ["ok"]


def test_who_did_not_answer_in_time_is_recorded_too(tmp_path: Path) -> None:
    with Recorder(Silent(base()), tmp_path / "t.csv") as grid:
        assert list(grid.send_and_receive(ask([2, 4]))) == []
    rows = read_trace(tmp_path / "t.csv")
    assert [(row.device, row.outcome) for row in rows] == [(0, "late"), (2, "late")]


def test_pushed_messages_are_recorded_when_they_are_pulled(tmp_path: Path) -> None:
    with Recorder(base(), tmp_path / "t.csv", clock=ticking()) as grid:
        ids = list(grid.push_messages(ask([2, 4])))
        assert len(list(grid.pull_messages(ids))) == 2
    rows = read_trace(tmp_path / "t.csv")
    assert [(row.device, row.received_seconds - row.sent_seconds) for row in rows] == [
        (0, 1.0),
        (2, 2.0),
    ]


def test_recording_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for _ in range(2):
        with Recorder(base(), tmp_path / "t.csv") as grid:
            list(grid.stream(ask([2])))
    assert len(read_trace(tmp_path / "t.csv")) == 2


SLOW = DeviceProfile(
    name="slow",
    flops_per_second=1.0,
    memory_bytes=IDEAL.memory_bytes,
    down_bits_per_second=8.0,
    up_bits_per_second=16.0,
    latency_seconds=0.0,
    idle_watts=0.0,
    compute_watts=2.0,
    radio_watts=2.0,
)


def virtual(fleet: Fleet, nodes: list[int]) -> tuple[list[Event], float]:
    events: list[Event] = []
    grid = VirtualFleet(
        base(), fleet, flops=lambda device, _: 10.0 + device, on_event=events.append
    )
    for _ in range(3):
        list(grid.send_and_receive(ask(nodes)))
    return events, grid.clock_seconds


def test_a_recorded_fleet_replays_itself(tmp_path: Path) -> None:
    original = Fleet(num_devices=3, seed=0, kinds=((SLOW, 1.0),))
    recorded, clock = virtual(original, [2, 4])
    write_trace(tmp_path / "t.csv", recorded)
    config = FleetConfig(
        availability=AvailabilityKind.trace, path=str(tmp_path / "t.csv")
    )
    fleet = make_fleet(config, num_devices=3, seed=0)
    # Two devices were recorded: they are now the first and the second one.
    replayed, again = virtual(fleet, [2, 3])
    assert again == pytest.approx(clock)
    times = [(event.sent_seconds, event.compute_seconds) for event in replayed]
    assert times == [(e.sent_seconds, e.compute_seconds) for e in recorded]
    assert [event.energy_joules for event in replayed] == pytest.approx(
        [event.energy_joules for event in recorded]
    )


def test_errors_pass_unchanged(tmp_path: Path) -> None:
    with Recorder(base(), tmp_path / "t.csv") as grid:
        codes = [r.error.code for r in grid.stream(ask([3])) if r.has_error()]
    assert codes == [ErrorCode.CLIENT_APP_RAISED_EXCEPTION]
