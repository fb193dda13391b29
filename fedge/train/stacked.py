"""Training of several clients as one computation, for models where that is faster.

The clients' values are rows of one matrix per parameter, and every operation of a step
works on all rows: small models spend their time on calling operations, not in them.
Clients are sorted by their number of steps, so those that still train are the first
rows. Equal to training one by one within float tolerance, from the same random numbers;
not bit for bit, since products of stacked matrices may add in another order, which also
depends on who else is in the stack.

Not for batch normalization, dropout and augmentation, whose state or randomness belongs
to one client, nor for layers that `torch.func.vmap` cannot stack (recurrent ones).

Source: torch.func; FedJAX, arXiv:2108.02117, section 3, vectorizes clients the same way
on accelerators.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.dropout import _DropoutNd

from fedge.arrays import Bool, Float32, Float64, Int64, check_finite
from fedge.config import Augmentation, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.models.vector import set_params, spec_of
from fedge.strategy import LocalSettings
from fedge.train.batches import batch_norms
from fedge.train.dense import dense_chain, is_plain_sgd
from fedge.train.objectives import example_losses
from fedge.train.optimizer import make_update
from fedge.train.tensors import tensors_of
from fedge.train.trainer import LocalUpdate, start_of

_CPU = torch.device("cpu")


def can_stack(model: nn.Module, config: TrainConfig) -> bool:
    """Say whether clients with this model and these settings can train together."""
    parts = list(model.modules())
    drops = any(isinstance(part, _DropoutNd) and part.p > 0.0 for part in parts)
    recurs = any(isinstance(part, nn.RNNBase) for part in parts)
    plain = config.augment is Augmentation.none
    return plain and not drops and not recurs and not batch_norms(model)


@dataclass(frozen=True, slots=True)
class StackedUpdates:
    """What training several clients together gives; see `LocalUpdate`.

    Attributes:
        deltas: of each client, float32 (K, d).
        num_examples: of each client, int64 (K,).
        losses: of each client, float64 (K,).
        num_steps: of each client, int64 (K,).
    """

    deltas: Float32
    num_examples: Int64
    losses: Float64
    num_steps: Int64

    def of(self, client: int) -> LocalUpdate:
        """Return one client's update; its delta is a view."""
        return LocalUpdate(
            self.deltas[client],
            int(self.num_examples[client]),
            float(self.losses[client]),
            int(self.num_steps[client]),
        )


