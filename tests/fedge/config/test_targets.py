"""Code chosen by text comes from an allowed package, or not at all."""

import sys
from pathlib import Path

import pytest

from fedge.aggregation.totals import WeightedSum
from fedge.config.targets import resolve
from fedge.errors import ConfigError
from strategies.fedavg import FedAvg


def refusal(name: str, *allow: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(name, "strategy._target_", allow=allow)
    return str(caught.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's package; importing it leaves a mark."""
    (tmp_path / "users_lab").mkdir()
    (tmp_path / "users_lab" / "__init__.py").write_text("from users_lab.own import f")
    (tmp_path / "users_lab" / "own.py").write_text(
        "from os import system\nclass A:\n    def f(self): ...\ndef f(): ...\nN = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_lab", raising=False)
    monkeypatch.delitem(sys.modules, "users_lab.own", raising=False)
    return "users_lab"


@pytest.mark.parametrize(
    "name", ["strategies.fedavg.FedAvg", "strategies.fedavg:FedAvg"]
)
def test_a_class_of_an_allowed_package_is_found(name: str) -> None:
    assert resolve(name, "strategy._target_") is FedAvg


def test_a_package_may_pass_on_what_one_of_its_modules_defines() -> None:
    assert resolve("fedge.aggregation.WeightedSum", "x") is WeightedSum


def test_flowers_strategies_are_allowed() -> None:
    found = resolve("flwr.serverapp.strategy.FedAvg", "strategy._target_")
    assert found.__module__.startswith("flwr.serverapp.strategy.")


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "os:system",
        "builtins.eval",
        "subprocess.Popen",
        "fedgex.y",
        "fedge_evil.y",
        "strategiesx.y",
        "flwr.server.strategy.FedAvg",
        "flwr.serverapp.strategyx.FedAvg",
        "xfedge.y",
        " fedge.errors.ConfigError",
        "fedge/errors.ConfigError",
        ".fedge.errors.ConfigError",
        "..fedge.x",
        "fedge",
        "strategies",
        ".",
        ":",
        "",
    ],
)
def test_a_name_outside_the_allowed_packages_is_refused_by_name(name: str) -> None:
    says = refusal(name)
    assert says.startswith(f"strategy._target_: {name!r} is not in an allowed package")
    assert "run.allow" in says


@pytest.mark.parametrize(
    "name",
    [
        "strategies..x",
        "strategies.",
        "strategies.fedavg.",
        "strategies.fedavg.FedAvgg",
        "strategies.fedavg.FedAvg ",
        "strategies.fedavg.Fed\x00Avg",
        "strategies.no_such_module.X",
        "fedge.errors:__class__.__base__",
        "strategies.fedavg.FedAvg.init",
        "strategies.fedavg:FedAvg.apply.__globals__",
        "fedge.config.targets.importlib.import_module",
        "fedge.config.targets:importlib.import_module",
        "fedge.config.experiment:json.loads",
        "fedge.config.experiment:json:loads",
        "strategies.fedavg.np.load",
        "strategies.fedavg:np.load",
    ],
)
def test_a_name_that_reaches_through_something_is_not_found(name: str) -> None:
    assert "cannot find" in refusal(name)


@pytest.mark.parametrize(
    "name",
    [
        "fedge.errors:__builtins__",
        "fedge.errors.__doc__",
        "fedge.config.experiment._adapter",
        "fedge.config.experiment.json",
        "strategies.fedavg.np",
        "fedge.config.experiment.MAX_JSON_BYTES",
    ],
)
def test_only_public_classes_and_functions_are_returned(name: str) -> None:
    assert refusal(name).endswith("is not a public class or function")


@pytest.mark.parametrize(
    ("name", "home"),
    [
        ("fedge.config.experiment.TypeAdapter", "pydantic.type_adapter"),
        ("fedge.config.experiment.asdict", "dataclasses"),
        ("fedge.config.experiment.Any", "typing"),
        ("fedge.runtime.predictor.Path", "pathlib"),
        ("fedge.arrays.Float32", "numpy"),
    ],
)
def test_what_an_allowed_module_merely_imports_is_refused(name: str, home: str) -> None:
    says = refusal(name)
    assert f"{name!r} was defined in {home}" in says
    assert "run.allow" in says


def test_nothing_is_imported_from_a_package_that_is_not_allowed(package: str) -> None:
    refusal(f"{package}.own.A")
    assert package not in sys.modules


def test_a_users_package_is_found_once_it_is_allowed(package: str) -> None:
    found = resolve(f"{package}.own.A", "x", allow=[package])
    assert found.__qualname__ == "A"
    assert resolve(f"{package}:f", "x", allow=[package]).__module__ == "users_lab.own"


def test_allowing_a_module_does_not_allow_its_neighbours(package: str) -> None:
    assert "not in an allowed package" in refusal(f"{package}:f", f"{package}.own")


def test_what_a_users_module_imports_needs_to_be_allowed_itself(package: str) -> None:
    assert "was defined in" in refusal(f"{package}.own.system", package)


def test_a_message_lists_the_users_packages_too(package: str) -> None:
    assert "users_lab" in refusal("os.system", package)
