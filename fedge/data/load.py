"""From `data.*` settings to checked examples, once per process.

The folder with the files is an argument and never taken from the settings: these may
come from a server, and a device reads only where its own configuration points.
"""

import difflib
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedge.config import DataConfig, DataKind, Task
from fedge.config.targets import resolve
from fedge.data.check import check_data
from fedge.data.dataset import FederatedData
from fedge.data.diabetes import load_diabetes
from fedge.data.digits import load_digits
from fedge.data.fashion_mnist import load_fashion_mnist
from fedge.data.heart_disease import load_heart_disease
from fedge.data.shakespeare import load_shakespeare
from fedge.data.shapes import load_shapes
from fedge.data.uci_har import load_uci_har
from fedge.errors import ConfigError

Loader = Callable[[Path | None], FederatedData]

LOADERS: dict[str, Loader] = {
    "diabetes": load_diabetes,
    "digits": load_digits,
    "fashion_mnist": load_fashion_mnist,
    "heart_disease": load_heart_disease,
    "shakespeare": load_shakespeare,
    "shapes": load_shapes,
    "uci_har": load_uci_har,
}
# Two sets at most are in use at once (a run and what it is compared with).
_CACHED_DATA_SETS = 2
# Simulated devices may run in threads; without it each would load for itself.
_lock = threading.Lock()


def load(
    config: DataConfig, *, root: Path | None = None, allow: Sequence[str] = ()
) -> FederatedData:
    """Return the data set, checked and shortened to `max_examples`.

    Guarantee: equal arguments give the very same object for as long as the process
    lives (or two other sets were asked for), and no array of it can be written to.

    Args:
        config: which data; its `root` is not used.
        root: folder with the data sets' subfolders; None for embedded data.
        allow: packages besides fedge's own from which a loader may come.

    Raises:
        ConfigError: no such loader, one that is not allowed or not installed, or one
            whose data is of another kind or task than the settings say.
        DataError: a file is missing or damaged, or the data is not sound.
    """
    with _lock:
        return _load(
            loader=config.loader,
            kind=config.kind,
            task=config.task,
            natural_clients=config.natural_clients,
            max_examples=config.max_examples,
            root=root,
            allow=tuple(allow),
        )


@lru_cache(maxsize=_CACHED_DATA_SETS)
def _load(
    *,
    loader: str,
    kind: DataKind,
    task: Task,
    natural_clients: bool,
    max_examples: int,
    root: Path | None,
    allow: tuple[str, ...],
) -> FederatedData:
    data = _call(loader, _find_loader(loader, allow), root)
    has_owners = len(data.owners) > 0
    _check_setting("kind", kind.value, data.info.kind.value, loader)
    _check_setting("task", task.value, data.info.task.value, loader)
    _check_setting("natural_clients", natural_clients, has_owners, loader)
    check_data(data)
    if 0 < max_examples < len(data.train):
        data = shorten(data, max_examples)
    _make_read_only(data)
    return data


def shorten(data: FederatedData, max_examples: int) -> FederatedData:
    """Return `data` with so many training examples, drawn with a fixed seed.

    Owners who have none left are dropped and the others renumbered, in the same order.

    Guarantee: the same examples each time; a larger number only adds examples.
    """
    kept = np.random.default_rng(0).permutation(len(data.train))[:max_examples]
    names, owners = data.owner_names, data.owners
    if len(owners):
        present, renumbered = np.unique(owners[kept], return_inverse=True)
        owners = renumbered.astype(np.int64)
        names = tuple(names[index] for index in present.tolist())
    return FederatedData(data.info, data.train.take(kept), data.test, owners, names)


def _find_loader(name: str, allow: tuple[str, ...]) -> Loader:
    if name in LOADERS:
        return LOADERS[name]
    if "." in name or ":" in name:
        return resolve(name, "data.loader", allow=allow, base=())
    near = difflib.get_close_matches(name, LOADERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"data.loader: {name!r} is not one of {', '.join(LOADERS)}, nor "
        f'"package.module:function"{hint}'
    )


def _call(name: str, loader: Loader, root: Path | None) -> FederatedData:
    try:
        data: object = loader(root)
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"data.loader: {name!r} needs the package {exc.name!r}; install "
            f"fedge[simulation], which has what the built-in loaders need"
        ) from exc
    if not isinstance(data, FederatedData):
        raise ConfigError(
            f"data.loader: {name!r} returned {type(data).__name__}, must return "
            f"fedge.data.dataset.FederatedData"
        )
    return data


def _check_setting(
    name: str, set_to: str | bool, found: str | bool, loader: str
) -> None:
    if set_to != found:
        raise ConfigError(
            f"data.{name}: {set_to}, but the data of loader {loader!r} is {found}; "
            f"set data.{name}={str(found).lower()}"
        )


def _make_read_only(data: FederatedData) -> None:
    for examples in (data.train, data.test):
        examples.features.setflags(write=False)
        examples.targets.setflags(write=False)
    data.owners.setflags(write=False)
