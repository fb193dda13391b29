"""Overlaps, suppression of doubles, and what is no target."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.arrays import Float32, Int64
from fedge.runtime.boxes import check_targets, overlaps, suppress

Candidates = tuple[Float32, Float32, Int64]


@st.composite
def candidates(draw: st.DrawFn) -> Candidates:
    """Boxes on a coarse grid, so that equal, touching and empty ones occur."""
    count = draw(st.integers(0, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    ends = np.sort(rng.integers(0, 5, (count, 2, 2)) / 4, axis=1)
    scores = rng.integers(0, 4, count) / 3
    return (
        ends.reshape(count, 4).astype(np.float32),
        scores.astype(np.float32),
        rng.integers(0, 3, count),
    )


def test_overlaps_by_hand() -> None:
    boxes = np.array([[0.0, 0.0, 0.5, 1.0], [0.25, 0.0, 0.75, 1.0]])
    others = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.1, 0.1, 0.1, 1]])
    expected = [[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 0.0]]
    np.testing.assert_allclose(overlaps(boxes, others), expected, rtol=1e-12)


@given(candidates())
def test_overlaps_are_symmetric_and_at_most_one(drawn: Candidates) -> None:
    boxes = drawn[0]
    found = overlaps(boxes, boxes)
    np.testing.assert_array_equal(found, found.T)
    assert ((found >= 0) & (found <= 1)).all()
    has_area = (boxes[:, :2] < boxes[:, 2:]).all(1)
    np.testing.assert_array_equal(np.diag(found), has_area)


@given(candidates(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
def test_what_is_kept_is_no_double_and_what_is_not_is_one(
    drawn: Candidates, max_overlap: float
) -> None:
    boxes, scores, classes = drawn
    kept = suppress(boxes, scores, classes, max_overlap=max_overlap).tolist()
    rank = [(-float(scores[place]), place) for place in range(len(boxes))]
    assert kept == sorted(kept, key=lambda place: rank[place])
    double = (overlaps(boxes, boxes) > max_overlap) & (classes[:, None] == classes)
    assert not any(double[a, b] for a in kept for b in kept if a != b)
    for gone in set(range(len(boxes))) - set(kept):
        assert any(double[gone, one] and rank[one] < rank[gone] for one in kept)


@given(candidates())
def test_nothing_more_goes_the_second_time(drawn: Candidates) -> None:
    kept = suppress(*drawn, max_overlap=0.5)
    left = [part[kept] for part in drawn]
    again = suppress(*left, max_overlap=0.5)  # type: ignore[arg-type]  # of three kinds
    assert again.tolist() == list(range(len(kept)))


@pytest.mark.parametrize(
    ("boxes", "scores", "max_overlap", "reason"),
    [
        ([[0, 0, 1, np.nan]], [1], 0.5, "boxes"),
        ([[0, 0, 1, np.inf]], [1], 0.5, "boxes"),
        ([[0, 0, 1, 1]], [np.nan], 0.5, "scores"),
        ([[0, 0, 1, 1]], [1], 1.1, "max_overlap"),
        ([[0, 0, 1, 1]], [1], np.nan, "max_overlap"),
        ([[1, 0, 0, 1]], [1], 0.5, "end before they start"),
        ([[0, 0, 1]], [1], 0.5, "do not fit"),
        ([[0, 0, 1, 1]], [1, 1], 0.5, "do not fit"),
    ],
)
def test_what_is_no_set_of_boxes_is_refused(
    boxes: list[list[float]], scores: list[float], max_overlap: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        suppress(
            np.array(boxes, np.float32),
            np.array(scores, np.float32),
            np.zeros(1, np.int64),
            max_overlap=max_overlap,
        )


def test_sound_targets_pass_and_unused_rows_say_nothing() -> None:
    rows = [[2, 0.0, 0.25, 0.5, 1.0], [-1, 0.0, 0.0, 0.0, 0.0]]
    check_targets(np.array([rows], np.float32), 3)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([3, 0.0, 0.0, 1.0, 1.0], "classes"),
        ([-2, 0.0, 0.0, 1.0, 1.0], "classes"),
        ([0.5, 0.0, 0.0, 1.0, 1.0], "classes"),
        ([np.nan, 0.0, 0.0, 1.0, 1.0], "not finite|finite"),
        ([0, 0.0, 0.0, np.inf, 1.0], "finite"),
        ([0, -0.1, 0.0, 1.0, 1.0], "boxes"),
        ([0, 0.0, 0.0, 1.1, 1.0], "boxes"),
        ([0, 0.5, 0.0, 0.5, 1.0], "boxes"),
        ([0, 0.0, 0.6, 1.0, 0.5], "boxes"),
        ([0, 0.0, 0.0, 1.0], "expected float32"),
    ],
)
def test_unsound_targets_are_refused(row: list[float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_targets(np.array([[row]], np.float32), 3)


def test_targets_of_another_dtype_or_without_rows_are_refused() -> None:
    for targets in (np.zeros((1, 1, 5)), np.zeros((1, 0, 5), np.float32)):
        with pytest.raises(ValueError, match="expected float32"):
            check_targets(targets, 3)
