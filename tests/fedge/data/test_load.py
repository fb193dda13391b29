import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedge.config import DataConfig, DataKind, PartitionConfig, Task
from fedge.data.dataset import FederatedData
from fedge.data.load import LOADERS, load, shorten
from fedge.errors import ConfigError, DataError

MakeData = Callable[..., FederatedData]
REPOSITORY = Path(__file__).parents[3]
DATA_FILES = sorted((REPOSITORY / "conf" / "data").glob("*.yaml"))
PARTITION_FILES = sorted((REPOSITORY / "conf" / "partition").glob("*.yaml"))

OWN_LOADER = """
from dataclasses import replace
from fedge.data.digits import load_digits

def load(root):
    data = load_digits()
    return replace(data, info=replace(data.info, name=str(root)))

def load_nothing(root):
    return None
"""


def _composed(path: Path) -> DataConfig:
    schema = OmegaConf.structured(DataConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(path)))
    assert isinstance(config, DataConfig)
    return config


def test_equal_settings_give_the_very_same_object() -> None:
    assert load(DataConfig()) is load(DataConfig(name="other name"))


def test_threads_that_ask_at_once_get_the_same_object() -> None:
    config, found = DataConfig(max_examples=77), list[FederatedData]()
    threads = [
        threading.Thread(target=lambda: found.append(load(config))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(data) for data in found}) == 1
    assert len(found) == 4


def test_loaded_arrays_cannot_be_written_to() -> None:
    data = load(DataConfig())
    for array in (data.train.features, data.train.targets, data.test.features):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_the_folder_in_the_settings_is_never_read(tmp_path: Path) -> None:
    config = DataConfig(loader="fashion_mnist", root=str(tmp_path))
    with pytest.raises(DataError, match="no folder is set"):
        load(config)


@pytest.mark.parametrize(
    ("name", "near"), [("digit", "digits"), ("uci-har", "uci_har")]
)
def test_an_unknown_loader_is_answered_with_the_nearest_one(
    name: str, near: str
) -> None:
    message = rf"data\.loader: '{name}'.*shakespeare.*did you mean '{near}'"
    with pytest.raises(ConfigError, match=message):
        load(DataConfig(loader=name))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(kind=DataKind.table), "data.kind: table.*set data.kind=image"),
        (DataConfig(task=Task.regression), "set data.task=classification"),
        (DataConfig(natural_clients=True), "set data.natural_clients=false"),
    ],
)
def test_settings_that_contradict_the_data_are_refused(
    config: DataConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(config)


def test_a_loader_of_ones_own_gets_the_folder_if_its_package_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_loaders.py").write_text(OWN_LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = DataConfig(loader="own_loaders:load")
    with pytest.raises(ConfigError, match=r"data\.loader.*run\.allow"):
        load(config, root=tmp_path)
    data = load(config, root=tmp_path, allow=["own_loaders"])
    assert data.info.name == str(tmp_path)
    with pytest.raises(ConfigError, match="returned NoneType"):
        load(DataConfig(loader="own_loaders.load_nothing"), allow=["own_loaders"])


def test_max_examples_keeps_classes_mixed_and_the_test_part_whole() -> None:
    data = load(DataConfig(max_examples=200))
    assert len(data.train) == 200
    assert len(data.test) == len(load(DataConfig()).test)
    assert np.bincount(data.train.targets, minlength=10).min() >= 8


def test_max_examples_beyond_the_data_changes_nothing() -> None:
    assert len(load(DataConfig(max_examples=10**6)).train) == 1438


def test_shortening_drops_and_renumbers_owners(make_data: MakeData) -> None:
    data = make_data([0, 1] * 50, owners=list(range(100)))
    few, more = shorten(data, 10), shorten(data, 20)
    assert sorted(few.owners.tolist()) == list(range(10))
    # Each label of this data follows from its owner: odd owners have label 1.
    numbers = [int(name.split()[1]) for name in few.owner_names]
    found = [numbers[owner] % 2 for owner in few.owners.tolist()]
    assert found == few.train.targets.tolist()
    np.testing.assert_array_equal(few.train.features, more.train.features[:10])


def test_a_missing_package_is_named_with_what_to_install() -> None:
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from fedge.config import DataConfig; from fedge.data.load import load\n"
        "from fedge.errors import ConfigError\n"
        "try: load(DataConfig())\n"
        "except ConfigError as exc: print(exc)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    assert "data.loader: 'digits' needs the package 'sklearn'" in result.stdout
    assert "fedge[simulation]" in result.stdout


def test_there_is_one_settings_file_for_each_built_in_loader() -> None:
    assert [path.stem for path in DATA_FILES] == sorted(LOADERS)


@pytest.mark.parametrize("path", PARTITION_FILES, ids=lambda path: path.stem)
def test_a_partition_file_fills_the_settings_of_its_kind(path: Path) -> None:
    schema = OmegaConf.structured(PartitionConfig)
    config = OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.load(path)))
    assert isinstance(config, PartitionConfig)
    assert config.kind == path.stem


@pytest.mark.parametrize("path", DATA_FILES, ids=lambda path: path.stem)
def test_a_settings_file_works_without_any_folder_being_set(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEDGE_DATA_ROOT", raising=False)
    config = _composed(path)
    assert (config.name, config.root) == (path.stem, "")


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_settings_files_of_embedded_data_fit_it(name: str) -> None:
    data = load(_composed(REPOSITORY / "conf" / "data" / f"{name}.yaml"))
    assert data.info.name == name


@pytest.mark.local_data
@pytest.mark.parametrize("path", DATA_FILES, ids=lambda path: path.stem)
def test_every_settings_file_fits_the_real_data(path: Path, data_root: Path) -> None:
    config = _composed(path)
    data = load(config, root=data_root)
    assert data.info.name == config.name
    assert not data.train.features.flags.writeable
