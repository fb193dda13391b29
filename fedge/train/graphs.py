"""Graphs for devices without torch, offered only if they train as PyTorch does.

Each graph is loaded and run as a device would, on made-up examples, and compared with
`train_locally` and `evaluate` before anybody is sent it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from fedge.arrays import AnyArray, Bool, Float32, ModelSpec
from fedge.config import Augmentation, OptimizerName, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.data.inputs import inputs_of
from fedge.errors import CompressionError, DataError, VerificationError
from fedge.export.training import evaluation_graph, training_graph
from fedge.models.vector import params_of, spec_of
from fedge.runtime.graph import Graph, GraphInfo, GraphKind, load_graph
from fedge.runtime.local import LocalUpdate
from fedge.runtime.training import evaluate_on_graph, train_on_graph
from fedge.strategy import LocalSettings
from fedge.train.batches import batch_norms
from fedge.train.evaluate import evaluate
from fedge.train.objectives import mean_loss
from fedge.train.trainer import train_locally

# Share of the update's length by which a graph may differ from PyTorch. Rounding gives
# 1e-6 after a step and, where activations fall on either side of a kink, up to 1e-2
# after several; a wrong gradient differs by about 1.
_AFTER_ONE_STEP, _AFTER_STEPS = 1e-3, 2e-2
_EVALUATION = 1e-3
_CHECKED_RATE = 0.05
_CHECKED_BATCH, _CHECKED_EXAMPLES = 8, 19  # two whole batches and a short one


def make_training_graph(
    model: nn.Module,
    info: DataInfo,
    config: TrainConfig,
    *,
    proximal: bool,
    masked: bool,
) -> bytes:
    """Return one optimizer step of a network, checked against PyTorch: an ONNX file.

    Guarantee: equal arguments give equal bytes, whatever the network's values.

    Args:
        model: the network; its values are scratch space, undefined afterwards.
        info: what it is fed with.
        config: which optimizer, and with what, a step has.
        proximal: whether a strategy may ask for a proximal term.
        masked: whether there may be a pruning mask.

    Raises:
        CompressionError: the network is outside the limits of a graph, or the graph
            does not do what PyTorch does; the message says why.
    """
    adam = config.optimizer is OptimizerName.adam
    task = info.task

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return mean_loss(outputs, targets, task)

    with _refusals(model):
        described = replace(
            _described(model, info, GraphKind.train),
            optimizer=config.optimizer,
            momentum=config.momentum > 0.0 and not adam,
            weight_decay=config.weight_decay > 0.0,
            clip_norm=config.clip_norm > 0.0,
            proximal=proximal,
            masked=masked,
            batch_norm=bool(batch_norms(model)),
        )
        graph = training_graph(model, described, loss)
        check_training(load_graph(graph, GraphKind.train), model, info, config)
    return graph


def make_evaluation_graph(model: nn.Module, info: DataInfo) -> bytes:
    """Return a network's outputs, checked against PyTorch, as an ONNX file.

    Arguments, guarantee and errors: as `make_training_graph`.
    """
    with _refusals(model):
        graph = evaluation_graph(model, _described(model, info, GraphKind.evaluate))
        _check_evaluation(load_graph(graph, GraphKind.evaluate), model, info)
    return graph


@contextmanager
def _refusals(model: nn.Module) -> Iterator[None]:
    """Let whatever is wrong with a graph be a reason not to offer it."""
    try:
        yield
    except (DataError, VerificationError, ValueError) as exc:
        raise CompressionError(f"{type(model).__name__}: {exc}") from exc


def _described(model: nn.Module, info: DataInfo, kind: GraphKind) -> GraphInfo:
    """Return what every graph of a network says of itself."""
    spec = spec_of(model)
    return GraphInfo(
        kind=kind,
        task=info.task,
        tokens=not info.normalization.mean,
        input_shape=list(info.input_shape),
        target_shape=_target_shape(model, info),
        names=[array.name for array in spec.arrays],
        shapes=[list(array.shape) for array in spec.arrays],
        prunable=[array.prunable for array in spec.arrays],
        num_trainable=sum(array.trainable for array in spec.arrays),
    )


@torch.no_grad()
def _target_shape(model: nn.Module, info: DataInfo) -> list[int]:
    if info.task is not Task.next_token:
        return []
    was_training = model.training
    inputs = info.normalization.apply(_made_up_features(info, 2))
    outputs: Tensor = model.eval()(torch.from_numpy(inputs))
    model.train(was_training)
    return list(outputs.shape[1:-1])


@dataclass(frozen=True, slots=True)
class _Case:
    """One comparison: so many examples, so many steps (0: two passes)."""

    num_examples: int
    steps: int
    tolerance: float


def check_training(
    graph: Graph, model: nn.Module, info: DataInfo, config: TrainConfig
) -> None:
    """Raise CompressionError unless a graph trains this network as PyTorch does."""
    cases = [
        _Case(_CHECKED_EXAMPLES, 1, _AFTER_ONE_STEP),
        _Case(_CHECKED_EXAMPLES, 0, _AFTER_STEPS),
    ]
    if graph.info.batch_norm:  # a last single example, and nothing but one
        cases.append(_Case(2 * _CHECKED_BATCH + 1, 0, _AFTER_STEPS))
        cases.append(_Case(1, 1, _AFTER_ONE_STEP))
    shortened = replace(
        config, augment=Augmentation.none, epochs=2, batch_size=_CHECKED_BATCH
    )
    for case in cases:
        asked = replace(shortened, steps=case.steps)
        expected, found = _both(graph, model, info, asked, case.num_examples)
        _compare(expected, found, case)


def _both(
    graph: Graph,
    model: nn.Module,
    info: DataInfo,
    config: TrainConfig,
    num_examples: int,
) -> tuple[LocalUpdate, LocalUpdate]:
    examples = _made_up(graph.info, info, num_examples)
    inputs, targets = inputs_of(examples, info)
    params = made_up_params(model)
    local = LocalSettings(proximal_mu=0.1 if graph.info.proximal else 0.0)
    rate = min(config.learning_rate, _CHECKED_RATE)
    mask = _made_up_mask(graph.spec) if graph.info.masked else None

    def rng() -> np.random.Generator:
        return np.random.default_rng(0)

    expected = train_locally(
        model,
        params,
        examples,
        info,
        config,
        local=local,
        learning_rate=rate,
        mask=mask,
        rng=rng(),
    )
    found = train_on_graph(
        graph,
        params,
        inputs,
        targets,
        config,
        local=local,
        learning_rate=rate,
        mask=mask,
        rng=rng(),
    )
    return expected, found


def _compare(expected: LocalUpdate, found: LocalUpdate, case: _Case) -> None:
    length = float(np.linalg.norm(expected.delta))
    error = float(np.linalg.norm(expected.delta - found.delta))
    if not error <= case.tolerance * length:
        raise CompressionError(
            f"the training graph differs from PyTorch by {error:.3g} in an update of "
            f"length {length:.3g} after {expected.num_steps} steps of "
            f"{case.num_examples} examples, at most {case.tolerance * length:.3g}"
        )
    if not abs(expected.loss - found.loss) <= case.tolerance * max(expected.loss, 1.0):
        raise CompressionError(
            f"the training graph's loss is {found.loss:.6g}, PyTorch's "
            f"{expected.loss:.6g}"
        )


def _check_evaluation(graph: Graph, model: nn.Module, info: DataInfo) -> None:
    examples = _made_up(graph.info, info, _CHECKED_EXAMPLES)
    params = made_up_params(model)
    expected = evaluate(model, params, examples, info)
    found = evaluate_on_graph(
        graph, params, *inputs_of(examples, info), batch_size=_CHECKED_BATCH
    )
    limit = _EVALUATION * max(1.0, expected.loss)
    if not abs(expected.loss - found.loss) <= limit:
        raise CompressionError(
            f"the evaluation graph's loss is {found.loss:.6g}, PyTorch's "
            f"{expected.loss:.6g}"
        )


def _made_up_features(info: DataInfo, count: int) -> AnyArray:
    """Return raw features that are standard normal, or any token, once normalized."""
    rng, shape = np.random.default_rng(1), (count, *info.input_shape)
    if not info.normalization.mean:
        return rng.integers(0, info.num_outputs, shape)
    mean, std = (
        np.asarray(numbers, np.float32)
        for numbers in (info.normalization.mean, info.normalization.std)
    )
    if mean.size > 1:
        mean, std = (v.reshape(-1, *[1] * (len(shape) - 2)) for v in (mean, std))
    raw: AnyArray = rng.standard_normal(shape, np.float32) * std + mean
    return raw


def _made_up(graph: GraphInfo, info: DataInfo, count: int) -> Examples:
    rng = np.random.default_rng(2)
    features = _made_up_features(info, count)
    if info.task is Task.regression:
        return Examples(features, rng.standard_normal(count, np.float32))
    shape = (count, *graph.target_shape)
    return Examples(features, rng.integers(0, info.num_outputs, shape))


def made_up_params(model: nn.Module) -> Float32:
    """Return values with which every layer matters: a narrowed network's are zeros."""
    spec, rng = spec_of(model), np.random.default_rng(3)
    values = spec.unflatten(params_of(model, spec).copy())
    for array in spec.arrays:
        noise = rng.standard_normal(array.shape, np.float32)
        if array.trainable and len(array.shape) >= 2:
            values[array.name][...] = noise / np.sqrt(
                max(1, array.size // array.shape[0])
            )
        elif array.trainable:
            is_scale = array.name.endswith("weight")
            values[array.name][...] = float(is_scale) + 0.1 * noise
        elif array.name.endswith(("running_mean", "running_var")):
            values[array.name][...] += 0.1 * np.abs(noise)
    return spec.flatten(values)


def _made_up_mask(spec: ModelSpec) -> Bool:
    mask = np.ones(spec.size, np.bool_)
    rng = np.random.default_rng(4)
    for array, place in zip(spec.arrays, spec.slices().values(), strict=True):
        if array.prunable:
            mask[place] = rng.random(array.size) < 0.5
    return mask
