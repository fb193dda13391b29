"""One device's work in one round: from the global model to an update of it.

The network's parameters are views of one flat vector meanwhile (fedge/train/flat.py),
so that the model comes and goes without being put together. Not in here: what happens
to the update afterwards (clipping for privacy, masking, sending), and any memory from
one round to the next.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from fedge.arrays import Bool, Float32, ModelSpec
from fedge.config import Precision, Quantization, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.models.vector import params_of, set_params, spec_of
from fedge.runtime.local import LocalUpdate, check_trained, start_of
from fedge.strategy import LocalSettings
from fedge.train.augment import augment, check_augmentation
from fedge.train.batches import (
    batch_norms,
    batch_sizes,
    endless_batches,
    freeze_batch_norms,
)
from fedge.train.dense import DenseChain, dense_chain, is_plain_sgd
from fedge.train.fake_quant import WeightRounding, output_axes
from fedge.train.flat import Layout, as_views, layout_of
from fedge.train.objectives import mean_loss
from fedge.train.optimizer import make_update
from fedge.train.tensors import tensors_of

__all__ = ["LocalUpdate", "start_of", "train_locally"]


def train_locally(
    model: nn.Module,
    params: Float32,
    examples: Examples,
    info: DataInfo,
    config: TrainConfig,
    *,
    local: LocalSettings,
    learning_rate: float,
    mask: Bool | None,
    rng: np.random.Generator,
    weight_form: Quantization = Quantization.none,
    device: str = "cpu",
) -> LocalUpdate:
    """Train a copy of the global model on one device's examples.

    Guarantee: on a CPU equal arguments give equal bytes, whatever the model object was
    used for before; torch's global generators are left as they were; where the mask is
    False, params + delta is exactly 0.

    Args:
        model: the network; its values are scratch space, undefined afterwards.
        params: the global model, float32, shape (d,); not written to.
        examples: raw, at least one.
        info: how to read them.
        config: optimizer, length, batches, augmentation.
        local: what the strategy asks for.
        learning_rate: of this round, > 0.
        mask: True where a value is kept, shape (d,); None keeps all.
        rng: source of all randomness.
        weight_form: what weights are rounded to in every step (`WeightRounding`).
        device: where to compute: "cpu" or "cuda".

    Raises:
        ConfigError: the augmentation does not fit the data.
        DataError: there are no examples, or they are not what `info` says.
        ValueError: shapes do not fit, the mask prunes a buffer, or the trained model is
            not finite.
    """
    check_augmentation(config, info.kind, info.task)
    if len(examples) == 0:
        raise DataError(f"{info.name}: this device has no examples to train on")
    spec, place = spec_of(model), torch.device(device)
    start = start_of(params, mask, spec)
    inputs, targets = tensors_of(examples, info, place)
    sizes = batch_sizes(
        len(examples), config.batch_size, avoid_one=bool(batch_norms(model))
    )
    num_steps = config.steps or config.epochs * len(sizes)
    _prepare(model.to(place), spec, start, smallest_batch=min(sizes))
    flat = _flat_of(model, start, mask, place, proximal_mu=local.proximal_mu)
    step = _make_step(
        model,
        flat,
        info.task,
        config,
        proximal_mu=local.proximal_mu,
        learning_rate=learning_rate,
        weight_form=weight_form,
    )
    with flat.in_use(), _own_randomness(int(rng.integers(2**63)), place):
        batches = islice(endless_batches(len(examples), sizes, rng), num_steps)
        loss = _train(
            step,
            inputs=inputs,
            targets=targets,
            batches=batches,
            config=config,
            rng=rng,
        )
    delta = _delta(model, flat.trained(), params, spec)
    check_trained(delta, loss, learning_rate)
    return LocalUpdate(delta, len(examples), loss, num_steps)


@dataclass(frozen=True, slots=True)
class _Flat:
    """The trainable part of a network during training.

    Attributes:
        parameters: of the network.
        layout: their order in memory, which is that of the vectors below.
        start: where training begins, float32, shape (d,); None if nobody asks.
        values: where it is now.
        pruned: True where values stay 0; None for nowhere.
    """

    parameters: Sequence[nn.Parameter]
    layout: Layout
    start: Tensor | None
    values: Tensor
    pruned: Tensor | None

    def in_use(self) -> AbstractContextManager[None]:
        """Let the network compute with `values`."""
        return as_views(self.parameters, self.layout, self.values)

    def trained(self) -> Float32:
        """Return `values` in the order of the model's spec."""
        vector: Float32 = self.layout.from_memory(self.values.cpu().numpy())
        return vector


def _prepare(
    model: nn.Module, spec: ModelSpec, start: Float32, *, smallest_batch: int
) -> None:
    model.train()
    for norm in batch_norms(model):
        norm.reset_running_stats()  # also a counter that the vector does not have
    _set_buffers(model, spec, start)
    if smallest_batch == 1:
        freeze_batch_norms(model)


def _flat_of(
    model: nn.Module,
    start: Float32,
    mask: Bool | None,
    place: torch.device,
    *,
    proximal_mu: float,
) -> _Flat:
    parameters = [part for part in model.parameters() if part.requires_grad]
    layout = layout_of(parameters)
    size = sum(part.numel() for part in parameters)
    first = torch.from_numpy(layout.to_memory(start[:size])).to(place)
    kept = first.clone() if proximal_mu > 0.0 else None
    pruned = None
    if mask is not None:
        pruned = torch.from_numpy(~layout.to_memory(mask[:size])).to(place)
    return _Flat(parameters, layout, kept, first, pruned)


