"""Whatever the network does: a sum is exactly that of what arrived whole, each once."""

from collections.abc import Sequence

import numpy as np
import pytest
from flwr.app import Message
from hypothesis import given
from hypothesis import strategies as st

from fedge.config import FaultsConfig
from fedge.flower import Faults, PlainSum
from fedge.flower.checksums import Checksums
from fedge.flower.records import read_array
from tests.fedge.flower.known_clients import (
    FEW,
    GROUPS,
    NODES,
    NUM_CLIENTS,
    Tap,
    answer_of,
    ask,
    base,
    mean_over,
)

CHANCE = st.sampled_from([0.0, 0.1, 0.4, 0.8])
TWICE = ("duplicate", "replay")
SEEDS = st.integers(0, 2**32)


def whole(passed: Sequence[Message], group: str) -> list[int]:
    """Return the nodes of which this round's own answer arrived unchanged."""
    answers = {node: repr(answer_of(node, group)) for node in NODES}
    return sorted(
        {
            reply.metadata.src_node_id
            for reply in passed
            if reply.has_content()
            and repr(reply.content) == answers[reply.metadata.src_node_id]
        }
    )


def check_plain_sum(config: FaultsConfig, seed: int) -> None:
    checked = config.needs_checksums
    faulty = Faults(base(checked=checked), config=config, seed=seed)
    tap = Tap(Checksums(faulty) if checked else faulty)
    for group in GROUPS:
        tap.passed.clear()
        good = [reply for reply in ask(PlainSum(tap), group) if reply.has_content()]
        arrived = whole(tap.passed, group)
        assert len(good) == bool(arrived)
        for reply in good:
            found = read_array(reply.content.array_records["arrays"]["w"])
            np.testing.assert_array_equal(found, mean_over(arrived, group))
            metrics = reply.content.metric_records["metrics"]
            assert metrics["num-clients"] == len(arrived)
            assert metrics["num-examples"] == sum(10 + node for node in arrived)


def mixes(*, twice: bool) -> st.SearchStrategy[FaultsConfig]:
    """Faults of every kind; those by which something comes twice only if asked for."""
    names = ["drop", "delay", "truncate", "bit_flip", "nan", *(TWICE if twice else ())]
    return st.builds(
        FaultsConfig,
        delay_replies=st.integers(1, 5),
        reorder_window=st.integers(1, 5),
        **dict.fromkeys(names, CHANCE),
    )


@FEW
@given(config=mixes(twice=False), seed=SEEDS)
def test_a_plain_sum_is_that_of_the_replies_that_arrived_whole(
    config: FaultsConfig, seed: int
) -> None:
    check_plain_sum(config, seed)


@FEW
@given(config=mixes(twice=True), seed=SEEDS)
def test_nothing_that_arrives_twice_or_late_is_in_a_plain_sum_twice(
    config: FaultsConfig, seed: int
) -> None:
    check_plain_sum(config, seed)


@pytest.mark.parametrize("fault", ["duplicate", "replay"])
def test_a_second_or_stale_reply_is_not_added(fault: str) -> None:
    config = FaultsConfig(**{fault: 0.8})  # type: ignore[arg-type]  # a chance
    check_plain_sum(config, 1)


@pytest.mark.parametrize("fault", ["nan", "truncate"])
def test_without_checksums_what_is_no_number_or_too_short_is_left_out(
    fault: str,
) -> None:
    config = FaultsConfig(**{fault: 0.5}, checksums=False)  # type: ignore[arg-type]
    tap = Tap(Faults(base(checked=False), config=config, seed=0))
    (reply, *_) = [r for r in ask(PlainSum(tap), "0.0") if r.has_content()]
    arrived = whole(tap.passed, "0.0")
    found = read_array(reply.content.array_records["arrays"]["w"])
    assert 0 < len(arrived) < NUM_CLIENTS
    np.testing.assert_array_equal(found, mean_over(arrived, "0.0"))


def test_without_checksums_a_flip_that_leaves_numbers_is_in_a_plain_sum() -> None:
    """The limit: no sum can tell such a value from what a device has learned."""
    config = FaultsConfig(bit_flip=0.8, checksums=False)
    tap = Tap(Faults(base(checked=False), config=config, seed=0))
    (reply, *_) = [r for r in ask(PlainSum(tap), "0.0") if r.has_content()]
    arrived = whole(tap.passed, "0.0")
    num_added = reply.content.metric_records["metrics"]["num-clients"]
    found = read_array(reply.content.array_records["arrays"]["w"])
    assert isinstance(num_added, int)
    assert num_added > len(arrived)
    assert np.isfinite(found).all()
