from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedge.errors import PeerError
from fedge.flower.damage import bit_flipped, truncated, with_nan
from fedge.flower.records import array_of, read_array

CHOICES = st.integers(0, 2**64 - 1)
DAMAGES: list[Callable[[RecordDict, int], RecordDict]] = [
    truncated,
    bit_flipped,
    with_nan,
]


def content() -> RecordDict:
    arrays = ArrayRecord(
        {
            "w": array_of(np.arange(12, dtype=np.float32).reshape(3, 4)),
            "n": array_of(np.arange(5)),
            "sealed": Array("uint8", (9,), "fedge.bytes", bytes(9)),
        }
    )
    metrics = MetricRecord({"num-examples": 10, "loss": 0.5, "list": [1, 2]})
    config = ConfigRecord({"data": b"0123456789", "empty": b"", "text": "abc"})
    return RecordDict({"arrays": arrays, "metrics": metrics, "config": config})


def changed_places(before: RecordDict, after: RecordDict) -> list[tuple[str, str]]:
    return [
        (key, name)
        for key, record in before.items()
        for name, value in record.items()
        if after[key][name] != value
    ]


@pytest.mark.parametrize("damage", DAMAGES)
@given(choice=CHOICES)
def test_exactly_one_place_is_damaged_and_the_original_is_left_alone(
    damage: Callable[[RecordDict, int], RecordDict], choice: int
) -> None:
    original = content()
    damaged = damage(original, choice)
    assert original == content()
    assert len(changed_places(original, damaged)) == 1
    assert repr(damage(content(), choice)) == repr(damaged)


@given(choice=CHOICES)
def test_a_flip_turns_one_bit(choice: int) -> None:
    before, after = content(), bit_flipped(content(), choice)
    ((key, name),) = changed_places(before, after)
    old, new = (bytes_in(c, key, name) for c in (before, after))
    turned = int.from_bytes(old, "big") ^ int.from_bytes(new, "big")
    assert len(old) == len(new)
    assert turned.bit_count() == 1


@given(choice=CHOICES)
def test_a_cut_leaves_the_first_half(choice: int) -> None:
    before, after = content(), truncated(content(), choice)
    ((key, name),) = changed_places(before, after)
    old = bytes_in(before, key, name)
    assert bytes_in(after, key, name) == old[: len(old) // 2]


@given(choice=CHOICES)
def test_a_truncated_array_is_never_read(choice: int) -> None:
    arrays = RecordDict({"arrays": ArrayRecord({"w": array_of(np.ones(4))})})
    with pytest.raises(PeerError):
        read_array(truncated(arrays, choice).array_records["arrays"]["w"])


@given(choice=CHOICES)
def test_a_nan_is_put_where_a_number_was(choice: int) -> None:
    damaged = with_nan(content(), choice)
    metrics = damaged.metric_records["metrics"]
    values = read_array(damaged.array_records["arrays"]["w"])
    numbers = [metrics["num-examples"], metrics["loss"]]
    assert np.isnan(values).sum() + np.isnan(numbers).sum() == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_damaged_is_passed_on(
    damage: Callable[[RecordDict, int], RecordDict],
) -> None:
    text = RecordDict({"config": ConfigRecord({"text": "abc", "empty": b""})})
    assert damage(text, 5) is text


def bytes_in(where: RecordDict, key: str, name: str) -> bytes:
    if key == "arrays":
        return where.array_records[key][name].data
    value = where.config_records[key][name]
    assert isinstance(value, bytes)
    return value
