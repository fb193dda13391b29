from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from clients.device import Device
from fedge.config import Backend
from fedge.errors import ConfigError


def device_of(**config: bool | int | float | str) -> Device:
    given = {name.replace("_", "-"): value for name, value in config.items()}
    return Device.of(
        Context(
            run_id=1, node_id=2, node_config=given, state=RecordDict(), run_config={}
        )
    )


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDGE_DATA_ROOT", raising=False)


def test_a_place_is_enough() -> None:
    assert device_of(partition_id=3) == Device(
        3, None, None, (), may_train_openly=False
    )


def test_everything_is_read_from_the_node_config() -> None:
    device = device_of(
        partition_id=0, data_root="/data", device_dir="/device", allow="a,b.c"
    )
    assert device == Device(
        0, Path("/data"), Path("/device"), ("a", "b.c"), may_train_openly=False
    )


def test_blanks_between_allowed_packages_do_no_harm() -> None:
    assert device_of(partition_id=0, allow=" a, b.c ,").allow == ("a", "b.c")


def test_the_environment_names_the_data_where_the_config_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEDGE_DATA_ROOT", "/environment")
    assert device_of(partition_id=0).data_root == Path("/environment")
    assert device_of(partition_id=0, data_root="/own").data_root == Path("/own")


@pytest.mark.parametrize("place", [-1, "0", 0.0, True])
def test_a_place_must_be_a_number_from_zero(place: bool | int | float | str) -> None:
    with pytest.raises(ConfigError, match=r"node config partition-id: .* from 0"):
        device_of(partition_id=place)


def test_a_missing_place_is_told() -> None:
    with pytest.raises(ConfigError, match="node config partition-id: None must"):
        device_of()


@pytest.mark.parametrize("name", ["data_root", "device_dir", "allow"])
def test_names_must_be_text(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name.replace('_', '-')}: 5 must be text"):
        device_of(partition_id=0, **{name: 5})


def test_a_device_trains_openly_only_if_its_owner_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not device_of(partition_id=0, secagg="required").may_train_openly
    assert device_of(partition_id=0, secagg="optional").may_train_openly
    monkeypatch.setenv("FEDGE_SECAGG", "optional")
    assert device_of(partition_id=0).may_train_openly
    with pytest.raises(ConfigError, match="secagg: 'off' not in"):
        device_of(partition_id=0, secagg="off")


def test_a_device_trains_with_what_its_owner_says_or_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("FEDGE_TRAIN_BACKEND", raising=False)
    assert device_of(partition_id=0).backend is Backend.torch  # installed for tests
    assert device_of(partition_id=0, train_backend="onnx").backend is Backend.onnx
    monkeypatch.setenv("FEDGE_TRAIN_BACKEND", "onnx")
    assert device_of(partition_id=0).backend is Backend.onnx
    with pytest.raises(ConfigError, match="train-backend: 'jax' not in"):
        device_of(partition_id=0, train_backend="jax")


def test_an_owner_can_name_the_graphs_that_are_run() -> None:
    assert device_of(partition_id=0).graphs == ()
    assert device_of(partition_id=0, train_graphs="ab, cd").graphs == ("ab", "cd")