def train_stacked(
    model: nn.Module,
    params: Float32,
    data: Examples,
    parts: Sequence[Int64],
    info: DataInfo,
    *,
    config: TrainConfig,
    local: LocalSettings,
    learning_rate: float,
    mask: Bool | None,
    rngs: Sequence[np.random.Generator],
) -> StackedUpdates:
    """Train copies of the global model, each on one client's examples, on the CPU.

    Guarantee: each update equals that of `train_locally` with the same arguments within
    float tolerance.

    Args:
        model: the network, which `can_stack`; its values are scratch space.
        params: the global model, float32, shape (d,); not written to.
        data: examples of all clients, raw.
        parts: for each client, which of them are its: at least one.
        info: how to read them.
        config: optimizer, length, batches.
        local: what the strategy asks for.
        learning_rate: of this round, > 0.
        mask: True where a value is kept, shape (d,); None keeps all.
        rngs: source of each client's randomness.

    Raises:
        DataError: a client has no examples, or they are not what `info` says.
        ValueError: shapes do not fit, or a trained model is not finite.
    """
    spec = spec_of(model)
    start = start_of(params, mask, spec)
    if spec.num_trainable < spec.size:
        set_params(model, spec, start)
    model.train()
    plan = _plan_of(parts, config, rngs, info)
    rows = _Rows.of(model, start[: spec.num_trainable], len(parts), mask)
    losses = _Stacked(model, rows, data, info).train(plan, config, local, learning_rate)
    back = np.argsort(plan.order)
    deltas = np.zeros((len(parts), spec.size), np.float32)  # buffers do not change
    place = (slice(None), slice(spec.num_trainable))
    np.subtract(rows.matrix()[back], params[place[1]], out=deltas[place])
    check_finite(deltas, "models after local training")
    check_finite(losses, "losses of local training")
    sizes = np.array([len(part) for part in parts])
    return StackedUpdates(deltas, sizes, losses[back], plan.num_steps[back])


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which examples each step of each client sees.

    Attributes:
        order: clients by falling number of steps, int64 (K,); rows are in this order.
        num_steps: of each row, int64 (K,).
        places: of the examples in the data, int64 (steps, K, b).
        weights: of the examples in the row's mean, float32 (steps, K, b); 0 where a
            batch is shorter than b, or a row has no such step.
    """

    order: Int64
    num_steps: Int64
    places: Tensor
    weights: Tensor


def _plan_of(
    parts: Sequence[Int64],
    config: TrainConfig,
    rngs: Sequence[np.random.Generator],
    info: DataInfo,
) -> _Plan:
    grids = []
    for part, rng in zip(parts, rngs, strict=True):
        if len(part) == 0:
            raise DataError(f"{info.name}: this device has no examples to train on")
        rng.integers(2**63)  # what seeds dropout when a client trains alone
        grids.append(_grid(part, config, rng))
    steps = np.array([len(grid) for grid in grids])
    order = np.argsort(-steps, kind="stable")
    places = np.full((steps.max(), len(grids), config.batch_size), -1)
    for row, client in enumerate(order):
        places[: steps[client], row] = grids[client]
    places = places[:, :, (places >= 0).any((0, 1))]
    real = places >= 0
    places[~real] = parts[order[0]][0]  # any example: it weighs nothing
    weights = real / np.maximum(real.sum(2, keepdims=True), 1)
    return _Plan(
        order,
        steps[order],
        torch.from_numpy(places),
        torch.from_numpy(weights.astype(np.float32)),
    )


def _grid(part: Int64, config: TrainConfig, rng: np.random.Generator) -> Int64:
    """Return one client's batches, int64 (steps, batch size), -1 where one is shorter.

    They are those of `endless_batches`.
    """
    num_batches = -(-len(part) // config.batch_size)
    num_steps = config.steps or config.epochs * num_batches
    passes = -(-num_steps // num_batches)
    grid: Int64 = np.full((passes, num_batches * config.batch_size), -1)
    for one_pass in grid:
        one_pass[: len(part)] = part[rng.permutation(len(part))]
    return grid.reshape(-1, config.batch_size)[:num_steps]


@dataclass(frozen=True, slots=True)
class _Rows:
    """The trainable values of all clients.

    Attributes:
        values: by parameter, float32 (K, *shape); changed by training.
        start: by parameter, where all begin, float32 (*shape).
        pruned: by parameter, True where values stay 0; empty if nothing is pruned.
    """

    values: Mapping[str, Tensor]
    start: Mapping[str, Tensor]
    pruned: Mapping[str, Tensor]

    @classmethod
    def of(
        cls, model: nn.Module, start: Float32, num_rows: int, mask: Bool | None
    ) -> "_Rows":
        shapes = {
            name: part.shape
            for name, part in model.named_parameters()
            if part.requires_grad
        }
        first = _by_name(torch.from_numpy(start.copy()), shapes)
        values = {
            name: part.repeat(num_rows, *[1] * part.ndim)
            for name, part in first.items()
        }
        pruned = {}
        if mask is not None:
            pruned = _by_name(torch.from_numpy(~mask[: len(start)]), shapes)
        return cls(values, first, pruned)

    def matrix(self) -> Float32:
        """Return all values, float32 (K, d), parameters in the order of the spec."""
        flat = torch.cat([part.flatten(1) for part in self.values.values()], 1)
        array: Float32 = flat.numpy()
        return array


def _by_name(flat: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return views of the parameters in a vector of them."""
    parts = torch.split(flat, [math.prod(shape) for shape in shapes.values()])
    return {
        name: part.view(*shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Stacked:
    """A network for many clients, and their data."""

    model: nn.Module
    rows: _Rows
    data: Examples
    info: DataInfo

    def train(
        self, plan: _Plan, config: TrainConfig, local: LocalSettings, rate: float
    ) -> Float64:
        """Make all steps; return each row's mean loss, float64 (K,)."""
        chain = dense_chain(self.model, self.info.task)
        gradients = chain.gradients if chain else self._gradients
        masked, mu = bool(self.rows.pruned), local.proximal_mu
        fused = is_plain_sgd(config, proximal_mu=mu, masked=masked)
        updates = {
            name: make_update(config, values, rate)
            for name, values in self.rows.values.items()
        }
        sizes = np.count_nonzero(plan.weights.numpy(), axis=2)
        total = np.zeros(len(plan.order))
        for step, (places, weights) in enumerate(
            zip(plan.places, plan.weights, strict=True)
        ):
            active = int(np.count_nonzero(plan.num_steps > step))
            values = {name: v[:active] for name, v in self.rows.values.items()}
            batch = (*self._examples(places[:active]), weights[:active])
            if chain and fused:
                losses = chain.descend(values, *batch, learning_rate=rate)
            else:
                grads, losses = gradients(values, *batch)
                self._adjust(grads, values, mu, config.clip_norm)
                for name, update in updates.items():
                    update(grads[name])
            total[:active] += losses.numpy() * sizes[step, :active]
        mean: Float64 = total / sizes.sum(0)
        return mean

    def _examples(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of a step, shape (K, b, ...).

        The raw examples are read where all lie: often they are bytes, a quarter of the
        traffic of floats, and a batch that was just normalized is in the cache.
        """
        chosen = self.data.take(places.numpy().reshape(-1))
        inputs, targets = tensors_of(chosen, self.info, _CPU)
        shape = places.shape
        return (
            inputs.view(*shape, *inputs.shape[1:]),
            targets.view(*shape, *targets.shape[1:]),
        )

    def _gradients(
        self,
        values: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        weights: Tensor,
    ) -> tuple[dict[str, Tensor], Tensor]:
        grads, losses = vmap(grad_and_value(self._loss))(
            dict(values), inputs, targets, weights
        )
        return grads, losses.detach()

    def _loss(
        self,
        values: dict[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
        weights: Tensor,
    ) -> Tensor:
        outputs = functional_call(self.model, values, (inputs,))
        return (example_losses(outputs, targets, self.info.task) * weights).sum()

    def _adjust(
        self,
        grads: dict[str, Tensor],
        values: Mapping[str, Tensor],
        proximal_mu: float,
        clip_norm: float,
    ) -> None:
        """Change gradients as `train_locally` does, each row by itself."""
        for name, grad in grads.items():
            if proximal_mu > 0.0:
                grad.add_(values[name] - self.rows.start[name], alpha=proximal_mu)
            if self.rows.pruned:
                grad.masked_fill_(self.rows.pruned[name], 0.0)
        if clip_norm > 0.0:
            norms = torch.stack([g.flatten(1).norm(dim=1) for g in grads.values()])
            factors = (clip_norm / (norms.norm(dim=0) + 1e-6)).clamp(max=1.0)
            for grad in grads.values():
                grad.mul_(factors.view(-1, *[1] * (grad.ndim - 1)))
