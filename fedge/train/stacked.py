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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn.modules.dropout import _DropoutNd

from fedge.arrays import Bool, Float32, Float64, Int64, check_finite
from fedge.config import Augmentation, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.errors import DataError
from fedge.models.vector import params_of, set_params, spec_of
from fedge.strategy import LocalSettings
from fedge.train.batches import batch_norms
from fedge.train.dense import dense_chain, is_plain_sgd
from fedge.train.objectives import example_losses
from fedge.train.optimizer import make_update
from fedge.train.tensors import tensors_of
from fedge.train.trainer import LocalUpdate, start_of


def can_stack(model: nn.Module, config: TrainConfig) -> bool:
    """Say whether clients with this model and these settings can train together."""
    parts = list(model.modules())
    drops = any(isinstance(part, _DropoutNd) and part.p > 0.0 for part in parts)
    recurs = any(isinstance(part, nn.RNNBase) for part in parts)
    plain = config.augment is Augmentation.none
    return plain and not drops and not recurs and not batch_norms(model)


def train_stacked(
    model: nn.Module,
    params: Float32,
    examples: Sequence[Examples],
    info: DataInfo,
    config: TrainConfig,
    *,
    local: LocalSettings,
    learning_rate: float,
    mask: Bool | None,
    rngs: Sequence[np.random.Generator],
) -> list[LocalUpdate]:
    """Train copies of the global model, each on one client's examples, on the CPU.

    Guarantee: each update equals that of `train_locally` with the same arguments within
    float tolerance.

    Args:
        model: the network, which `can_stack`; its values are scratch space.
        params: the global model, float32, shape (d,); not written to.
        examples: of each client, at least one.
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
    set_params(model.train(), spec, start_of(params, mask, spec))
    plan = _plan_of(examples, config, rngs, info)
    ordered = [examples[client] for client in plan.order]
    inputs, targets = _tensors_of_all(ordered, info)
    rows = _Rows.of(model, len(examples), mask)
    stacked = _Stacked(model, rows, inputs, targets, info.task)
    losses = stacked.train(plan, config, local, learning_rate)
    final = np.tile(params_of(model, spec), (len(examples), 1))
    final[plan.order, : spec.num_trainable] = rows.matrix()
    check_finite(final, "models after local training")
    check_finite(losses, "losses of local training")
    final -= params
    loss_by_client = dict(zip(plan.order.tolist(), losses.tolist(), strict=True))
    steps = dict(zip(plan.order.tolist(), plan.num_steps.tolist(), strict=True))
    return [
        LocalUpdate(final[client], len(mine), loss_by_client[client], steps[client])
        for client, mine in enumerate(examples)
    ]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which examples each step of each client sees.

    Attributes:
        order: clients by falling number of steps, int64 (K,); rows are in this order.
        num_steps: of each row, int64 (K,).
        places: of the examples in the joined data, int64 (steps, K, b).
        weights: of the examples in the row's mean, float32 (steps, K, b); 0 where a
            batch is shorter than b, or a row has no such step.
    """

    order: Int64
    num_steps: Int64
    places: Tensor
    weights: Tensor


def _plan_of(
    examples: Sequence[Examples],
    config: TrainConfig,
    rngs: Sequence[np.random.Generator],
    info: DataInfo,
) -> _Plan:
    grids = []
    for mine, rng in zip(examples, rngs, strict=True):
        if len(mine) == 0:
            raise DataError(f"{info.name}: this device has no examples to train on")
        rng.integers(2**63)  # what seeds dropout when a client trains alone
        grids.append(_grid(len(mine), config, rng))
    steps = np.array([len(grid) for grid in grids])
    order = np.argsort(-steps, kind="stable")
    begins = np.cumsum([0, *(len(examples[client]) for client in order)])
    chosen = np.full((steps.max(), len(grids), config.batch_size), -1)
    for row, client in enumerate(order):
        chosen[: steps[client], row] = grids[client]
    chosen = chosen[:, :, (chosen >= 0).any((0, 1))]
    real = chosen >= 0
    places = np.where(real, chosen + begins[:-1, None], 0)
    weights = real / np.maximum(real.sum(2, keepdims=True), 1)
    return _Plan(
        order,
        steps[order],
        torch.from_numpy(places),
        torch.from_numpy(weights.astype(np.float32)),
    )


def _grid(num_examples: int, config: TrainConfig, rng: np.random.Generator) -> Int64:
    """Return one client's batches, int64 (steps, batch size), -1 where one is shorter.

    They are those of `endless_batches`.
    """
    num_batches = -(-num_examples // config.batch_size)
    num_steps = config.steps or config.epochs * num_batches
    passes = -(-num_steps // num_batches)
    grid: Int64 = np.full((passes, num_batches * config.batch_size), -1)
    for one_pass in grid:
        one_pass[:num_examples] = rng.permutation(num_examples)
    return grid.reshape(-1, config.batch_size)[:num_steps]


def _tensors_of_all(
    examples: Sequence[Examples], info: DataInfo
) -> tuple[Tensor, Tensor]:
    """Return the inputs and targets of all clients, one client after the other."""
    place = torch.device("cpu")
    # One by one: a client's examples stay in the cache while they are normalized.
    pairs = [tensors_of(mine, info, place) for mine in examples]
    return torch.cat([pair[0] for pair in pairs]), torch.cat([p[1] for p in pairs])


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
    def of(cls, model: nn.Module, num_rows: int, mask: Bool | None) -> "_Rows":
        start = {
            name: part.detach().clone()
            for name, part in model.named_parameters()
            if part.requires_grad
        }
        values = {
            name: part.repeat(num_rows, *[1] * part.ndim)
            for name, part in start.items()
        }
        pruned: dict[str, Tensor] = {}
        if mask is not None:
            sizes = [part.numel() for part in start.values()]
            parts = torch.split(torch.from_numpy(~mask[: sum(sizes)]), sizes)
            for (name, part), flags in zip(start.items(), parts, strict=True):
                pruned[name] = flags.view(part.shape)
        return cls(values, start, pruned)

    def matrix(self) -> Float32:
        """Return all values, float32 (K, d), parameters in the order of the spec."""
        flat = torch.cat([part.flatten(1) for part in self.values.values()], 1)
        array: Float32 = flat.numpy()
        return array


@dataclass(frozen=True, slots=True)
class _Stacked:
    """A network for many clients, and their data."""

    model: nn.Module
    rows: _Rows
    inputs: Tensor
    targets: Tensor
    task: Task

    def train(
        self, plan: _Plan, config: TrainConfig, local: LocalSettings, rate: float
    ) -> Float64:
        """Make all steps; return each row's mean loss, float64 (K,)."""
        chain = dense_chain(self.model, self.task)
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
            chosen = places[:active]
            values = {name: v[:active] for name, v in self.rows.values.items()}
            batch = (self.inputs[chosen], self.targets[chosen], weights[:active])
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
        return (example_losses(outputs, targets, self.task) * weights).sum()

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