Step = Callable[[Tensor, Tensor], Tensor]


def _train(
    step: Step,
    *,
    inputs: Tensor,
    targets: Tensor,
    batches: Iterator[Tensor],
    config: TrainConfig,
    rng: np.random.Generator,
) -> float:
    losses, weights = [], []
    for chosen in batches:
        index = chosen.to(inputs.device)
        batch = augment(inputs[index], config.augment, rng)
        losses.append(step(batch, targets[index]))
        weights.append(len(chosen))
    # Only now: asking a GPU for every loss would make it wait for every step.
    return float(np.average(torch.stack(losses).cpu().numpy(), weights=weights))


def _make_step(
    model: nn.Module,
    flat: _Flat,
    task: Task,
    config: TrainConfig,
    *,
    proximal_mu: float,
    learning_rate: float,
    weight_form: Quantization,
) -> Step:
    values = flat.layout.views(flat.values)
    masked = flat.pruned is not None
    rounded = _rounding(model, values, weight_form)
    chain = dense_chain(model, task) if weight_form is Quantization.none else None
    if chain and is_plain_sgd(config, proximal_mu=proximal_mu, masked=masked):
        names = [name for name, part in model.named_parameters() if part.requires_grad]
        by_name = dict(zip(names, values, strict=True))
        return partial(_dense_step, chain, by_name, learning_rate)
    starts = [] if flat.start is None else flat.layout.views(flat.start)
    pruned = None if flat.pruned is None else flat.layout.views(flat.pruned)
    updates = [make_update(config, value, learning_rate) for value in values]

    def step(inputs: Tensor, targets: Tensor) -> Tensor:
        for parameter in flat.parameters:
            parameter.grad = None
        with rounded():
            with _arithmetic(config.precision, inputs.device):
                loss = mean_loss(model(inputs), targets, task)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        grads = [_gradient(parameter) for parameter in flat.parameters]
        if proximal_mu > 0.0:
            # Gradient of 0.5 * mu * |w - w_start|**2; Li et al. (2020),
            # arXiv:1812.06127.
            for grad, value, start in zip(grads, values, starts, strict=True):
                grad.add_(value - start, alpha=proximal_mu)
        if pruned is not None:
            # Filled rather than multiplied: 0 * inf would be nan.
            for grad, flags in zip(grads, pruned, strict=True):
                grad.masked_fill_(flags, 0.0)
        _clip(grads, config.clip_norm)
        for update, grad in zip(updates, grads, strict=True):
            update(grad)
        return loss.detach()

    return step


def _rounding(
    model: nn.Module, values: Sequence[Tensor], form: Quantization
) -> Callable[[], AbstractContextManager[None]]:
    """Return what makes the block of a gradient: weights are rounded in there."""
    if form is Quantization.none:
        return nullcontext
    return WeightRounding(values, form, output_axes(model)).applied


@torch.no_grad()
def _dense_step(
    chain: DenseChain,
    values: Mapping[str, Tensor],
    learning_rate: float,
    inputs: Tensor,
    targets: Tensor,
) -> Tensor:
    """Make a step of plain SGD without autograd; return the loss before it."""
    weights = inputs.new_full((len(inputs),), 1.0 / len(inputs))
    return chain.descend(values, inputs, targets, weights, learning_rate=learning_rate)


def _gradient(parameter: nn.Parameter) -> Tensor:
    """Return a parameter's gradient; zeros if the loss does not depend on it."""
    grad = parameter.grad
    return torch.zeros_like(parameter) if grad is None else grad


def _clip(grads: Sequence[Tensor], clip_norm: float) -> None:
    """Shorten the gradient to this norm if it is longer; 0 leaves it."""
    if clip_norm > 0.0:
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        factor = (clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(factor)


def _arithmetic(
    precision: Precision, place: torch.device
) -> AbstractContextManager[object]:
    """Return bfloat16 autocast where a GPU has it in hardware, else float32.

    Not float16, which older GPUs have: its small range needs loss scaling and skipped
    steps, and a small model gains little.
    """
    if (
        precision is Precision.mixed
        and place.type == "cuda"
        and torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


@contextmanager
def _own_randomness(seed: int, place: torch.device) -> Iterator[None]:
    """Give dropout its own random numbers and put torch's generators back."""
    gpus = [torch.cuda.current_device()] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        if gpus:
            torch.cuda.manual_seed(seed)
        yield


def _set_buffers(model: nn.Module, spec: ModelSpec, start: Float32) -> None:
    """Copy what is not trained into the network; the rest is used where it is."""
    if spec.num_trainable < spec.size:
        set_params(model, spec, start)


def _delta(
    model: nn.Module, trained: Float32, params: Float32, spec: ModelSpec
) -> Float32:
    """Return the trained model minus the global one; `trained` is overwritten."""
    if spec.num_trainable == spec.size:
        return np.subtract(trained, params, out=trained)
    final = params_of(model, spec)
    final[: spec.num_trainable] = trained
    return np.subtract(final, params, out=final)
