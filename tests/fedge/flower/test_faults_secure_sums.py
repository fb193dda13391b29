"""Under masks, too: a sum is exactly that of the vectors that arrived whole."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from hypothesis import given
from hypothesis import strategies as st

from fedge.config import FaultsConfig, SecAggConfig, SecAggMode
from fedge.flower import Faults, GridLayer, PlainSum, SecureSum, stream_replies
from fedge.flower.checksums import Checksums
from fedge.flower.damage import bit_flipped
from fedge.flower.partial import Reduction
from fedge.flower.records import array_of, read_array
from fedge.flower.secure_messages import VECTOR, Step, step_of
from tests.fedge.flower.known_clients import (
    FEW,
    GROUPS,
    NODES,
    SIZE,
    Tap,
    ask,
    base,
    mean_over,
)

MODEL = RecordDict({"arrays": ArrayRecord({"w": array_of(np.zeros(SIZE, np.float32))})})
# One rounding of each of 10 clients: clip / weight code, weight code about Q * 12 / 32.
TOLERANCE = 1.0 / (32767 * 12 / 32)


def secure(grid: Grid, mode: SecAggMode = SecAggMode.semi_honest) -> SecureSum:
    return SecureSum(grid, SecAggConfig(mode=mode, max_weight=32.0, min_cohort=5))


def check_secure_sum(config: FaultsConfig, seed: int, mode: SecAggMode) -> int:
    """Check each round's sum; return how many rounds had one."""
    checked = config.needs_checksums
    faulty = Faults(base(secure=True, checked=checked), config=config, seed=seed)
    tap = Tap(Checksums(faulty) if checked else faulty)
    layer, num_sums = secure(tap, mode), 0
    for group in GROUPS:
        tap.passed.clear()
        good = [reply for reply in ask(layer, group, MODEL) if reply.has_content()]
        arrived = sorted(
            {
                reply.metadata.src_node_id
                for reply in tap.passed
                if reply.has_content()
                and VECTOR in reply.content
                and reply.metadata.group_id == group
            }
        )
        for reply in good:
            num_sums += 1
            found = read_array(reply.content.array_records["arrays"]["w"])
            expected = mean_over(arrived, group)
            np.testing.assert_allclose(found, expected, atol=TOLERANCE)
            num_clients = reply.content.metric_records["metrics"]["num-clients"]
            assert num_clients == len(arrived)
    return num_sums


MASKED = {
    "drop": FaultsConfig(drop=0.1),
    "delay": FaultsConfig(delay=0.5, reorder_window=3),
    "truncate": FaultsConfig(truncate=0.1),
    "bit_flip": FaultsConfig(bit_flip=0.1),
    "duplicate": FaultsConfig(duplicate=0.5),
    "nan": FaultsConfig(nan=0.8, checksums=False),
    "all": FaultsConfig(
        drop=0.03, delay=0.3, duplicate=0.3, bit_flip=0.03, truncate=0.03
    ),
}


@pytest.mark.parametrize("mode", [SecAggMode.semi_honest, SecAggMode.malicious])
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_sum_is_that_of_the_vectors_that_arrived_whole(
    name: str, mode: SecAggMode
) -> None:
    config = MASKED[name]
    sums = [check_secure_sum(config, seed, mode) for seed in range(5)]
    assert sum(sums) > 0


@pytest.mark.parametrize("mode", [SecAggMode.semi_honest, SecAggMode.malicious])
@pytest.mark.parametrize("seed", range(3))
def test_a_stale_reply_is_in_no_masked_sum(seed: int, mode: SecAggMode) -> None:
    assert check_secure_sum(FaultsConfig(replay=0.5), seed, mode) == len(GROUPS)


@pytest.mark.parametrize("secretly", [False, True])
def test_a_reply_of_a_device_that_was_not_asked_changes_nothing(
    *, secretly: bool
) -> None:
    config = FaultsConfig(replay=0.9)
    faulty = Faults(base(secure=secretly, checked=False), config=config, seed=0)
    layer = secure(faulty) if secretly else PlainSum(faulty)
    for group, nodes in (("0.0", NODES[:7]), ("1.0", NODES[3:])):
        messages = [Message(MODEL, node, "train", group_id=group) for node in nodes]
        (good,) = [reply for reply in layer.stream(messages) if reply.has_content()]
        found = read_array(good.content.array_records["arrays"]["w"])
        np.testing.assert_allclose(found, mean_over(nodes, group), atol=TOLERANCE)


class MaskFlip(GridLayer):
    """Turns the lowest bit of each masked vector of one node."""

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        for reply in stream_replies(self.inner, messages, timeout=timeout):
            is_first = reply.metadata.src_node_id == NODES[0]
            if is_first and reply.has_content() and VECTOR in reply.content:
                array = reply.content.array_records[VECTOR]["data"]
                array.data = bytes([array.data[0] ^ 1]) + array.data[1:]
            yield reply


def test_without_checksums_a_flip_under_masks_moves_one_coordinate() -> None:
    """The limit: masks hide, they do not authenticate what they hide."""
    layer = secure(MaskFlip(base(secure=True, checked=False)))
    (reply,) = [r for r in ask(layer, "0.0", MODEL) if r.has_content()]
    (clean,) = ask(secure(base(secure=True, checked=False)), "0.0", MODEL)
    found, expected = (
        read_array(r.content.array_records["arrays"]["w"]) for r in (reply, clean)
    )
    assert np.flatnonzero(found != expected).tolist() == [0]
    assert np.isfinite(found).all()


class ProtocolFlip(GridLayer):
    """Turns a bit of what one node answers to one step of the protocol."""

    def __init__(self, inner: Grid, step: Step, choice: int) -> None:
        super().__init__(inner)
        self.step, self.choice = step, choice

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        sent = list(messages)
        is_hit = step_of(sent[0].content) is self.step
        for reply in stream_replies(self.inner, sent, timeout=timeout):
            if is_hit and reply.metadata.src_node_id == NODES[0]:
                reply.content = bit_flipped(reply.content, self.choice)
            yield reply


@FEW
@given(
    step=st.sampled_from([Step.hello, Step.fit, Step.confirm, Step.unmask]),
    choice=st.integers(0, 2**64 - 1),
)
def test_without_checksums_a_flip_in_the_protocol_spoils_no_masked_sum(
    step: Step, choice: int
) -> None:
    flipping = ProtocolFlip(base(secure=True, checked=False), step, choice)
    layer = secure(flipping, SecAggMode.malicious)
    (good,) = [r for r in ask(layer, "0.0", MODEL) if r.has_content()]
    # Who fails to sign or to unmask has given its update already.
    left = NODES if step in (Step.confirm, Step.unmask) else NODES[1:]
    found = read_array(good.content.array_records["arrays"]["w"])
    np.testing.assert_allclose(found, mean_over(left, "0.0"), atol=TOLERANCE)


def test_with_checksums_such_a_flip_costs_only_its_device() -> None:
    layer = secure(Checksums(MaskFlip(base(secure=True))))
    replies = ask(layer, "0.0", MODEL)
    (good,) = [reply for reply in replies if reply.has_content()]
    found = read_array(good.content.array_records["arrays"]["w"])
    np.testing.assert_allclose(found, mean_over(NODES[1:], "0.0"), atol=TOLERANCE)
