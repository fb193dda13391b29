"""From a detector's outputs to objects, and how wrong the outputs are.

The image is divided into a grid of cells. For each cell the network says whether the
centre of an object is in there, where in the cell, how large the object is, and of
which class. Output channels: objectness, x and y of the centre, width, height, then one
per class; all are logits.

Source: Redmon et al. (2016), "You Only Look Once", arXiv:1506.02640, section 2: one
cell answers for the object whose centre it holds. Differs in: logits throughout, cross
entropy for objectness and class, absolute error of the box.
"""

from dataclasses import dataclass

import numpy as np

from fedge.arrays import AnyArray, Float32, Float64, Int64, check_finite
from fedge.runtime.boxes import suppress

NUM_PLACE_CHANNELS = 5  # objectness, x, y, width, height

# Boxes of one image that compete; an output may be as large as it likes.
MAX_CANDIDATES = 1000


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects found in one image, the surest first.

    Attributes:
        boxes: float32 (k, 4): x1, y1, x2, y2 as shares of the image, in [0, 1].
        scores: how sure, float32 (k,), in [0, 1], not increasing.
        classes: int64 (k,).
    """

    boxes: Float32
    scores: Float32
    classes: Int64


def detect(
    outputs: Float32,
    *,
    min_score: float = 0.5,
    max_overlap: float = 0.5,
    max_detections: int = 100,
) -> list[Detections]:
    """Return the objects in each image.

    Guarantee: every box is in the image; every score is at least `min_score`; two boxes
    of one class and image overlap by at most `max_overlap` (intersection over union);
    at most `max_detections` in an image. Of the cells of an image the
    `MAX_CANDIDATES` surest ones are looked at.

    Args:
        outputs: of a detector, float32 (n, 5 + classes, rows, columns).
        min_score: least objectness times class probability, in [0, 1].
        max_overlap: see `fedge.runtime.boxes.suppress`.
        max_detections: per image, >= 1.

    Raises:
        ValueError: another shape, an output that is not finite, or a number out of
            range.
    """
    if not 0.0 <= min_score <= 1.0:
        raise ValueError(f"min_score: {min_score} not in [0, 1]")
    if max_detections < 1:
        raise ValueError(f"max_detections: {max_detections} must be at least 1")
    check_outputs(outputs)
    found = []
    for boxes, scores, classes in zip(*_decode(outputs), strict=True):
        best = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        best = best[scores[best].astype(np.float64) >= min_score]
        kept = suppress(
            boxes[best], scores[best], classes[best], max_overlap=max_overlap
        )
        chosen = best[kept[:max_detections]]
        found.append(Detections(boxes[chosen], scores[chosen], classes[chosen]))
    return found


def check_outputs(outputs: Float32) -> None:
    """Raise ValueError if these are not the finite outputs of a detector."""
    shape = outputs.shape
    if len(shape) != 4 or shape[1] <= NUM_PLACE_CHANNELS or 0 in shape[2:]:
        raise ValueError(
            f"outputs: shape {shape}, need (n, {NUM_PLACE_CHANNELS} + classes, rows, "
            f"columns)"
        )
    check_finite(outputs, "outputs")


def _decode(outputs: Float32) -> tuple[Float32, Float32, Int64]:
    """Return each cell's box (n, cells, 4), score (n, cells), best class (n, cells)."""
    count, channels, rows, columns = outputs.shape
    cells = outputs.reshape(count, channels, rows * columns).transpose(0, 2, 1)
    sure, places, logits = np.split(
        cells.astype(np.float64), (1, NUM_PLACE_CHANNELS), axis=-1
    )
    grid = np.array([columns, rows])
    corner = np.stack(np.divmod(np.arange(rows * columns), columns)[::-1], axis=-1)
    places = _sigmoid(places)
    centre, half = (corner + places[..., :2]) / grid, places[..., 2:] / 2
    boxes = np.concatenate([centre - half, centre + half], axis=-1).clip(0.0, 1.0)
    scores = _sigmoid(sure[..., 0]) * np.exp(_log_shares(logits)).max(-1)
    best: Int64 = logits.argmax(-1)
    return boxes.astype(np.float32), scores.astype(np.float32), best


def losses(outputs: Float32, targets: AnyArray) -> Float64:
    """Return each image's loss, float64 (n,).

    The cross entropy of the objectness of all cells; and for each object, at the cell
    that holds its centre, the cross entropy of its class and the absolute error of
    centre and size, counted in cells; divided by the number of objects, at least 1
    (nats and cells). `fedge.train.detection` has the same for training.

    Args:
        outputs: float32 (n, 5 + classes, rows, columns), finite.
        targets: float32 (n, slots, 5), as `fedge.runtime.boxes.check_targets` has it.

    Raises:
        ValueError: `outputs` has another shape or is not finite.
    """
    check_outputs(outputs)
    rows, columns = outputs.shape[2:]
    grid = np.array([columns, rows], np.float64)
    present = targets[..., 0] >= 0
    start, end = targets[..., 1:3].astype(np.float64), targets[..., 3:]
    centre, size = (start + end) / 2 * grid, (end - start) * grid
    corner = np.minimum(np.floor(centre), grid - 1)
    cell = (corner[..., 1] * columns + corner[..., 0]).astype(np.int64)
    flat = outputs.astype(np.float64).reshape(*outputs.shape[:2], rows * columns)
    there = np.take_along_axis(flat, cell[:, None], axis=2).transpose(0, 2, 1)
    labels = np.maximum(targets[..., :1], 0).astype(np.int64)
    log_shares = _log_shares(there[..., NUM_PLACE_CHANNELS:])
    per_object = -np.take_along_axis(log_shares, labels, axis=-1)[..., 0]
    per_object += np.abs(_sigmoid(there[..., 1:3]) + corner - centre).sum(-1)
    per_object += np.abs(_sigmoid(there[..., 3:5]) * grid - size).sum(-1)
    holds = (cell[..., None] == np.arange(rows * columns)) & present[..., None]
    per_cell = np.logaddexp(0.0, flat[:, 0]) - holds.any(1) * flat[:, 0]
    total: Float64 = per_cell.sum(1) + np.where(present, per_object, 0.0).sum(1)
    total /= np.maximum(present.sum(1), 1)
    return total


def _sigmoid(values: Float64) -> Float64:
    """Return 1 / (1 + exp(-values)), without overflow."""
    result: Float64 = np.exp(-np.logaddexp(0.0, -values))
    return result


def _log_shares(logits: Float64) -> Float64:
    """Return the logarithm of the softmax over the last axis."""
    shifted = logits - logits.max(-1, keepdims=True)
    result: Float64 = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
