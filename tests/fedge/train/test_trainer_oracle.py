"""Local training beside a plain PyTorch loop: the same model, up to rounding."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fedge.arrays import Float32
from fedge.config import DataKind, ModelConfig, OptimizerName, Task, TrainConfig
from fedge.data.dataset import DataInfo, Examples
from fedge.models.build import build_model
from fedge.models.vector import params_of, spec_of
from fedge.runtime.preprocess import Normalization
from fedge.strategy import LocalSettings
from fedge.train.trainer import train_locally

NET = ModelConfig(widths=[6, 8], hidden=8)
IMAGES = DataInfo(
    "random",
    DataKind.image,
    Task.classification,
    (1, 8, 8),
    3,
    tuple("abc"),
    Normalization((8.0,), (4.0,)),
)


def make_examples() -> Examples:
    rng = np.random.default_rng(7)
    return Examples(rng.integers(0, 17, (40, 1, 8, 8)), rng.integers(0, 3, 40))


def plain_loop(model: torch.nn.Module, config: TrainConfig, mu: float) -> Float32:
    """The obvious way to do the same, for classification."""
    examples, rng = make_examples(), np.random.default_rng(0)
    rng.integers(2**63)
    inputs = torch.from_numpy(IMAGES.normalization.apply(examples.features))
    targets = torch.from_numpy(examples.targets)
    first = [parameter.detach().clone() for parameter in model.parameters()]
    kwargs: dict[str, Any] = {"lr": config.learning_rate}
    kwargs["weight_decay"] = config.weight_decay
    if config.optimizer is OptimizerName.sgd:
        kwargs["momentum"] = config.momentum
    choice = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[config.optimizer]
    optimizer = choice(model.parameters(), **kwargs)
    for _ in range(config.epochs):
        order = torch.from_numpy(rng.permutation(len(examples)))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), targets[batch])
            for parameter, begin in zip(model.parameters(), first, strict=True):
                loss = loss + 0.5 * mu * ((parameter - begin) ** 2).sum()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
            limit = config.clip_norm or float("inf")
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()
    return params_of(model, spec_of(model))


@pytest.mark.parametrize(
    ("config", "mu"),
    [
        (TrainConfig(batch_size=16), 0.0),
        (TrainConfig(batch_size=16, clip_norm=0.1, weight_decay=0.01), 0.5),
        (TrainConfig(optimizer=OptimizerName.adam, learning_rate=0.002), 0.1),
    ],
)
def test_training_is_what_a_plain_loop_does(config: TrainConfig, mu: float) -> None:
    model = build_model(NET, IMAGES, seed=0)
    params = params_of(model, spec_of(model))
    update = train_locally(
        model,
        params,
        make_examples(),
        IMAGES,
        config,
        local=LocalSettings(proximal_mu=mu),
        learning_rate=config.learning_rate,
        mask=None,
        rng=np.random.default_rng(0),
    )
    expected = plain_loop(build_model(NET, IMAGES, seed=0), config, mu) - params
    # Same mathematics; float32 sums over a few steps in another order. Adam divides by
    # small numbers, which enlarges that.
    np.testing.assert_allclose(update.delta, expected, rtol=1e-3, atol=2e-5)
