"""Distillation: a small network learns to answer as larger ones do, without labels.

What the teachers know beyond the right answer (which wrong ones are nearly right) is in
their outputs, so a few unlabelled examples teach a pruned network much of what it lost.
Teachers may be one network, or an ensemble whose outputs are averaged.

Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2; for ensembles of
clients' models, Lin et al. (2020), "FedDF", arXiv:2006.07242, section 3.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedge.arrays import AnyArray, Bool, Float32, check_finite
from fedge.config import OptimizerName, Quantization, Task, TrainConfig
from fedge.models.vector import params_of, set_params, spec_of
from fedge.train.batches import batch_sizes, endless_batches
from fedge.train.fake_quant import WeightRounding, output_axes
from fedge.train.optimizer import make_update

TEMPERATURE = 4.0
_BATCH_SIZE = 32


def distill(
    student: nn.Module,
    params: Float32,
    teacher_outputs: Float32,
    inputs: AnyArray,
    task: Task,
    *,
    epochs: int,
    learning_rate: float,
    rng: np.random.Generator,
    mask: Bool | None = None,
    weight_form: Quantization = Quantization.none,
) -> Float32:
    """Return the student's values after it has learned from the teachers' outputs.

    Guarantee: equal arguments give equal bytes on a CPU; what the mask prunes is
    exactly 0; buffers (running statistics) stay as they were.

    Args:
        student: the network; its values are scratch space, undefined afterwards.
        params: where it begins, float32, shape (d,); not written to.
        teacher_outputs: what it shall answer, float32; see `mean_outputs`.
        inputs: normalized examples, float32 or int64, shape (n, ...), n >= 1.
        task: classes and tokens are compared as softened probabilities, numbers
            and a detector's outputs by squared error.
        epochs: passes over the examples, >= 1.
        learning_rate: of Adam, > 0.
        rng: source of the order of the examples.
        mask: True where a value is kept, shape (d,); None keeps all.
        weight_form: what weights are rounded to in every step (`WeightRounding`).

    Raises:
        ValueError: shapes do not fit, or the student is not finite afterwards.
    """
    if len(inputs) == 0 or len(inputs) != len(teacher_outputs):
        raise ValueError(
            f"{len(inputs)} inputs but {len(teacher_outputs)} outputs of the teachers"
        )
    spec = spec_of(student)
    kept = np.ones(spec.size, np.bool_) if mask is None else mask
    set_params(student, spec, np.where(kept, params, np.float32(0.0)))
    # No dropout, and statistics as they are: it shall answer as it will be shipped.
    student.eval()
    sizes = batch_sizes(len(inputs), _BATCH_SIZE, avoid_one=False)
    order = endless_batches(len(inputs), sizes, rng)
    _fit(
        student,
        torch.from_numpy(inputs),
        torch.from_numpy(teacher_outputs),
        task,
        batches=islice(order, epochs * len(sizes)),
        learning_rate=learning_rate,
        pruned=spec.unflatten((~kept).astype(np.float32)),
        weight_form=weight_form,
    )
    result = params_of(student, spec)
    check_finite(result, f"distilled model (learning rate {learning_rate:g})")
    return result


def mean_outputs(
    teachers: Sequence[nn.Module], inputs: AnyArray, *, batch_size: int = 256
) -> Float32:
    """Return the mean of the teachers' outputs (logits or numbers), float32.

    Raises:
        ValueError: there is no teacher.
    """
    if not teachers:
        raise ValueError("distillation needs at least one teacher")
    batches = torch.split(torch.from_numpy(inputs), batch_size)
    total = None
    with torch.inference_mode():
        for teacher in teachers:
            teacher.eval()
            outputs = torch.cat([teacher(batch) for batch in batches])
            total = outputs if total is None else total + outputs
    assert total is not None
    result: Float32 = (total / len(teachers)).float().cpu().numpy()
    return result


def _fit(
    student: nn.Module,
    inputs: Tensor,
    wanted: Tensor,
    task: Task,
    *,
    batches: Iterator[Tensor],
    learning_rate: float,
    pruned: Mapping[str, Float32],
    weight_form: Quantization,
) -> None:
    named = {n: p for n, p in student.named_parameters() if p.requires_grad}
    parameters = list(named.values())
    values = [parameter.detach() for parameter in parameters]
    gone = [torch.from_numpy(pruned[name].copy()) > 0.0 for name in named]
    config = TrainConfig(optimizer=OptimizerName.adam)
    updates = [make_update(config, value, learning_rate) for value in values]
    rounded: Callable[[], AbstractContextManager[None]] = nullcontext
    if weight_form is not Quantization.none:
        axes = output_axes(student)
        rounded = WeightRounding(values, weight_form, axes).applied
    for chosen in batches:
        with rounded():
            distance = _distance(student(inputs[chosen]), wanted[chosen], task)
            grads = torch.autograd.grad(distance, parameters, allow_unused=True)
        for update, grad, flags in zip(updates, grads, gone, strict=True):
            if grad is not None:  # else the outputs do not depend on it
                update(grad.masked_fill(flags, 0.0))


def _distance(outputs: Tensor, wanted: Tensor, task: Task) -> Tensor:
    if task in (Task.regression, Task.detection):
        return F.mse_loss(outputs, wanted)
    own = F.log_softmax(outputs / TEMPERATURE, dim=-1).flatten(0, -2)
    theirs = F.log_softmax(wanted / TEMPERATURE, dim=-1).flatten(0, -2)
    # Times T squared, so that gradients keep their size whatever the temperature.
    divergence = F.kl_div(own, theirs, reduction="batchmean", log_target=True)
    return divergence * TEMPERATURE**2
