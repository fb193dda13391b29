"""Going on with an earlier run: it is found by its folder and keeps its settings.

Imported before the settings are checked, so nothing heavy is imported at the top.
"""

from collections.abc import Sequence
from pathlib import Path

from fedge.config import Experiment
from fedge.config.experiment import from_json, to_json
from fedge.errors import ConfigError

_SETTINGS = "experiment.json"
_PREFIX = "run.resume="


def store_settings(experiment: Experiment, folder: Path) -> None:
    """Leave the settings in the run's folder, for whoever resumes it."""
    from server.summary import write_atomically

    write_atomically(folder / _SETTINGS, to_json(experiment).encode())


def stored_settings(folder: Path) -> Experiment:
    """Return the settings of the run in `folder`.

    Raises:
        ConfigError: there is no run, or its settings are damaged.
    """
    try:
        text = (folder / _SETTINGS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"run.resume: {folder} holds no run ({_SETTINGS} cannot be read)"
        ) from exc
    return from_json(Experiment, text)


def resumed_folder(overrides: Sequence[str]) -> Path | None:
    """Return the folder of the run that the command line resumes, if it does.

    Raises:
        ConfigError: the folder holds no run, or other settings are given beside it.
    """
    plain = [text.lstrip("+") for text in overrides]  # "++a=b" sets a, too
    named = [text.removeprefix(_PREFIX) for text in plain if text.startswith(_PREFIX)]
    if not named or not named[-1]:
        return None
    others = [text for text in plain if not text.startswith((_PREFIX, "hydra."))]
    if others:
        raise ConfigError(
            f"run.resume: a run goes on with its own settings; leave out "
            f"{' '.join(others)}"
        )
    folder = Path(named[-1]).resolve()
    stored_settings(folder)
    return folder
