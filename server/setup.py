"""An experiment made ready to run: data, model, strategy and the devices' task."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fedge.arrays import Float32, ModelSpec
from fedge.config import Experiment, Quantization
from fedge.config.experiment import ClientTask, to_json
from fedge.data.dataset import FederatedData
from fedge.data.load import load
from fedge.errors import ConfigError
from fedge.flower.graph_records import PackedGraph
from fedge.models.build import build_model
from fedge.models.resize import Shapes, resize
from fedge.models.vector import params_of, spec_of
from fedge.strategy import Strategy
from fedge.train.batches import batch_norms
from server.settings import check_experiment
from server.strategy import make_strategy


@dataclass(frozen=True, slots=True)
class OfferedGraphs:
    """The training step and the outputs of the run's model.

    Attributes:
        train: as it travels; None if the model is outside the limits.
        evaluate: likewise; None also if nobody evaluates on devices.
        proximal: whether the step has the proximal term.
    """

    train: PackedGraph | None
    evaluate: PackedGraph | None
    proximal: bool


@dataclass(frozen=True, slots=True)
class Setup:
    """What every part of the coordinator needs.

    Attributes:
        experiment: the settings.
        strategy: the federated algorithm.
        data: the coordinator's copy of the data set: its held-out part evaluates the
            global model, some of the rest calibrates int8.
        model: a network to evaluate and export with; its weights are overwritten.
        spec: how its parameters lie in the flat vector.
        initial_params: the model before the first round, float32, shape (d,).
        num_devices: devices in the fleet.
        task: what devices are told (JSON of a `ClientTask`).
        graphs: what devices without PyTorch are sent (server/graphs.py); None if that
            was not tried.
    """

    experiment: Experiment
    strategy: Strategy[Any]
    data: FederatedData
    model: nn.Module
    spec: ModelSpec
    initial_params: Float32
    num_devices: int
    task: str
    graphs: OfferedGraphs | None = None


def prepare(experiment: Experiment) -> Setup:
    """Load the data and build the model and the strategy.

    Raises:
        ConfigError: settings do not fit together.
        DataError: the data is missing or damaged.
    """
    check_experiment(experiment)
    run = experiment.run
    root = Path(experiment.data.root) if experiment.data.root else None
    data = load(experiment.data, root=root, allow=run.allow)
    model = build_model(experiment.model, data.info, seed=run.seed, allow=run.allow)
    _check_training_for_codebook(experiment, model)
    spec = spec_of(model)
    num_devices = experiment.fleet.num_devices or len(data.owner_names)
    if num_devices < run.cohort:
        raise ConfigError(
            f"run.cohort: {run.cohort} is more than the {num_devices} owners of "
            f"data={data.info.name}; lower it"
        )
    return Setup(
        experiment=experiment,
        strategy=make_strategy(experiment.strategy, allow=run.allow),
        data=data,
        model=model,
        spec=spec,
        initial_params=params_of(model, spec),
        num_devices=num_devices,
        task=_task(experiment, num_devices, {}),
    )


def _check_training_for_codebook(experiment: Experiment, model: nn.Module) -> None:
    config = experiment.compression
    is_codebook = config.quantization is Quantization.codebook
    if config.qat_rounds and is_codebook and batch_norms(model):
        raise ConfigError(
            f"compression.qat_rounds: {config.qat_rounds} rounds for "
            "compression.quantization=codebook, but batch normalization will be folded "
            "into the weights of this model, each channel with a factor of its own, "
            "and 16 values no longer do; choose int4, or qat_rounds=0"
        )


def resized(setup: Setup, shapes: Shapes) -> Setup:
    """Return the setup of the same run with a narrower network; see `resize`.

    Args:
        setup: as prepared, or resized before.
        shapes: of the network's parameters; empty for those it was built with.

    Raises:
        ConfigError: the shapes are not those of a narrower network of this kind.
    """
    experiment, info = setup.experiment, setup.data.info
    run = experiment.run
    model = build_model(experiment.model, info, seed=run.seed, allow=run.allow)
    if shapes:
        model = resize(model, shapes, info)
    task = _task(experiment, setup.num_devices, shapes)
    return replace(setup, model=model, spec=spec_of(model), task=task, graphs=None)


def _task(experiment: Experiment, num_devices: int, shapes: Shapes) -> str:
    # A device looks for data in its own folder; the coordinator's is not its business.
    return to_json(
        ClientTask(
            seed=experiment.run.seed,
            num_devices=num_devices,
            data=replace(experiment.data, root=""),
            partition=experiment.partition,
            model=experiment.model,
            train=experiment.train,
            shapes={name: list(shape) for name, shape in shapes.items()},
        )
    )
