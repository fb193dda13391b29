"""Local training and evaluation without PyTorch: numpy and ONNX Runtime alone.

What the graph does in a step is what `fedge.train.trainer` does: the tests hold both to
the same updates. Everything around the step is shared with it (`local`, `augment`).
"""

import math
from collections.abc import Iterator
from itertools import islice

import numpy as np

from fedge.arrays import AnyArray, Bool, Float32
from fedge.config import OptimizerName, TrainConfig
from fedge.errors import DataError, PeerError, VerificationError
from fedge.runtime.augment import augment_arrays
from fedge.runtime.graph import Graph, GraphInfo, Run, saying_nothing
from fedge.runtime.local import (
    LocalUpdate,
    batch_sizes,
    check_trained,
    endless_indices,
    start_of,
)
from fedge.runtime.score import NOTHING, Evaluation, score_outputs
from fedge.strategy import LocalSettings

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam, as PyTorch's defaults


def train_on_graph(
    graph: Graph,
    params: Float32,
    inputs: AnyArray,
    targets: AnyArray,
    config: TrainConfig,
    *,
    local: LocalSettings,
    learning_rate: float,
    mask: Bool | None,
    rng: np.random.Generator,
) -> LocalUpdate:
    """Train a copy of the global model on one device's examples.

    Guarantee: equal arguments give equal bytes; the update is that of
    `fedge.train.trainer.train_locally` up to rounding; where the mask is False,
    params + delta is exactly 0.

    Args:
        graph: one optimizer step of this model.
        params: the global model, float32, shape (d,); not written to.
        inputs: normalized, as the graph takes them, at least one.
        targets: as the graph takes them.
        config: optimizer, length, batches, augmentation.
        local: what the strategy asks for.
        learning_rate: of this round, > 0.
        mask: True where a value is kept, shape (d,); None keeps all.
        rng: source of all randomness.

    Raises:
        DataError: there are no examples, or they do not fit the graph.
        PeerError: the graph cannot do what the settings ask for.
        VerificationError: the graph failed, or the trained model is not finite; the
            message is always the same (`saying_nothing`).
        ValueError: shapes do not fit, or the mask prunes a buffer.
    """
    info = graph.info
    check_graph_fits(info, config, local=local, masked=mask is not None)
    _check_examples(info, inputs, targets)
    start = start_of(params, mask, graph.spec)
    sizes = batch_sizes(len(inputs), config.batch_size, avoid_one=info.batch_norm)
    num_steps = config.steps or config.epochs * len(sizes)
    rng.integers(2**63)  # PyTorch's seed, for dropout: what is drawn next is the same
    feeds = _first_feeds(graph, start, config, local, mask)
    feeds |= {"frozen": np.array(min(sizes) == 1)} if info.batch_norm else {}
    names = ["params", *info.states, *(["buffers"] if info.batch_norm else [])]
    batches = (
        (chosen, augment_arrays(inputs[chosen], config.augment, rng), targets[chosen])
        for chosen in islice(endless_indices(len(inputs), sizes, rng), num_steps)
    )
    with saying_nothing(info.kind), graph.running() as run:
        mean_loss = _run_steps(
            run, feeds, names, batches, _rates(config, learning_rate)
        )
        delta = _delta(feeds, params)
        check_trained(delta, mean_loss, learning_rate)
    return LocalUpdate(delta, len(inputs), mean_loss, num_steps)


def _run_steps(
    run: Run,
    feeds: dict[str, AnyArray],
    names: list[str],
    batches: Iterator[tuple[AnyArray, AnyArray, AnyArray]],
    rates: Iterator[dict[str, AnyArray]],
) -> float:
    """Make a step for each batch, moving what is fed; return the mean loss."""
    losses, weights = [], []
    for (chosen, x, y), rate in zip(batches, rates, strict=False):
        feeds |= rate | {"x": x, "y": y}
        loss, *changed = run(feeds)
        _check_shapes(feeds, names, changed)
        feeds |= zip(names, changed, strict=True)
        losses.append(loss.reshape(()))
        weights.append(len(chosen))
    return float(np.average(np.stack(losses), weights=weights))


