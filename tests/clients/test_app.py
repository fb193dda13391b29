import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from clients.app import app
from fedge.arrays import UInt8
from fedge.compress.prune import pack_mask
from fedge.flower import LocalGrid
from fedge.flower.records import array_of
from fedge.flower.wire import (
    DESCRIBE,
    EVALUATE,
    EVALUATE_RELEASE,
    RELEASE,
    TRAIN,
    Description,
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
)
from fedge.strategy import LocalSettings
from server.settings import compose_experiment
from server.setup import Setup, prepare

NUM_DEVICES = 4


@pytest.fixture(autouse=True)
def _devices_may_train_openly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGE_SECAGG", "optional")


@pytest.fixture(scope="module")
def setup() -> Setup:
    torch.set_num_threads(1)
    return prepare(
        compose_experiment(
            [
                "run=quick",
                "secagg=off",
                "model=logistic",
                "train.epochs=1",
                "run.cohort=2",
                f"fleet.num_devices={NUM_DEVICES}",
                "data.max_examples=200",
            ]
        )
    )


def ask(
    content: RecordDict,
    kind: str,
    *,
    node: int = 3,
    config: Mapping[str, bool | int | float | str] | None = None,
) -> Message:
    grid = LocalGrid(app, num_clients=NUM_DEVICES, node_config=lambda _: config or {})
    (reply,) = grid.send_and_receive([Message(content, node, kind)])
    return reply


def refusal(reply: Message) -> str:
    assert reply.has_error()
    return reply.error.reason or ""


def request_of(setup: Setup, mask: UInt8 | None = None) -> TrainRequest:
    return TrainRequest(
        params=setup.initial_params,
        packed_mask=mask,
        task=setup.task,
        spec_digest=setup.spec.digest,
        round_index=0,
        learning_rate=0.05,
        local=LocalSettings(),
    )


def changed_task(setup: Setup, **changes: Any) -> str:  # noqa: ANN401 - any JSON
    return json.dumps(json.loads(setup.task) | changes)


def test_a_device_trains_and_always_answers_the_same(setup: Setup) -> None:
    content = request_of(setup).to_content()
    first, again, other = (
        TrainReply.from_content(
            ask(content, TRAIN, node=node).content, size=setup.spec.size
        )
        for node in (3, 3, 4)
    )
    assert first.delta.tobytes() == again.delta.tobytes()
    assert first.delta.tobytes() != other.delta.tobytes()
    assert (first.delta != 0).any()
    assert first.num_examples >= 1


def test_pruned_coordinates_are_not_trained(setup: Setup) -> None:
    mask = np.arange(setup.spec.size) % 2 == 0
    params = np.where(mask, setup.initial_params, np.float32(0.0))
    request = replace(request_of(setup, pack_mask(mask)), params=params)
    reply = ask(request.to_content(), TRAIN)
    delta = TrainReply.from_content(reply.content, size=setup.spec.size).delta
    assert (delta[~mask] == 0.0).all()
    assert (delta[mask] != 0.0).any()


def test_a_device_evaluates_what_it_is_sent(setup: Setup) -> None:
    request = EvaluateRequest(setup.initial_params, setup.task, setup.spec.digest)
    reply = EvaluateReply.from_content(ask(request.to_content(), EVALUATE).content)
    assert 0.0 <= reply.score <= 1.0
    assert reply.version == 0


def test_a_device_says_who_it_is() -> None:
    reply = ask(RecordDict(), DESCRIBE, node=4)
    assert Description.from_content(reply.content) == Description(2, version=0)


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_model_of_another_layout_is_refused(setup: Setup, kind: str) -> None:
    request = replace(request_of(setup), spec_digest="0" * 64)
    assert "laid out differently" in refusal(ask(request.to_content(), kind))


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_a_model_of_another_size_is_refused(setup: Setup, kind: str) -> None:
    request = replace(request_of(setup), params=setup.initial_params[:-1])
    reason = refusal(ask(request.to_content(), kind))
    assert reason.startswith("PeerError: array 'params': float32")


