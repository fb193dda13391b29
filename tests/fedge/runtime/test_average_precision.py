"""Average precision against its definition, by hand and on random detections."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.arrays import AnyArray, Float32
from fedge.runtime.average_precision import average_precision
from fedge.runtime.detector import Detections

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def found(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, classes = zip(*rows, strict=True) if rows else ([], [], [])
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
    )


def targets(*images: list[tuple[list[float], int]]) -> Float32:
    table = np.zeros((len(images), max(map(len, images), default=1) or 1, 5))
    table[..., 0] = -1
    for place, image in enumerate(images):
        for slot, (box, label) in enumerate(image):
            table[place, slot] = [label, *box]
    return table.astype(np.float32)


def test_all_found_and_nothing_else_is_one() -> None:
    wanted = targets([(LEFT, 0), (RIGHT, 1)], [(RIGHT, 0)])
    seen = [found((LEFT, 0.9, 0), (RIGHT, 0.2, 1)), found((RIGHT, 0.5, 0))]
    assert average_precision(seen, wanted) == 1.0


def test_a_curve_by_hand() -> None:
    # Two objects; right, wrong, right: precision 1 up to recall 1/2 (51 of the 101
    # recalls), then 2/3.
    wanted = targets([(LEFT, 0), (RIGHT, 0)])
    seen = [found((LEFT, 0.9, 0), (LEFT, 0.8, 0), (RIGHT, 0.7, 0))]
    assert average_precision(seen, wanted) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_classes_count_the_same_and_wrong_ones_are_misses() -> None:
    wanted = targets([(LEFT, 0), (RIGHT, 1)])
    assert average_precision([found((LEFT, 0.9, 0), (RIGHT, 0.9, 0))], wanted) == 0.5


def test_an_overlap_of_less_than_a_half_is_a_miss() -> None:
    wanted = targets([(LEFT, 0)])
    half = found(([0.0, 0.0, 0.25, 1.0], 0.9, 0))  # half of it, nothing else
    less = found(([0.0, 0.0, 0.24, 1.0], 0.9, 0))
    assert average_precision([half], wanted) == 1.0
    assert average_precision([less], wanted) == 0.0


def test_an_object_counts_once_and_the_ranking_is_over_all_images() -> None:
    wanted = targets([(LEFT, 0)], [])
    first = found((LEFT, 0.5, 0))
    assert average_precision([first, found((LEFT, 0.4, 0))], wanted) == 1.0
    assert average_precision([first, found((LEFT, 0.6, 0))], wanted) == 0.5


def test_where_nothing_is_nothing_should_be_found() -> None:
    assert average_precision([found()], targets([])) == 1.0
    assert average_precision([found((LEFT, 0.1, 0))], targets([])) == 0.0


def test_images_and_targets_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        average_precision([], targets([]))


def by_definition(hits: list[bool], num_objects: int) -> float:
    """Return the mean over 101 recalls of the best precision at that recall or more."""
    points = [
        (Fraction(sum(hits[: k + 1]), num_objects), sum(hits[: k + 1]) / (k + 1))
        for k in range(len(hits))
    ]
    wanted = [Fraction(percent, 100) for percent in range(101)]
    best = [max((p for r, p in points if r >= w), default=0.0) for w in wanted]
    return sum(best) / 101


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 4))
def test_any_ranking_has_the_area_of_the_definition(
    hits: list[bool], num_missed: int
) -> None:
    # Objects lie side by side; a miss is a box where none is.
    num_objects = sum(hits) + num_missed
    if num_objects == 0:
        return
    slots = [[k / 20, 0.0, (k + 1) / 20, 0.5] for k in range(17)]
    empty = [0.0, 0.6, 1.0, 1.0]
    objects = iter(slots)
    rows = [
        (next(objects) if hit else empty, 1.0 - place / 50, 0)
        for place, hit in enumerate(hits)
    ]
    wanted = targets([(box, 0) for box in slots[:num_objects]])
    area = average_precision([found(*rows)], wanted)
    assert area == pytest.approx(by_definition(hits, num_objects))
    worse = [*rows, (empty, 0.01, 0)]
    assert average_precision([found(*worse)], wanted) == pytest.approx(area)


@given(st.integers(0, 2**32))
def test_the_order_of_the_images_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes: AnyArray = np.sort(rng.random((5, 2, 2)), axis=1).reshape(5, 4)
    seen = [found((box.tolist(), float(rng.random()), 0)) for box in boxes]
    wanted = targets(*[[((box * 0.9).tolist(), 0)] for box in boxes])
    order = rng.permutation(5)
    one = average_precision(seen, wanted)
    other = average_precision([seen[place] for place in order], wanted[order])
    assert one == pytest.approx(other)
    assert 0.0 <= one <= 1.0
