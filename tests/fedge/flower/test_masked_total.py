"""Masked updates added up in a worker are the sum that adding them one by one gives."""

from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.flower import LocalGrid
from fedge.flower.masked_total import MaskedReduction, partial_sum_of
from fedge.flower.reductions import make_reduction
from fedge.flower.secure_messages import VECTOR, vector_record
from fedge.secagg.packing import add_packed, pack
from fedge.secagg.ring import PROFILES, Profile

SIZE = 7
EVERY_RING = pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)


@pytest.fixture(autouse=True, scope="module")
def grid() -> Iterator[LocalGrid]:
    """Flower makes messages only in the process of a task."""
    with LocalGrid(ClientApp(), num_clients=1, workers=0) as made:
        yield made


def packed(node: int, profile: Profile) -> bytes:
    codes = np.random.default_rng(node).integers(0, 2**profile.ring_bits, SIZE)
    return pack(codes.astype(profile.dtype), profile)


def reply(node: int, data: bytes) -> Message:
    content = RecordDict({VECTOR: vector_record(data)})
    return Message(content, reply_to=Message(RecordDict(), node, "train"))


@EVERY_RING
@settings(deadline=None, max_examples=20)
@given(nodes=st.lists(st.integers(2, 99), unique=True, min_size=1, max_size=9))
def test_the_sum_is_that_of_adding_one_by_one(
    profile: Profile, nodes: list[int]
) -> None:
    total, expected = (
        MaskedReduction(profile, SIZE).start(),
        np.zeros(SIZE, profile.dtype),
    )
    for node in nodes:
        total.add(reply(node, packed(node, profile)))
        add_packed(expected, packed(node, profile), profile)
    ((found_nodes, content),) = total.contents()
    assert list(found_nodes) == nodes
    np.testing.assert_array_equal(partial_sum_of(content), expected)


@EVERY_RING
def test_what_does_not_fit_changes_nothing(profile: Profile) -> None:
    total, data = MaskedReduction(profile, SIZE).start(), packed(2, profile)
    total.add(reply(2, data))
    for bad in (reply(2, data), reply(3, data[:-1]), reply(4, data + b"\0")):
        with pytest.raises(PeerError):
            total.add(bad)
    with pytest.raises(PeerError, match="no vector"):
        total.add(Message(RecordDict(), reply_to=Message(RecordDict(), 5, "train")))
    ((nodes, content),) = total.contents()
    assert list(nodes) == [2]
    expected = np.zeros(SIZE, profile.dtype)
    add_packed(expected, data, profile)
    np.testing.assert_array_equal(partial_sum_of(content), expected)


def test_nothing_added_is_no_partial_sum() -> None:
    profile = next(iter(PROFILES.values()))
    assert MaskedReduction(profile, SIZE).start().contents() == []


@EVERY_RING
def test_settings_survive_the_trip_to_a_worker(profile: Profile) -> None:
    wanted = MaskedReduction(profile, SIZE)
    assert make_reduction(wanted.kind, wanted.to_json()) == wanted
    assert wanted.enough == 0
