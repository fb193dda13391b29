"""From `_target_` and arguments to a strategy, or to a message that helps."""

from pathlib import Path
from typing import Any

import pytest

from fedge.errors import ConfigError
from fedge.flower.adapter import FlowerStrategy
from fedge.strategy import Needs
from server.strategy import make_strategy
from strategies.fedadam import FedAdam

USERS = """
from strategies.fedavg import FedAvg


class Open:
    def __init__(self, **options): self.options = options
    init = apply = local = lambda *a: None


class Broken:
    def __init__(self, size=1): raise ValueError(f"size {size} is wrong")


class Nothing:
    pass


def make(momentum): return FedAvg()
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "users_strategies.py").write_text(USERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "users_strategies"


def refusal(settings: dict[str, Any], *allow: str) -> str:
    with pytest.raises(ConfigError) as caught:
        make_strategy(settings, allow=allow)
    return str(caught.value)


def test_our_own_strategy_is_made_with_its_arguments() -> None:
    settings = {"_target_": "strategies.fedadam.FedAdam", "tau": 0.5}
    assert make_strategy(settings) == FedAdam(tau=0.5)
    assert settings["_target_"]  # the settings themselves are left alone


@pytest.mark.parametrize(
    ("name", "needs"), [("FedAvg", Needs.SUM), ("FedMedian", Needs.UPDATES)]
)
def test_a_strategy_of_flowers_is_wrapped(name: str, needs: Needs) -> None:
    made = make_strategy({"_target_": f"flwr.serverapp.strategy.{name}"})
    assert isinstance(made, FlowerStrategy)
    assert made.needs is needs


@pytest.mark.parametrize(
    "target", [None, 3, "", "FedAvg", ["strategies.fedavg.FedAvg"]]
)
def test_a_target_that_is_no_name_in_a_package_is_refused(target: object) -> None:
    assert refusal({"_target_": target}).startswith("strategy._target_: ")
    assert refusal({}) == (
        "strategy._target_: None is not a name; use one such as "
        "strategies.fedavg.FedAvg"
    )


@pytest.mark.parametrize(
    ("target", "arguments", "says"),
    [
        ("strategies.fedavg.FedAvg", {"lr": 1}, "strategy.lr: "),
        ("strategies.fedadam.FedAdam", {"beta1": 1},
         "strategies.fedadam.FedAdam takes learning_rate, beta_1, beta_2, tau; "
         "did you mean strategy.beta_1?"),
        ("strategies.fedadam.FedAdam", {"tau": {"a": 1}}, "must be a plain value"),
        ("strategies.fedadam.FedAdam", {"tau": "1"}, "strategy.tau: '1' is not a num"),
        ("strategies.fedavg.FedAvgState", {}, "missing a required argument: 'params'"),
        ("strategies.fedavg.FedAvgState", {"params": 1}, "no init, apply and local"),
        ("fedge.config.experiment.to_json", {}, "missing a required argument"),
        ("fedge.strategy.Strategy", {}, "strategy: fedge.strategy.Strategy: "),
        ("fedge.errors.FedgeError", {}, "strategy._target_: fedge.errors.FedgeError"),
        ("flwr.serverapp.strategy.FedAvg", {"x": 1}, "strategy.x: "),
        ("flwr.serverapp.strategy.Strategy", {}, "strategy: Strategy: "),
    ],
)  # fmt: skip
def test_what_makes_no_strategy_is_refused_with_the_reason(
    target: str, arguments: dict[str, Any], says: str
) -> None:
    assert says in refusal({"_target_": target, **arguments})


def test_a_users_strategy_needs_its_package_allowed(users_module: str) -> None:
    settings = {"_target_": f"{users_module}.Open", "whatever": 3}
    assert "run.allow" in refusal(settings)
    made: Any = make_strategy(settings, allow=[users_module])
    assert made.options == {"whatever": 3}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("Broken", {"size": 5}, "strategy: users_strategies.Broken: size 5 is wrong"),
        ("Nothing", {}, "has no init, apply and local"),
        ("make", {}, "missing a required argument: 'momentum'"),
    ],
)
def test_a_users_strategy_that_cannot_be_made_is_refused(
    users_module: str, name: str, arguments: dict[str, Any], says: str
) -> None:
    settings = {"_target_": f"{users_module}.{name}", **arguments}
    assert says in refusal(settings, users_module)
