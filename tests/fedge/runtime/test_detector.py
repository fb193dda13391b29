"""From outputs to objects, and outputs that strangers or broken models give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedge.arrays import Float32
from fedge.runtime.boxes import overlaps
from fedge.runtime.detector import detect, losses

SIZE = 20.0  # a logit that is as good as certain

OUTPUTS = st.integers(1, 3).flatmap(
    lambda classes: arrays(
        np.float32,
        st.tuples(st.integers(0, 2), st.just(5 + classes), *[st.integers(1, 4)] * 2),
        elements=st.floats(-(2.0**100), 2.0**100, width=32)
        | st.floats(-8, 8, width=32),
    )
)


def nothing(classes: int = 2, rows: int = 2, columns: int = 4) -> Float32:
    """Return the outputs for one image in which no cell holds an object."""
    outputs = np.zeros((1, 5 + classes, rows, columns), np.float32)
    outputs[:, 0] = -SIZE
    return outputs


def test_a_sure_cell_is_one_object_at_its_place() -> None:
    outputs = nothing()
    # Row 1, column 2: the centre is its middle, half of the image wide and high.
    outputs[0, :, 1, 2] = [SIZE, 0.0, 0.0, 0.0, 0.0, -SIZE, SIZE]
    [found] = detect(outputs)
    # Centre (2.5 / 4, 1.5 / 2); y ends at the border of the image.
    np.testing.assert_allclose(found.boxes, [[0.375, 0.5, 0.875, 1.0]], atol=1e-6)
    assert found.classes.tolist() == [1]
    assert found.scores[0] == pytest.approx(1.0, abs=1e-6)


def test_an_image_without_a_sure_cell_has_no_object() -> None:
    [found] = detect(nothing())
    assert (found.boxes.shape, found.scores.shape) == ((0, 4), (0,))


def test_no_images_give_no_detections() -> None:
    assert detect(nothing()[:0]) == []


@given(
    OUTPUTS, st.floats(0.0, 1.0), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 5)
)
def test_what_is_promised_of_detections_holds_for_any_finite_outputs(
    outputs: Float32, min_score: float, max_overlap: float, most: int
) -> None:
    images = detect(
        outputs, min_score=min_score, max_overlap=max_overlap, max_detections=most
    )
    assert len(images) == len(outputs)
    for found in images:
        assert len(found.scores) <= most
        assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
        assert (found.boxes[:, :2] <= found.boxes[:, 2:]).all()
        assert all(min_score <= score <= 1.0 for score in found.scores.tolist())
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.classes >= 0) & (found.classes < outputs.shape[1] - 5)).all()
        same = found.classes[:, None] == found.classes
        np.fill_diagonal(same, val=False)
        assert (overlaps(found.boxes, found.boxes)[same] <= max_overlap).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_are_refused(bad: float) -> None:
    outputs = nothing()
    outputs[0, 3, 0, 1] = bad
    for judge in (detect, lambda o: losses(o, np.zeros((1, 1, 5), np.float32))):
        with pytest.raises(ValueError, match="outputs"):
            judge(outputs)


@pytest.mark.parametrize("shape", [(1, 5, 2, 2), (1, 7, 0, 2), (1, 7, 2), (7,)])
def test_outputs_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="outputs: shape"):
        detect(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"min_score": -0.1}, "min_score"),
        ({"min_score": float("nan")}, "min_score"),
        ({"max_overlap": 1.1}, "max_overlap"),
        ({"max_detections": 0}, "max_detections"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, float], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        detect(nothing(), **settings)  # type: ignore[arg-type]  # a number of each kind


def test_a_huge_grid_takes_no_more_than_its_surest_cells() -> None:
    # All pairs of 90,000 boxes would be 65 GB.
    outputs = np.zeros((1, 6, 300, 300), np.float32)
    outputs[:, 3:5] = -SIZE
    [found] = detect(outputs, min_score=0.1, max_detections=5000)
    assert len(found.scores) == 1000
