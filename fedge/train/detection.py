"""The differentiable loss of a detector; `fedge.runtime.detector.losses` in torch.

Everything is computed for every cell and every target row, used or not: no shape
depends on a value, so that clients can be stacked (`fedge.train.stacked`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fedge.runtime.detector import NUM_PLACE_CHANNELS


def detection_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return each image's loss, float32 (n,).

    Args:
        outputs: float32 (n, 5 + classes, rows, columns).
        targets: float32 (n, slots, 5): class or -1, x1, y1, x2, y2.
    """
    rows, columns = outputs.shape[-2:]
    grid = outputs.new_tensor([columns, rows])
    present = targets[..., 0] >= 0
    start, end = targets[..., 1:3], targets[..., 3:]
    centre, size = (start + end) / 2 * grid, (end - start) * grid
    corner = torch.minimum(centre.floor(), grid - 1)
    cells = torch.arange(rows * columns, device=outputs.device)
    cell = (corner[..., 1] * columns + corner[..., 0]).long()
    holds = (cell[..., None] == cells) & present[..., None]  # (n, slots, cells)
    flat = outputs.flatten(-2)
    there = torch.einsum("nsk,nck->nsc", holds.to(flat.dtype), flat)
    labels = targets[..., 0].clamp(min=0).long()[..., None]
    log_shares = there[..., NUM_PLACE_CHANNELS:].log_softmax(-1)
    per_object = -log_shares.gather(-1, labels)[..., 0]
    per_object = per_object + (there[..., 1:3].sigmoid() + corner - centre).abs().sum(
        -1
    )
    per_object = per_object + (there[..., 3:5].sigmoid() * grid - size).abs().sum(-1)
    per_cell = F.binary_cross_entropy_with_logits(
        flat[..., 0, :], holds.any(-2).to(flat.dtype), reduction="none"
    )
    total = per_cell.sum(-1) + (per_object * present).sum(-1)
    return total / present.sum(-1).clamp(min=1)
