"""A device without PyTorch: the same handlers, the same answers, or a clear error."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from clients.app import app
from fedge.compress.pack import pack
from fedge.compress.prune import pack_mask
from fedge.errors import CompressionError
from fedge.flower import LocalGrid
from fedge.flower.graph_records import MAX_PACKED_BYTES, PackedGraph
from fedge.flower.wire import (
    EVALUATE,
    TRAIN,
    EvaluateReply,
    EvaluateRequest,
    TrainReply,
    TrainRequest,
)
from fedge.strategy import LocalSettings
from server.graphs import offering
from server.settings import compose_experiment
from server.setup import OfferedGraphs, Setup, prepare
from simulations.benchmarks.torch_free_client import write_message

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_DEVICES = 4


@pytest.fixture(autouse=True)
def _devices_may_train_openly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDGE_SECAGG", "optional")
    torch.set_num_threads(1)


@cache
def setup_with_graphs() -> Setup:
    experiment = compose_experiment(
        [
            "run=quick",
            "secagg=off",
            "model=logistic",
            "train.epochs=2",
            "train.backend=onnx",
            "run.evaluate_on_devices=true",
            "run.cohort=2",
            "partition=iid",  # the others' library imports PyTorch where it is found
            "compression.sparsity=0.5",
            f"fleet.num_devices={NUM_DEVICES}",
            "data.max_examples=200",
        ]
    )
    return offering(prepare(experiment), LocalSettings())


def graphs() -> tuple[PackedGraph, PackedGraph]:
    offered = setup_with_graphs().graphs
    assert isinstance(offered, OfferedGraphs)
    assert offered.train is not None
    assert offered.evaluate is not None
    return offered.train, offered.evaluate


def train_request(graph: PackedGraph | None) -> TrainRequest:
    setup = setup_with_graphs()
    mask = np.arange(setup.spec.size) % 3 != 0
    return TrainRequest(
        params=np.where(mask, setup.initial_params, np.float32(0.0)),
        packed_mask=pack_mask(mask),
        task=setup.task,
        spec_digest=setup.spec.digest,
        round_index=0,
        learning_rate=0.05,
        local=LocalSettings(),
        graph=graph,
    )


def evaluate_request(graph: PackedGraph | None) -> EvaluateRequest:
    setup = setup_with_graphs()
    return EvaluateRequest(setup.initial_params, setup.task, setup.spec.digest, graph)


def ask(content: RecordDict, kind: str, **config: str) -> Message:
    given = {name.replace("_", "-"): value for name, value in config.items()}
    grid = LocalGrid(app, num_clients=NUM_DEVICES, node_config=lambda _: given)
    node = min(grid.get_node_ids())
    (reply,) = grid.send_and_receive([Message(content, node, kind)])
    return reply


def refusal(content: RecordDict, kind: str = TRAIN, **config: str) -> str:
    reply = ask(content, kind, **({"train_backend": "onnx"} | config))
    assert reply.has_error()
    return reply.error.reason or ""


def in_a_process_without_torch(
    folder: Path, train: RecordDict, evaluate: RecordDict
) -> Mapping[str, Any]:
    write_message(train, folder, "train")
    write_message(evaluate, folder, "evaluate")
    ended = subprocess.run(
        [sys.executable, Path(__file__).with_name("torch_free_process.py"), folder],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: Mapping[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert {"torch", "onnx"}.isdisjoint(found["modules"])
    answers: Mapping[str, Any] = found["answers"]
    return answers


def test_a_process_without_torch_answers_as_one_with_it(tmp_path: Path) -> None:
    step, outputs = graphs()
    trained, judged = train_request(step), evaluate_request(outputs)
    answers = in_a_process_without_torch(
        tmp_path, trained.to_content(), judged.to_content()
    )
    size = setup_with_graphs().spec.size
    expected = TrainReply.from_content(
        ask(trained.to_content(), TRAIN, train_backend="torch").content, size=size
    )
    score = EvaluateReply.from_content(
        ask(judged.to_content(), EVALUATE, train_backend="torch").content
    )
    assert "error" not in answers["train"], answers["train"]
    np.testing.assert_allclose(answers["train"]["delta"], expected.delta, atol=1e-5)
    assert (expected.delta != 0).any()
    assert answers["train"]["num-examples"] == expected.num_examples
    assert answers["train"]["train_loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert answers["evaluate"]["score"] == score.score
    assert answers["evaluate"]["loss"] == pytest.approx(score.loss, rel=1e-4)


def test_without_torch_and_without_a_graph_the_error_says_what_to_do(
    tmp_path: Path,
) -> None:
    answers = in_a_process_without_torch(
        tmp_path, train_request(None).to_content(), evaluate_request(None).to_content()
    )
    for kind in ("train", "evaluate"):
        reason = answers[kind]["error"]
        assert reason.startswith("ConfigError: this device has no PyTorch")
        assert "train.backend=onnx" in reason


def test_a_device_that_prefers_graphs_trains_with_torch_where_there_is_none() -> None:
    size = setup_with_graphs().spec.size
    found, expected = (
        TrainReply.from_content(
            ask(train_request(None).to_content(), TRAIN, train_backend=name).content,
            size=size,
        )
        for name in ("onnx", "torch")
    )
    assert found.delta.tobytes() == expected.delta.tobytes()


def test_a_graph_always_gives_the_same_bytes() -> None:
    content = train_request(graphs()[0]).to_content()
    size = setup_with_graphs().spec.size
    first, again = (
        TrainReply.from_content(
            ask(content, TRAIN, train_backend="onnx").content, size=size
        )
        for _ in range(2)
    )
    assert first.delta.tobytes() == again.delta.tobytes()


def test_in_a_mixed_fleet_only_those_with_torch_are_computed_together() -> None:
    content, size = (
        train_request(graphs()[0]).to_content(),
        setup_with_graphs().spec.size,
    )

    def deltas(*, batching: bool) -> list[bytes]:
        def config(index: int) -> dict[str, bool | int | float | str]:
            return {"train-backend": "onnx" if index % 2 else "torch"}

        with LocalGrid(
            app,
            num_clients=NUM_DEVICES,
            workers=1,
            batching=batching,
            node_config=config,
        ) as grid:
            nodes = sorted(grid.get_node_ids())
            asked = [Message(content, node, TRAIN) for node in nodes]
            replies = {r.metadata.src_node_id: r for r in grid.send_and_receive(asked)}
        return [
            TrainReply.from_content(replies[node].content, size=size).delta.tobytes()
            for node in nodes
        ]

    alone, together = deltas(batching=False), deltas(batching=True)
    assert alone[1::2] == together[1::2]
    for one, other in zip(alone[::2], together[::2], strict=True):
        np.testing.assert_allclose(
            np.frombuffer(one, np.float32), np.frombuffer(other, np.float32), atol=1e-5
        )


def test_only_graphs_that_the_owner_names_are_run() -> None:
    step, outputs = graphs()
    named = f"{step.sha256}, {outputs.sha256}"
    content = train_request(step).to_content()
    reply = ask(content, TRAIN, train_backend="onnx", train_graphs=named)
    assert not reply.has_error()
    assert "train-graphs" in refusal(content, train_graphs=outputs.sha256)


def test_a_graph_for_the_other_purpose_is_refused() -> None:
    step, outputs = graphs()
    assert "made to evaluate" in refusal(train_request(outputs).to_content())
    assert "made to train" in refusal(evaluate_request(step).to_content(), EVALUATE)


def test_a_graph_of_another_layout_is_refused() -> None:
    request = replace(train_request(graphs()[0]), spec_digest="0" * 64)
    assert "laid out differently" in refusal(request.to_content())


DAMAGED: dict[str, Callable[[PackedGraph], PackedGraph]] = {
    "another digest": lambda g: replace(g, sha256="0" * 64),
    "cut off": lambda g: replace(g, data=g.data[:-9]),
    "nothing": lambda g: replace(g, data=b""),
    "no frame": lambda g: replace(g, data=b"x" * 100),
    "too long": lambda g: replace(g, data=b"\0" * (MAX_PACKED_BYTES + 1)),
    "no graph": lambda _: PackedGraph.of(b"no graph"),
    "an empty file": lambda _: PackedGraph.of(b""),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_graph_is_refused_by_an_error_of_ours(name: str) -> None:
    damaged = DAMAGED[name](graphs()[0])
    error = refusal(train_request(damaged).to_content()).partition(":")[0]
    allowed = ("VerificationError", "DigestMismatchError", "PeerError", "DataError")
    assert error in allowed


def test_a_bomb_is_not_unpacked() -> None:
    zeros = bytes(1 << 26)
    with pytest.raises(CompressionError, match="devices accept at most"):
        PackedGraph.of(zeros)
    bomb = PackedGraph(pack(zeros, level=3), hashlib.sha256(zeros).hexdigest())
    assert "at most" in refusal(train_request(bomb).to_content())
