"""Which simulated devices train without PyTorch."""

from collections import Counter
from pathlib import Path

from fedge.config import Experiment
from fedge.config.fleet import DeviceKind
from fedge.fleet import make_fleet
from server.settings import compose_experiment
from server.setup import prepare
from simulations.devices import make_devices

PLAIN = ["run=quick", "release=none", "secagg=off", "model=logistic"]


def backends(folder: Path, *overrides: str) -> list[str]:
    setup = prepare(compose_experiment([*PLAIN, *overrides]))
    devices = make_devices(setup, folder)
    configs = [devices.node_config(index) for index in range(setup.num_devices)]
    return [str(config["train-backend"]) for config in configs]


def test_all_devices_have_torch_unless_graphs_are_offered(tmp_path: Path) -> None:
    assert set(backends(tmp_path)) == {"torch"}
    assert set(backends(tmp_path, "train.backend=onnx")) == {"onnx"}


def test_a_share_of_the_devices_trains_without_torch(tmp_path: Path) -> None:
    overrides = ["train.backend=onnx", "fleet.torch_free_share=0.5"]
    found = backends(tmp_path, *overrides, "fleet.num_devices=60")
    assert 15 < Counter(found)["onnx"] < 45
    assert found == backends(tmp_path, *overrides, "fleet.num_devices=60")


def test_kinds_that_cannot_hold_torch_always_train_without(tmp_path: Path) -> None:
    overrides = ["train.backend=onnx", "fleet=pi_zoo", "fleet.torch_free_share=0"]
    found = backends(tmp_path, *overrides)
    experiment: Experiment = compose_experiment([*PLAIN, *overrides])
    fleet = make_fleet(experiment.fleet, num_devices=len(found), seed=0)
    small = [
        fleet.device(i).profile.name == DeviceKind.raspberry_pi_zero_2
        for i in range(len(found))
    ]
    assert found == ["onnx" if is_small else "torch" for is_small in small]
    assert 0 < sum(small) < len(small)
