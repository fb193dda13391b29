"""How good detections are: average precision at an overlap of 0.5.

The mean over the classes that occur of the area under the precision-recall curve, read
at 101 recalls: AP50 as COCO reports it. Differs in: no crowds and no size ranges.

Source: Lin et al. (2014), "Microsoft COCO", arXiv:1405.0312, and its evaluation code;
Everingham et al. (2010), IJCV 88(2), section 4.2, for the curve and its envelope.
"""

from collections.abc import Sequence

import numpy as np

from fedge.arrays import AnyArray, Bool, Float32, Float64
from fedge.runtime.boxes import overlaps
from fedge.runtime.detector import Detections

MIN_OVERLAP = 0.5
_PERCENTS = np.arange(101)  # the recalls at which the curve is read


def average_precision(found: Sequence[Detections], targets: AnyArray) -> float:
    """Return the mean average precision over the classes that occur, in [0, 1].

    Guarantee: 1 if every object is found and nothing else; what has a lower score than
    all the rest and is wrong changes nothing. Without any object it is 1 if nothing was
    found, and otherwise 0.

    Args:
        found: of each image.
        targets: float32 (n, slots, 5), as `fedge.runtime.boxes.check_targets` has it.

    Raises:
        ValueError: another number of images than of targets.
    """
    if len(found) != len(targets):
        raise ValueError(f"{len(found)} images do not fit targets {targets.shape}")
    classes = np.unique(targets[..., 0][targets[..., 0] >= 0])
    if len(classes) == 0:
        return float(not any(len(image.scores) for image in found))
    return float(np.mean([_of_class(found, targets, label) for label in classes]))


def _of_class(found: Sequence[Detections], targets: AnyArray, label: float) -> float:
    scores, right = [], []
    for image, wanted in zip(found, targets, strict=True):
        chosen = image.classes == label
        scores.append(image.scores[chosen])
        right.append(_matched(image.boxes[chosen], wanted[wanted[:, 0] == label, 1:]))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    num_objects = int(np.count_nonzero(targets[..., 0] == label))
    return _area(np.concatenate(right)[order], num_objects)


def _matched(boxes: Float32, wanted: AnyArray) -> Bool:
    """Return which boxes (the surest first) are right; each object counts once."""
    overlap = overlaps(boxes, wanted)
    right = np.zeros(len(boxes), np.bool_)
    for place in range(len(boxes)):
        if len(wanted) == 0:
            break
        best = int(overlap[place].argmax())
        if overlap[place, best] >= MIN_OVERLAP:
            right[place] = True
            overlap[:, best] = 0.0  # found now; another box cannot have it too
    return right


def _area(right: Bool, num_objects: int) -> float:
    num_right = np.cumsum(right)
    precision: Float64 = num_right / np.arange(1, len(right) + 1)
    # The best precision at this recall or a higher one.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # In whole numbers: 7 of 10 are exactly 70 percent, and 0.7 may not be.
    places = np.searchsorted(100 * num_right, _PERCENTS * num_objects, side="left")
    reached = places < len(right)
    return float(np.where(reached, np.append(envelope, 0.0)[places], 0.0).mean())
