"""How good a network is on some examples.

The judgement itself is fedge/runtime/score.py, which devices without torch use too.
"""

import torch
from torch import Tensor, nn

from fedge.arrays import Float32
from fedge.config import Task
from fedge.data.dataset import DataInfo, Examples
from fedge.models.vector import set_params, spec_of
from fedge.runtime.score import NOTHING, Evaluation, score_outputs
from fedge.train.tensors import tensors_of

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    model: nn.Module,
    params: Float32,
    examples: Examples,
    info: DataInfo,
    *,
    batch_size: int = 512,
    device: str = "cpu",
) -> Evaluation:
    """Return loss and score of a model.

    Guarantee: no dropout, no running statistics change, and each example counts the
    same however the batches fall.

    Args:
        model: the network; its values are overwritten.
        params: the values to be judged, float32, shape (d,).
        examples: raw; none at all give an evaluation of 0 examples.
        info: how to read them.
        batch_size: examples in one forward pass; 512 keeps activations small.
        device: where to compute.

    Raises:
        DataError: the examples are not what `info` says.
        ValueError: `params` has another size than the model.
    """
    place = torch.device(device)
    inputs, targets = tensors_of(examples, info, place)
    set_params(model.to(place).eval(), spec_of(model), params)
    # The ranking of all detections counts: these are judged together.
    judged_size = len(inputs) if info.task is Task.detection else batch_size
    total = NOTHING
    for start in range(0, len(inputs), max(1, judged_size)):
        part = slice(start, start + judged_size)
        outputs = _outputs(model, inputs[part], batch_size)
        total += score_outputs(outputs, targets[part].cpu().numpy(), info.task)
    return total


@torch.inference_mode()
def _outputs(model: nn.Module, inputs: Tensor, batch_size: int) -> Float32:
    batches = [model(batch).float().cpu() for batch in torch.split(inputs, batch_size)]
    outputs: Float32 = torch.cat(batches).numpy()
    return outputs
