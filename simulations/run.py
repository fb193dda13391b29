"""The main job: a whole federation on one machine, from data to devices.

    python -m simulations.run                            the demo
    python -m simulations.run strategy=fedprox run.rounds=50
    python -m simulations.run -m strategy=fedavg,fedadam run.seed=0,1,2
    python -m simulations.run run.resume=outputs/latest

Settings are checked before anything heavy is imported, so a mistake costs no time.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fedge.config import Experiment
from fedge.errors import FedgeError
from server.settings import (
    CONF,
    ROOT_CONFIG,
    check_experiment,
    compose_experiment,
    expand_sweep,
    experiment_of,
    open_strategy,
    register_schema,
)
from simulations.resume import resumed_folder

_WRONG_SETTINGS = 2
_FAILED = 1
_INTERRUPTED = 130
_SWEEPS = ("-m", "--multirun")
# With any other option Hydra only prints something, or reads settings from elsewhere.
_CHECKED_OPTIONS = (*_SWEEPS, "-r", "--run")


def main() -> None:
    """Check the command line, then let Hydra start one run or a sweep."""
    arguments = sys.argv[1:]
    try:
        options = [text for text in arguments if text.startswith("-")]
        if all(option in _CHECKED_OPTIONS for option in options):
            _check(arguments)
        _enter_hydra(arguments)
    except FedgeError as exc:
        print(f"{type(exc).__name__}: {exc}", file=sys.stderr)
        is_setting = isinstance(exc, ValueError)
        sys.exit(_WRONG_SETTINGS if is_setting else _FAILED)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _check(arguments: Sequence[str]) -> None:
    """Compose every combination once; raise ConfigError for the first that is wrong."""
    overrides = _overrides(arguments)
    resumed_folder(overrides)
    sweeps = any(text in _SWEEPS for text in arguments)
    for combination in expand_sweep(overrides) if sweeps else [overrides]:
        compose_experiment(combination)


def _enter_hydra(arguments: Sequence[str]) -> None:
    register_schema()
    sys.argv[1:] = open_strategy(arguments)
    folder = resumed_folder(_overrides(arguments))
    if folder is not None:  # its log goes on, and what Hydra wrote there stays
        sys.argv += [f"hydra.run.dir={folder}", "hydra.output_subdir=null"]
    _hydra_main()


def _overrides(arguments: Sequence[str]) -> list[str]:
    return [text for text in arguments if not text.startswith("-")]


@hydra.main(config_path=str(CONF), config_name=ROOT_CONFIG, version_base="1.3")
def _hydra_main(composed: DictConfig) -> None:
    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        experiment = experiment_of(composed)
        check_experiment(experiment)
        _simulate(experiment, folder)
    except (FedgeError, KeyboardInterrupt) as exc:
        # Here and not in `main`: Hydra would print a stack trace of its own.
        sys.exit(_report_failure(exc))


def _simulate(experiment: Experiment, folder: Path) -> None:
    from simulations.federation import simulate_federation

    logging.getLogger("flwr").setLevel(logging.WARNING)
    simulate_federation(experiment, folder)


def _report_failure(exc: BaseException) -> int:
    if isinstance(exc, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
        return _INTERRUPTED
    print(f"\n{type(exc).__name__}: {exc}", file=sys.stderr)
    return _WRONG_SETTINGS if isinstance(exc, ValueError) else _FAILED


if __name__ == "__main__":
    main()
