import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from fedge.config import FaultsConfig
from fedge.errors import ConfigError
from fedge.flower import Faults, GridLayer, LocalGrid
from fedge.flower.partial import Reduction
from fedge.flower.plain_total import PlainReduction
from fedge.flower.records import array_of, read_array


def base(num_clients: int = 200, size: int = 1) -> LocalGrid:
    """A grid whose clients answer with the group and the node they were asked as."""
    app = ClientApp()

    def handle(message: Message, context: Context) -> Message:
        text = message.metadata.group_id
        values = np.full(size, context.node_id, np.float32)
        arrays, metrics = ArrayRecord({text: array_of(values)}), MetricRecord({"x": 1})
        content = RecordDict({"a": arrays, "m": metrics})
        return Message(content, reply_to=message)

    app.train()(handle)
    app.evaluate()(handle)
    return LocalGrid(app, num_clients=num_clients, workers=0)


def dropped(
    nodes: list[int], *, seed: int = 0, group: str = "0.0", kind: str = "train"
) -> set[int]:
    grid = Faults(base(), drop_probability=0.3, seed=seed)
    messages = [Message(RecordDict(), n, kind, group_id=group) for n in nodes]
    replies = list(grid.send_and_receive(messages))
    assert len(replies) == len(nodes)
    return {reply.metadata.src_node_id for reply in replies if reply.has_error()}


NODES = list(range(2, 202))


def test_about_as_many_are_dropped_as_asked_for() -> None:
    # 200 draws of 0.3: 60, with a standard deviation of 6.5.
    assert 34 <= len(dropped(NODES)) <= 86


def test_a_fate_depends_on_seed_group_and_node_alone() -> None:
    fate = dropped(NODES)
    assert dropped(NODES[::-1]) == fate
    assert dropped(NODES[50:60]) == fate & set(NODES[50:60])
    assert dropped(NODES, seed=1) != fate
    assert dropped(NODES, group="0.1") != fate


def test_asking_again_gives_the_same_fate() -> None:
    grid = Faults(base(), drop_probability=0.3, seed=0)
    fates = [
        [
            reply.metadata.src_node_id
            for reply in grid.stream([Message(RecordDict(), n, "train") for n in NODES])
            if reply.has_error()
        ]
        for _ in range(2)
    ]
    assert fates[0] == fates[1]


def test_only_training_is_dropped() -> None:
    assert dropped(NODES, kind="evaluate") == set()


def test_nothing_is_dropped_without_a_probability() -> None:
    grid = Faults(base(3), drop_probability=0.0, seed=0)
    messages = [Message(RecordDict(), node, "train") for node in (2, 3, 4)]
    assert not any(reply.has_error() for reply in grid.stream(messages))


@pytest.mark.parametrize("probability", [-0.1, 1.0, np.nan])
def test_a_probability_must_be_below_one(probability: float) -> None:
    with pytest.raises(ConfigError, match="drop_probability"):
        Faults(base(1), drop_probability=probability, seed=0)


# -- faults of the network and of what it carries -------------------------------------


def ask(
    grid: Faults, group: str = "0.0", kind: str = "train", num: int = 40
) -> list[Message]:
    messages = [
        Message(RecordDict(), node, kind, group_id=group) for node in range(2, 2 + num)
    ]
    return list(grid.stream(messages))


def arrived(config: FaultsConfig, kind: str = "train", num: int = 40) -> list[int]:
    """Return the nodes in the order in which their replies arrive."""
    replies = ask(Faults(base(), config=config, seed=0), kind=kind, num=num)
    return [reply.metadata.src_node_id for reply in replies]


def content_of(reply: Message) -> str:
    return repr(reply.content)


EVERYTHING = FaultsConfig(
    drop=0.3,
    delay=0.3,
    duplicate=0.3,
    reorder_window=4,
    truncate=0.3,
    bit_flip=0.3,
    replay=0.3,
    nan=0.3,
)
CLEAN = list(range(2, 42))


def test_with_everything_at_once_a_run_can_be_repeated() -> None:
    runs = []
    for _ in range(2):
        grid = Faults(base(), config=EVERYTHING, seed=0)
        replies = ask(grid, "0.0") + ask(grid, "1.0")
        runs.append([repr(r.content) if r.has_content() else "" for r in replies])
    assert runs[0] == runs[1]
    assert len(runs[0]) > 2 * len(CLEAN)


def test_what_is_no_training_is_left_alone() -> None:
    assert arrived(EVERYTHING, kind="evaluate") == CLEAN


def test_a_dropped_request_never_reaches_its_device() -> None:
    grid = Faults(base(), config=FaultsConfig(drop=0.3), seed=0)
    lost = [reply for reply in ask(grid) if reply.has_error()]
    assert 4 <= len(lost) <= 20
    assert {reply.error.reason for reply in lost} == {"dropped by the fault layer"}


def test_some_replies_arrive_twice() -> None:
    times = Counter(arrived(FaultsConfig(duplicate=0.3)))
    assert list(times) == CLEAN
    assert set(times.values()) == {1, 2}


