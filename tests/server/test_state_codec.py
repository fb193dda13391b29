from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedge.aggregation import UpdateMatrix
from fedge.errors import JournalError
from fedge.flower.adapter import FlowerStrategy
from fedge.strategy import Needs, Strategy
from server.model_state import ModelState
from server.state_codec import from_bytes, to_bytes
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedprox import FedProx
from strategies.fedyogi import FedYogi

PARAMS = np.linspace(-1, 1, 10, dtype=np.float32)
UPDATES = UpdateMatrix(
    deltas=np.random.default_rng(0).normal(size=(7, 10)).astype(np.float32),
    weights=np.arange(1.0, 8.0),
    losses=np.ones(7),
)


def assert_same(one: Any, other: Any) -> None:  # noqa: ANN401 - any state
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert one.tobytes() == other.tobytes()
    elif hasattr(one, "__dataclass_fields__"):
        for part in fields(one):
            assert_same(getattr(one, part.name), getattr(other, part.name))
    elif isinstance(one, Mapping):
        assert list(one) == list(other)
        for name in one:
            assert_same(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert repr(one) == repr(other)  # -0.0 and NaN too


STRATEGIES: dict[str, Strategy[Any]] = {
    "FedAvg": FedAvg(),
    "FedProx": FedProx(),
    "FedAvgM": FedAvgM(),
    "FedAdam": FedAdam(),
    "FedAdagrad": FedAdagrad(),
    "FedYogi": FedYogi(),
    "flower.FedAdam": FlowerStrategy(flower.FedAdam, {}),
    "flower.FedAvgM": FlowerStrategy(flower.FedAvgM, {"server_momentum": 0.9}),
    "flower.FedMedian": FlowerStrategy(flower.FedMedian, {}),
    "flower.QFedAvg": FlowerStrategy(
        flower.QFedAvg, {"client_learning_rate": 0.1, "q": 0.2}
    ),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategys_state_comes_back_and_goes_on_alike(name: str) -> None:
    strategy = STRATEGIES[name]
    total = UPDATES.total() if strategy.needs is Needs.SUM else UPDATES
    start = strategy.init(PARAMS)
    state = strategy.apply(strategy.apply(start, total), total)
    mask = np.arange(10) % 3 > 0
    whole = ModelState(state, np.ones(2, np.float32), mask)
    prototype = ModelState(start, np.ones(2, np.float32), None)
    back = from_bytes(prototype, to_bytes(whole))
    assert_same(back, whole)
    there = strategy.apply(back.strategy_state, total)
    assert_same(there, strategy.apply(state, total))


def test_equal_states_have_equal_bytes() -> None:
    state = FedAdam().init(PARAMS)
    assert to_bytes(state) == to_bytes(from_bytes(state, to_bytes(state)))


@dataclass(frozen=True, slots=True)
class Anything:
    params: np.ndarray[Any, Any]
    value: Any = None


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ARRAYS = st.sampled_from(["<f4", "<f8", "<i8", "|u1", "|b1", "<f2"]).flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
)
NAMES = st.text("ab/$0", max_size=3) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(VALUES)
def test_nested_values_come_back_bit_for_bit(value: Any) -> None:  # noqa: ANN401
    state = Anything(PARAMS, value)
    assert_same(from_bytes(Anything(PARAMS), to_bytes(state)), state)


def test_names_with_slashes_do_not_collide() -> None:
    value = {"a/b": np.zeros(1), "a": {"b": np.ones(1)}}
    back = from_bytes(Anything(PARAMS), to_bytes(Anything(PARAMS, value)))
    assert back.value["a/b"] == 0.0
    assert back.value["a"]["b"] == 1.0


def test_a_field_that_is_a_tuple_stays_one() -> None:
    state = Anything(PARAMS, (1, 2.5))
    assert from_bytes(state, to_bytes(state)).value == (1, 2.5)
    assert from_bytes(Anything(PARAMS), to_bytes(state)).value == [1, 2.5]


@pytest.mark.parametrize(
    "value",
    [
        b"bytes",
        {1, 2},
        object(),
        1j,
        np.array(["text"]),
        np.array([None]),
        np.zeros(1, np.complex128),
        {1: "a"},
        {"$array": "a"},
        {"$array": 1, "b": 2},
    ],
)
def test_what_cannot_come_back_is_not_stored(value: object) -> None:
    with pytest.raises(TypeError, match="state: cannot store"):
        to_bytes(Anything(PARAMS, value))


def test_another_classs_state_is_refused() -> None:
    stored = to_bytes(FedAdam().init(PARAMS))
    with pytest.raises(JournalError, match="damaged, or not a FedAvgState"):
        from_bytes(FedAvg().init(PARAMS), stored)
    with pytest.raises(JournalError, match="damaged, or not a AdaptiveState"):
        from_bytes(FedAdam().init(PARAMS), to_bytes(FedAvg().init(PARAMS)))


def crafted(skeleton: str) -> bytes:
    import json

    header = json.dumps({"__metadata__": {"skeleton": skeleton}}).encode()
    return len(header).to_bytes(8, "little") + header


HOSTILE = {
    "nothing": b"",
    "text": b"hello, this is no state",
    "header of 2**63": b"\xff" * 8 + b"{}",
    "header is a list": b"\x02" + b"\0" * 7 + b"[]",
    "header is no utf-8": b"\x02" + b"\0" * 7 + b"\xff\xfe",
    "no skeleton": b"\x02" + b"\0" * 7 + b"{}",
    "skeleton is no JSON": crafted("{"),
    "skeleton is a number": crafted("1"),
    "deep skeleton": crafted("[" * 50_000),
    "deep but valid skeleton": crafted("[" * 900 + "]" * 900),
    "missing field": crafted("{}"),
    "unknown field": crafted('{"params": 1, "value": 2, "more": 3}'),
    "missing array": crafted('{"params": {"$array": "0"}, "value": 1}'),
    "array by a list": crafted('{"params": {"$array": []}, "value": 1}'),
    "text for an array": crafted('{"params": "hello", "value": 1}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_a_damaged_journal(name: str) -> None:
    with pytest.raises(JournalError, match="stored state: damaged, or not a Anything"):
        from_bytes(Anything(PARAMS), HOSTILE[name])


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_flipped_bytes_are_read_or_refused_but_never_crash(
    data: st.DataObject,
) -> None:
    good = bytearray(to_bytes(FedAdam().init(PARAMS)))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(good)) | st.integers(0, len(good)))
    try:
        state = from_bytes(FedAdam().init(PARAMS), bytes(good[:cut]))
    except JournalError:
        return
    assert isinstance(state.params, np.ndarray)