@pytest.mark.parametrize("num_bytes", [0, 1, 100_000])
def test_a_mask_of_another_size_is_refused(setup: Setup, num_bytes: int) -> None:
    request = request_of(setup, np.zeros(num_bytes, np.uint8))
    reason = refusal(ask(request.to_content(), TRAIN))
    assert reason.startswith("PeerError: pruning mask: packed mask")


def malformed(setup: Setup) -> dict[str, str]:
    return {
        "no JSON": "{",
        "nothing": "",
        "a list": "[]",
        "another name": changed_task(setup, more=1),
        "text for a number": changed_task(setup, seed="zero"),
        "unknown loader": changed_task(
            setup, data=json.loads(setup.task)["data"] | {"loader": "os:system"}
        ),
        "unknown builder": changed_task(
            setup, model=json.loads(setup.task)["model"] | {"builder": "os:system"}
        ),
        "file loader without files": changed_task(
            setup, data=json.loads(setup.task)["data"] | {"loader": "uci_har"}
        ),
        "deep": "[" * 60_000,
        "long": " " * 10**6,
        "seed below zero": changed_task(setup, seed=-1),
        "no devices": changed_task(setup, num_devices=0),
        "devices below zero": changed_task(setup, num_devices=-3),
        "fewer devices": changed_task(setup, num_devices=1),
        "a billion devices": changed_task(setup, num_devices=10**9),
    }


TASKS = [
    *("no JSON", "nothing", "a list", "another name", "text for a number"),
    *("unknown loader", "unknown builder", "file loader without files", "deep"),
    *("long", "seed below zero", "no devices", "devices below zero"),
    *("fewer devices", "a billion devices"),
]


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, EVALUATE_RELEASE])
@pytest.mark.parametrize("name", TASKS)
def test_a_malformed_task_is_refused_by_an_error_of_ours(
    setup: Setup, kind: str, name: str, tmp_path: Path
) -> None:
    task = malformed(setup)[name]
    content = replace(request_of(setup), task=task).to_content()
    reply = ask(content, kind, config={"device-dir": str(tmp_path)})
    error = refusal(reply).partition(":")[0]
    assert error in ("ConfigError", "DataError", "PeerError", "HealthCheckError")


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE, EVALUATE_RELEASE, RELEASE])
def test_an_empty_message_is_refused(kind: str, tmp_path: Path) -> None:
    reply = ask(RecordDict(), kind, config={"device-dir": str(tmp_path)})
    assert refusal(reply).startswith("PeerError: message: ")


@pytest.mark.parametrize("learning_rate", [float("nan"), float("inf"), -1.0])
def test_a_learning_rate_out_of_range_is_refused(
    setup: Setup, learning_rate: float
) -> None:
    request = replace(request_of(setup), learning_rate=learning_rate)
    assert "'learning-rate'" in refusal(ask(request.to_content(), TRAIN))


def test_training_that_diverges_is_refused_by_the_device(setup: Setup) -> None:
    request = replace(request_of(setup), learning_rate=1e38)
    assert "finite" in refusal(ask(request.to_content(), TRAIN))


def test_a_device_without_a_folder_takes_no_release() -> None:
    for kind in (RELEASE, EVALUATE_RELEASE):
        reason = refusal(ask(RecordDict(), kind))
        assert reason.startswith("ConfigError: this device takes no releases")


def test_a_release_that_is_none_is_refused(tmp_path: Path) -> None:
    junk = ArrayRecord({"1.root.json": array_of(np.zeros(9, np.uint8))})
    content = RecordDict({"release-metadata": junk, "release-targets": ArrayRecord()})
    reply = ask(content, RELEASE, config={"device-dir": str(tmp_path / "device")})
    assert refusal(reply).partition(":")[0].endswith("Error")


def test_nothing_installed_is_told(setup: Setup, tmp_path: Path) -> None:
    content = RecordDict({"config": ConfigRecord({"task": setup.task})})
    reply = ask(content, EVALUATE_RELEASE, config={"device-dir": str(tmp_path)})
    assert refusal(reply) == "HealthCheckError: no release is installed on this device"


def test_a_message_that_nobody_handles_is_refused() -> None:
    assert "No query function registered" in refusal(ask(RecordDict(), "query.shell"))
