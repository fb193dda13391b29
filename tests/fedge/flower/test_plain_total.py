"""However replies are grouped into partial sums, the result is the same to the bit."""

from collections.abc import Iterator, Sequence
from random import Random

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import AnyArray
from fedge.errors import PeerError
from fedge.flower import LocalGrid
from fedge.flower.batching import Stacked
from fedge.flower.codec import (
    Blobs,
    decode_content,
    encode_content,
    from_text,
    to_text,
)
from fedge.flower.partial import is_partial, make_partial, nodes_of, payload_of
from fedge.flower.plain_total import Layout, PlainReduction, PlainTotal
from fedge.flower.records import array_of, payload_bytes
from fedge.flower.reductions import make_reduction

SIZE, MAX_LAYOUTS = 5, 8
LAYOUT = Layout("a", "m", (("w", "float32", (SIZE,)),), ("loss",))


@pytest.fixture(autouse=True, scope="module")
def grid() -> Iterator[LocalGrid]:
    """Flower makes messages only in the process of a task."""
    with LocalGrid(ClientApp(), num_clients=1, workers=0) as made:
        yield made


def reply(node: int, *, size: int = SIZE, weight: float = 0.0) -> Message:
    rng = np.random.default_rng(node)
    arrays = ArrayRecord({"w": array_of(rng.normal(size=size).astype(np.float32))})
    own = {"num-examples": weight or float(rng.uniform(0.1, 99.0)), "loss": node / 7}
    content = RecordDict({"a": arrays, "m": MetricRecord(dict(own))})
    return Message(content, reply_to=Message(RecordDict(), node, "train"))


def total_of(
    replies: Sequence[Message], made: PlainReduction | None = None
) -> PlainTotal:
    total = (made or PlainReduction()).start()
    for one in replies:
        total.add(one)
    return total


def travelled(content: RecordDict) -> RecordDict:
    """Return a content as another process receives it."""
    blobs = Blobs()
    text = to_text(encode_content(content, blobs))
    return decode_content(from_text(text), blobs.items)


def merged(groups: Sequence[Sequence[Message]]) -> PlainTotal:
    """Add each group up on its own, and then the sums."""
    total = PlainReduction().start()
    for group in groups:
        for nodes, content in total_of(group).contents():
            total.merge(travelled(content), nodes)
    return total


def metrics_of(total: PlainTotal) -> MetricRecord:
    content, _ = total.close()
    assert content is not None
    return content.metric_records["m"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.randoms())
def test_no_grouping_changes_a_bit(groups: list[int], random: Random) -> None:
    replies = [reply(2 + i, size=SIZE + (i % 4 == 3)) for i in range(len(groups))]
    parts = [
        [r for r, g in zip(replies, groups, strict=True) if g == group]
        for group in range(4)
    ]
    random.shuffle(parts)
    assert merged(parts).close() == total_of(replies).close()


def test_a_sum_of_sums_may_travel_again() -> None:
    replies = [reply(node) for node in range(2, 9)]
    first = merged([replies[:2], replies[2:5]])
    again = PlainReduction().start()
    for nodes, content in first.contents():
        again.merge(travelled(content), nodes)
    for one in replies[5:]:
        again.add(one)
    assert again.close() == total_of(replies).close()


@pytest.mark.parametrize("odd_first", [True, False])
def test_the_layout_that_most_share_wins_whenever_the_others_come(
    *, odd_first: bool
) -> None:
    odd, good = reply(9, size=SIZE + 1), [reply(2), reply(3)]
    total = total_of([odd, *good] if odd_first else [*good, odd])
    assert total.num_clients == 2
    content, left_out = total.close()
    assert content == total_of(good).close()[0]
    assert left_out == [9]


def test_of_two_equally_frequent_layouts_the_one_of_the_smallest_node_wins() -> None:
    small, large = reply(5), reply(3, size=SIZE + 1)
    assert total_of([small, large]).close()[1] == [5]
    assert merged([[small], [large]]).close()[1] == [5]


def test_a_node_is_added_once() -> None:
    total = total_of([reply(2), reply(3)])
    before = total.contents()[0][1]
    with pytest.raises(PeerError, match="added already"):
        total.add(reply(2))
    ((nodes, content),) = total_of([reply(3), reply(4)]).contents()
    with pytest.raises(PeerError, match="added already"):
        total.merge(travelled(content), nodes)
    assert total.contents() == [([2, 3], before)]
    total.add(reply(4))