def evaluate_on_graph(
    graph: Graph,
    params: Float32,
    inputs: AnyArray,
    targets: AnyArray,
    *,
    batch_size: int = 512,
) -> Evaluation:
    """Return loss and score of a model; arguments as `train_on_graph`.

    Guarantee: as `fedge.train.evaluate.evaluate`, up to rounding.

    Raises:
        DataError: the examples do not fit the graph.
        VerificationError: the graph failed, or its outputs have no fitting shape.
        ValueError: `params` has another size than the model.
    """
    info = graph.info
    if len(inputs):
        _check_examples(info, inputs, targets)
    start = start_of(params, None, graph.spec)
    feeds = _model_feeds(graph, start)
    total = NOTHING
    with saying_nothing(info.kind), graph.running() as run:
        for first in range(0, len(inputs), batch_size):
            chosen = slice(first, first + batch_size)
            (outputs,) = run(feeds | {"x": inputs[chosen]})
            total += score_outputs(outputs, targets[chosen], info.task)
    return total


def check_graph_fits(
    info: GraphInfo, config: TrainConfig, *, local: LocalSettings, masked: bool
) -> None:
    """Raise PeerError unless a step of this graph does all that is asked for."""
    needed = {
        "momentum": config.momentum > 0.0 and config.optimizer is OptimizerName.sgd,
        "weight_decay": config.weight_decay > 0.0,
        "clip_norm": config.clip_norm > 0.0,
        "proximal": local.proximal_mu > 0.0,
        "masked": masked,
    }
    missing = [name for name, is_needed in needed.items() if is_needed]
    missing = [name for name in missing if not getattr(info, name)]
    if config.optimizer is not info.optimizer:
        missing.append(config.optimizer)
    if missing:
        raise PeerError(
            f"the server's training graph cannot do what its task asks for: "
            f"{', '.join(missing)}"
        )


def _check_examples(info: GraphInfo, inputs: AnyArray, targets: AnyArray) -> None:
    if len(inputs) == 0 or len(inputs) != len(targets):
        raise DataError(
            f"this device has {len(inputs)} examples and {len(targets)} targets"
        )
    ports = {"y": info.target_port, **info.inputs()}
    for name, array in (("x", inputs), ("y", targets)):
        dtype, (_, *shape) = ports[name]
        if array.dtype != dtype or array.shape[1:] != tuple(shape):
            raise DataError(
                f"{name}: {array.dtype} {array.shape[1:]}, the graph takes {dtype} "
                f"{tuple(shape)}"
            )


def _model_feeds(graph: Graph, start: Float32) -> dict[str, AnyArray]:
    trainable, buffers = np.split(start, [graph.spec.num_trainable])
    return {"params": trainable} | ({"buffers": buffers} if buffers.size else {})


def _first_feeds(
    graph: Graph,
    start: Float32,
    config: TrainConfig,
    local: LocalSettings,
    mask: Bool | None,
) -> dict[str, AnyArray]:
    info, size = graph.info, graph.spec.num_trainable
    feeds = _model_feeds(graph, start)
    feeds |= {name: np.zeros(size, np.float32) for name in info.states}
    if info.proximal:
        feeds["start"] = feeds["params"]
    if info.masked:
        feeds["mask"] = np.ones(size, np.bool_) if mask is None else mask[:size]
    numbers = {
        "momentum": config.momentum,
        "epsilon": EPSILON,
        "weight_decay": config.weight_decay,
        # A graph that can clip is also given to devices that shall not.
        "clip_norm": config.clip_norm or math.inf,
        "proximal_mu": local.proximal_mu,
    }
    return feeds | {
        name: _number(value)
        for name, value in numbers.items()
        if name in info.scalars()
    }


def _rates(config: TrainConfig, learning_rate: float) -> Iterator[dict[str, AnyArray]]:
    """Yield what each step takes of its own: the rate, and Adam's correction."""
    step = 0
    while True:
        step += 1
        if config.optimizer is OptimizerName.sgd:
            yield {"learning_rate": _number(learning_rate)}
            continue
        size = learning_rate / (1.0 - BETA1**step)
        correction = math.sqrt(1.0 - BETA2**step)
        yield {"learning_rate": _number(size), "correction": _number(correction)}


def _number(value: float) -> Float32:
    # One too large for float32 becomes an infinity, which the check at the end refuses.
    with np.errstate(over="ignore"):
        return np.array(value, np.float32)


def _check_shapes(
    feeds: dict[str, AnyArray], names: list[str], changed: list[Float32]
) -> None:
    for name, array in zip(names, changed, strict=True):
        if array.shape != feeds[name].shape:
            raise VerificationError(
                f"the server's graph gives {name} of shape {array.shape}, need "
                f"{feeds[name].shape}"
            )


def _delta(feeds: dict[str, AnyArray], params: Float32) -> Float32:
    parts = [feeds[name] for name in ("params", "buffers") if name in feeds]
    trained: Float32 = np.concatenate(parts)
    return np.subtract(trained, params, out=trained)