@pytest.mark.parametrize("replies", [1, 3, 1000])
def test_a_delayed_reply_arrives_behind_later_ones_and_is_not_lost(
    replies: int,
) -> None:
    order = arrived(FaultsConfig(delay=0.3, delay_replies=replies))
    assert sorted(order) == CLEAN
    late = [at - (node - 2) for at, node in enumerate(order)]
    assert 0 < max(late) <= replies


def test_replies_change_places_within_a_window() -> None:
    order = arrived(FaultsConfig(reorder_window=4))
    assert order != CLEAN
    windows = [order[start : start + 4] for start in range(0, 40, 4)]
    assert [sorted(w) for w in windows] == [CLEAN[s : s + 4] for s in range(0, 40, 4)]


def test_the_last_window_may_be_a_short_one() -> None:
    assert sorted(arrived(FaultsConfig(reorder_window=7), num=10)) == CLEAN[:10]


def test_a_replay_is_an_earlier_reply_before_the_true_one() -> None:
    grid = Faults(base(4), config=FaultsConfig(replay=0.5), seed=0)
    assert {group_in(r) for r in ask(grid, "0.0", num=4)} == {"0.0"}
    later = [reply for group in "1234567" for reply in ask(grid, group, num=4)]
    stale = [r for r in later if r.metadata.group_id != group_in(r)]
    assert not stale  # it arrives as it was sent
    own = Counter((r.metadata.src_node_id, r.metadata.group_id) for r in later)
    assert max(own.values()) >= 2
    assert "0.0" in {group_in(r) for r in later}


def group_in(reply: Message) -> str:
    """Return the group that a device was asked in, by what it answered."""
    (name,) = reply.content.array_records["a"]
    return name


def test_damage_hits_some_replies_and_is_drawn_for_each_fault() -> None:
    damaged = {}
    for name in ("truncate", "bit_flip", "nan"):
        config = FaultsConfig(**{name: 0.3})  # type: ignore[arg-type]  # a chance
        clean = ask(Faults(base(), seed=0))
        found = ask(Faults(base(), config=config, seed=0))
        pairs = zip(clean, found, strict=True)
        damaged[name] = [
            at for at, (a, b) in enumerate(pairs) if a.content != b.content
        ]
        assert 4 <= len(damaged[name]) <= 20
    assert len({tuple(places) for places in damaged.values()}) == 3


class Watching(GridLayer):
    """Remembers whether replies might be added up below."""

    def __init__(self) -> None:
        super().__init__(base())
        self.reductions: list[Reduction | None] = []

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        self.reductions.append(reduction)
        return super().stream(messages, timeout=timeout)


@pytest.mark.parametrize(
    ("config", "kind", "passes"),
    [
        (FaultsConfig(drop=0.5), "train", True),
        (FaultsConfig(client_crash=0.5, disk_full_round=1), "train", True),
        (FaultsConfig(nan=0.1), "train", False),
        (FaultsConfig(nan=0.1), "evaluate", True),
        (FaultsConfig(reorder_window=2), "train", False),
        (FaultsConfig(replay=0.1), "train", False),
    ],
)
def test_replies_are_added_up_below_only_if_none_of_them_is_touched(
    config: FaultsConfig, kind: str, *, passes: bool
) -> None:
    inner, wanted = Watching(), PlainReduction()
    messages = [Message(RecordDict(), node, kind) for node in (2, 3)]
    list(Faults(inner, config=config, seed=0).stream(messages, reduction=wanted))
    assert inner.reductions == [wanted if passes else None]


def test_memory_is_that_of_a_few_replies_whatever_the_cohort() -> None:
    size, config = (
        25_000,
        FaultsConfig(
            delay=0.3,
            delay_replies=3,
            duplicate=0.3,
            replay=0.3,
            nan=0.3,
            reorder_window=4,
        ),
    )
    grid = Faults(base(200, size), config=config, seed=0)
    messages = [Message(RecordDict(), node, "train") for node in NODES]
    tracemalloc.start()
    try:
        num_replies = sum(1 for _ in grid.stream(messages))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_replies > 200
    # Held: 3 + 4 and 4 earlier ones; at work: some copies of one. All would be 200.
    assert peak < 25 * 4 * size


@given(seed=st.integers(0, 2**32))
def test_nothing_is_made_up(seed: int) -> None:
    """Undamaged, each reply that arrives is one that a device has sent."""
    config = FaultsConfig(delay=0.5, duplicate=0.5, replay=0.5, reorder_window=3)
    grid = Faults(base(5), config=config, seed=seed)
    for group in ("0.0", "1.0"):
        replies = ask(grid, group, num=5)
        for reply in replies:
            (array,) = reply.content.array_records["a"].values()
            assert read_array(array)[0] == reply.metadata.src_node_id
            assert group_in(reply) == reply.metadata.group_id
        now = {r.metadata.src_node_id for r in replies if group_in(r) == group}
        assert now == {2, 3, 4, 5, 6}
