"""Boxes of objects in an image: overlap, suppression of doubles, checked targets.

A box is x1, y1, x2, y2 as shares of the image's width and height: the upper left is
(0, 0), the lower right (1, 1). All in numpy, since devices do it without torch.
"""

import numpy as np

from fedge.arrays import AnyArray, Float32, Float64, Int64, check_finite

TARGET_SIZE = 5  # class, x1, y1, x2, y2
NO_OBJECT = -1.0  # class of a target row that is not used


def check_targets(targets: AnyArray, num_classes: int) -> None:
    """Check what is to be detected.

    Guarantee: if this returns, `targets` is float32 (n, slots, 5) with slots >= 1; each
    row has a class, a whole number in [0, num_classes), and a box with
    0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1; or the class -1 and no object.

    Raises:
        ValueError: one of these does not hold; names no value of an example.
    """
    is_table = targets.ndim == 3 and targets.shape[1] >= 1
    if targets.dtype != np.float32 or not is_table or targets.shape[2] != TARGET_SIZE:
        raise ValueError(
            f"targets are {targets.dtype} {targets.shape}, expected float32 "
            f"(n, objects, {TARGET_SIZE})"
        )
    check_finite(targets, "targets")
    classes, boxes = targets[..., 0], targets[..., 1:]
    if not np.isin(classes, np.arange(NO_OBJECT, num_classes)).all():
        raise ValueError(
            f"targets' classes are not all in [0, {num_classes}), or -1 for no object"
        )
    start, end = boxes[classes >= 0, :2], boxes[classes >= 0, 2:]
    if not ((start >= 0) & (start < end) & (end <= 1)).all():
        raise ValueError("targets' boxes are not all 0 <= x1 < x2 <= 1, same for y")


def overlaps(boxes: AnyArray, others: AnyArray) -> Float64:
    """Return the intersection over union of each box with each other one.

    Guarantee: in [0, 1]; 0 for boxes of no area; a box with itself gives 1 otherwise.

    Args:
        boxes: finite, shape (n, 4), with x1 <= x2 and y1 <= y2.
        others: same, shape (m, 4).

    Returns:
        float64, shape (n, m).
    """
    one = boxes.astype(np.float64)[:, None]
    other = others.astype(np.float64)[None]
    start = np.maximum(one[..., :2], other[..., :2])
    end = np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(end - start, 0.0, None).prod(-1)
    union = _areas(one) + _areas(other) - shared
    # A tiny union can be rounded to less than what is shared.
    union = np.maximum(union, shared)
    found: Float64 = np.divide(
        shared, union, out=np.zeros_like(shared), where=union > 0.0
    )
    return found


def _areas(boxes: Float64) -> Float64:
    areas: Float64 = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    return areas


def suppress(
    boxes: Float32, scores: Float32, classes: Int64, *, max_overlap: float
) -> Int64:
    """Return which boxes are left by non-maximum suppression, class by class.

    Guarantee: ascending rank (highest score first; of equal scores the one that comes
    first); two kept boxes of one class overlap by at most `max_overlap`; each box that
    is not kept overlaps by more with a kept one of its class and of a rank before it.

    Args:
        boxes: float32 (n, 4), with x1 <= x2 and y1 <= y2.
        scores: float32 (n,).
        classes: int64 (n,).
        max_overlap: largest intersection over union, in [0, 1].

    Returns:
        Positions, int64 (k,).

    Raises:
        ValueError: shapes do not fit, a number is not finite, `max_overlap` is out of
            range, or a box ends before it starts.
    """
    _check_suppressible(boxes, scores, classes, max_overlap)
    ranking = np.argsort(-scores, kind="stable")
    doubles = overlaps(boxes, boxes) > max_overlap
    doubles &= classes[:, None] == classes[None]
    gone = np.zeros(len(boxes), np.bool_)
    kept = []
    for place in ranking.tolist():
        if not gone[place]:
            kept.append(place)
            gone |= doubles[place]
    return np.array(kept, np.int64)


def _check_suppressible(
    boxes: Float32, scores: Float32, classes: Int64, max_overlap: float
) -> None:
    count = len(scores)
    if (boxes.shape, scores.shape, classes.shape) != ((count, 4), (count,), (count,)):
        raise ValueError(
            f"boxes {boxes.shape}, scores {scores.shape} and classes {classes.shape} "
            f"do not fit together; need (n, 4), (n,) and (n,)"
        )
    if not 0.0 <= max_overlap <= 1.0:
        raise ValueError(f"max_overlap: {max_overlap} not in [0, 1]")
    check_finite(boxes, "boxes")
    check_finite(scores, "scores")
    if (boxes[:, :2] > boxes[:, 2:]).any():
        raise ValueError("boxes: some end before they start; need x1 <= x2, y1 <= y2")