def test_of_too_many_layouts_the_rarest_is_dropped_and_told() -> None:
    frequent = [reply(40, size=1), reply(50, size=1)]
    odd = [reply(2 + i, size=2 + i) for i in range(MAX_LAYOUTS + 3)]
    total = total_of([*frequent, *odd])
    assert len(total.contents()) == MAX_LAYOUTS
    content, left_out = total.close()
    assert content == total_of(frequent).close()[0]
    assert left_out == nodes_in(odd)


def test_a_few_odd_replies_that_come_first_do_not_shut_out_the_cohort() -> None:
    odd = [reply(2 + i, size=10 + i) for i in range(MAX_LAYOUTS)]
    good = [reply(100 + i) for i in range(3)]
    total = total_of([*odd, *good])
    assert total.num_clients == len(good)
    assert total.close()[1] == nodes_in(odd)


def nodes_in(replies: Sequence[Message]) -> list[int]:
    return [one.metadata.src_node_id for one in replies]


def test_a_refused_reply_of_one_more_layout_drops_nothing() -> None:
    total = total_of([reply(2 + i, size=1 + i) for i in range(MAX_LAYOUTS)])
    with pytest.raises(PeerError, match="weight"):
        total.add(reply(99, size=99, weight=-1.0))
    assert len(total.contents()) == MAX_LAYOUTS


def test_who_was_dropped_from_a_partial_sum_is_told_in_the_end() -> None:
    replies = [reply(2 + i, size=1 + i) for i in range(MAX_LAYOUTS + 2)]
    assert merged([replies]).close() == total_of(replies).close()


def test_the_largest_metrics_have_a_mean() -> None:
    """Weights whose sum is rounded down must not push the mean out of range."""
    largest = float(np.finfo(np.float64).max)
    replies = [reply(2, weight=0.763774618976614), reply(3, weight=0.2550690257394217)]
    for one in replies:
        one.content.metric_records["m"]["loss"] = largest
    assert metrics_of(total_of(replies))["loss"] == largest


def test_what_was_expected_is_all_that_is_added() -> None:
    expecting = PlainReduction(expect=LAYOUT)
    assert total_of([reply(2)], expecting).num_clients == 1
    with pytest.raises(PeerError, match="other arrays or metrics than were asked for"):
        total_of([reply(2, size=SIZE + 1)], expecting)


def test_a_refused_reply_leaves_no_layout_behind() -> None:
    total = PlainReduction().start()
    with pytest.raises(PeerError, match="weight"):
        total.add(reply(2, weight=-1.0))
    assert total.contents() == []
    assert total.close() == (None, [])


def test_settings_survive_the_trip_to_a_worker() -> None:
    wanted = PlainReduction("n", LAYOUT, 7)
    assert make_reduction(wanted.kind, wanted.to_json()) == wanted
    assert make_reduction("plain", PlainReduction().to_json()) == PlainReduction()


def test_a_partial_sum_says_whose_it_is_and_what_it_saved() -> None:
    replies = [reply(2), reply(3)]
    ((nodes, content),) = total_of(replies).contents()
    made = make_partial(replies[0], travelled(content), nodes, num_bytes=123)
    assert is_partial(made)
    assert (nodes_of(made), payload_of(made)) == ([2, 3], 123)
    assert not is_partial(replies[0])
    assert nodes_of(replies[0]) == [2]
    assert payload_of(replies[0]) == payload_bytes(replies[0].content)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 2**32))
def test_stacked_replies_are_added_as_if_one_by_one(
    num: int, split: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    arrays: dict[str, AnyArray] = {
        "w": rng.normal(size=(num, 2, 3)).astype(np.float32),
        "n": rng.integers(-9, 9, (num, 2)),
    }
    metrics = {"num-examples": rng.uniform(0.1, 9, num), "loss": rng.normal(size=num)}
    stacked = Stacked(arrays, metrics, "a", "m")
    nodes, together = list(range(2, 2 + num)), PlainReduction().start()
    together.add_stacked(nodes, stacked)
    singles = [
        Message(stacked.content(row), reply_to=Message(RecordDict(), node, "train"))
        for row, node in enumerate(nodes)
    ]
    assert together.close() == total_of(singles).close()
    assert together.close() == merged([singles[:split], singles[split:]]).close()


@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, 2.0**30], [np.nan, 1.0]])
def test_stacked_replies_with_a_bad_weight_change_nothing(weights: list[float]) -> None:
    total = PlainReduction().start()
    metrics = {"num-examples": np.array(weights)}
    with pytest.raises(PeerError, match="weight"):
        total.add_stacked([2, 3], Stacked({"w": np.ones((2, 3))}, metrics))
    assert total.close() == (None, [])
