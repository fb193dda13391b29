"""What a run left in its folder, read back: the network and the data it learned from.

The settings are those in the journal. The folder may come from somebody else, so what
code they name is imported only if it is allowed again, and they name no folder of data.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from torch import nn

from fedge.arrays import AnyArray
from fedge.config import Experiment
from fedge.config.experiment import from_json
from fedge.data.dataset import DataInfo, FederatedData
from fedge.data.load import load
from fedge.errors import ConfigError, DataError
from fedge.models.build import build_model
from fedge.models.resize import resize, shapes_of
from fedge.models.vector import set_params, spec_of
from fedge.runtime.predictor import Predictor
from fedge.runtime.score import score_outputs
from fedge.seeding import Purpose, generator

_JOURNAL, _LAST = "journal.sqlite", "last.safetensors"


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run's model and data.

    Attributes:
        file: where the model was read from.
        network: with the trained weights, in evaluation mode.
        experiment: the run's settings.
        data: what it was trained and evaluated on.
    """

    file: Path
    network: nn.Module
    experiment: Experiment
    data: FederatedData

    @property
    def info(self) -> DataInfo:
        """What the data is."""
        return self.data.info

    def calibration(self) -> AnyArray:
        """Return training examples drawn by the seed, as model inputs, (n, ...)."""
        wanted = self.experiment.compression.calibration_examples
        rng = generator(self.experiment.run.seed, Purpose.MODEL, 1)
        drawn = self.data.train.draw(wanted, rng)
        return self.info.normalization.apply(drawn.features)

    def score(self, predictor: Predictor) -> float:
        """Return the score of a model on held-out data."""
        test = self.data.test
        outputs = predictor.predict(test.features)
        return score_outputs(outputs, test.targets, self.info.task).score


def read_run(
    model: Path, data_root: Path | None, *, allow: Sequence[str]
) -> FinishedRun:
    """Read a run's model and what belongs to it.

    Args:
        model: the run's folder, or a `.safetensors` file in it.
        data_root: folder with the data sets' subfolders; None for embedded data.
        allow: packages besides fedge's own from which a loader or a network may come.

    Raises:
        DataError: a file is missing or damaged, or the model is not the run's.
        ConfigError: the settings name code that is not allowed.
    """
    file = model / _LAST if model.is_dir() else model
    arrays = _arrays(file)
    experiment = _settings(file.parent / _JOURNAL)
    data = load(experiment.data, root=data_root, allow=allow)
    seed = experiment.run.seed
    network = build_model(experiment.model, data.info, seed=seed, allow=allow)
    shapes = {name: arrays[name].shape for name in shapes_of(network) if name in arrays}
    try:
        if shapes != shapes_of(network):
            network = resize(network, shapes, data.info)
        spec = spec_of(network)
        set_params(network, spec, spec.flatten(arrays))
    except (ConfigError, ValueError) as exc:
        raise DataError(f"{file}: not a model of this run ({exc})") from exc
    return FinishedRun(file, network.eval(), experiment, data)


def _arrays(file: Path) -> dict[str, AnyArray]:
    try:
        return load_arrays(file.read_bytes())
    except OSError as exc:
        raise DataError(f"{file}: {exc.strerror}") from exc
    except (SafetensorError, ValueError) as exc:
        raise DataError(f"{file}: not a model in safetensors format ({exc})") from exc


def _settings(journal: Path) -> Experiment:
    """Return the settings in a run's journal."""
    try:
        uri = f"{journal.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            query = "SELECT value FROM meta WHERE name = 'settings'"
            [(text,)] = connection.execute(query).fetchall()
    except (sqlite3.DatabaseError, ValueError) as exc:
        raise DataError(f"{journal}: not a readable journal ({exc})") from exc
    return from_json(Experiment, str(text))
