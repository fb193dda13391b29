"""Drawn shapes: the same each time, in their boxes, and told apart by their pixels."""

import numpy as np
import pytest

from fedge.data.check import check_data
from fedge.data.dataset import Examples
from fedge.data.shapes import NAMES, SIDE, draw_shapes, load_shapes
from fedge.runtime.boxes import overlaps


@pytest.fixture(scope="module")
def examples() -> Examples:
    return draw_shapes(300, seed=5)


def test_shapes_have_the_promised_form_and_pass_the_checks() -> None:
    data = load_shapes()
    assert data.train.features.shape == (1600, 1, 32, 32)
    assert data.test.features.shape == (400, 1, 32, 32)
    assert data.train.features.dtype == np.uint8
    check_data(data)


def test_equal_seeds_draw_equal_images_and_others_do_not(examples: Examples) -> None:
    again = draw_shapes(300, seed=5)
    np.testing.assert_array_equal(again.features, examples.features)
    np.testing.assert_array_equal(again.targets, examples.targets)
    assert not np.array_equal(draw_shapes(300, seed=6).features, examples.features)


def test_one_to_three_objects_of_each_class_do_not_overlap(examples: Examples) -> None:
    classes, boxes = examples.targets[..., 0], examples.targets[..., 1:]
    assert set(np.unique(classes)) == {-1.0, *range(len(NAMES))}
    assert set(np.unique((classes >= 0).sum(1))) == {1, 2, 3}
    for labels, places in zip(classes, boxes, strict=True):
        there = places[labels >= 0]
        assert np.array_equal(overlaps(there, there), np.eye(len(there)))


def test_each_box_is_filled_as_its_class_says(examples: Examples) -> None:
    # Share of a box that differs from its frame: all of a square (no pixel is left
    # out), pi / 4 of a circle, about half of a triangle.
    filled: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for image, targets in zip(examples.features[:, 0], examples.targets, strict=True):
        for label, *box in targets[targets[:, 0] >= 0]:
            x1, y1, x2, y2 = np.rint(np.array(box) * SIDE).astype(int)
            middle = int(image[(y1 + y2) // 2, (x1 + x2) // 2])
            inside = image[y1:y2, x1:x2].astype(int)
            filled[int(label)].append(float(np.mean(np.abs(inside - middle) < 35)))
    means = [np.mean(filled[label]) for label in range(3)]
    assert means[1] > 0.9 > means[0] > 0.7 > means[2] > 0.45
