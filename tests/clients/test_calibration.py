"""A device runs the server's graph as a stranger's, and sends ranges only."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from flwr.app import Message
from onnx import TensorProto, helper, numpy_helper

from clients.app import app
from fedge.arrays import AnyArray
from fedge.flower import LocalGrid
from fedge.flower.calibration_records import (
    CALIBRATE,
    CalibrateReply,
    CalibrateRequest,
)
from fedge.runtime.ranges import decode
from server.settings import compose_experiment
from server.setup import prepare

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def task() -> str:
    overrides = ["run=quick", "secagg=off", "model=logistic", "fleet.num_devices=5"]
    return prepare(compose_experiment(overrides)).task


def graph_of(nodes: Sequence[onnx.NodeProto], **constants: AnyArray) -> bytes:
    """A graph from images of 8 by 8 to `y`."""
    sides = helper.make_tensor_value_info
    graph = helper.make_graph(
        list(nodes),
        "ranges",
        [sides("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [sides("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def node(op: str, inputs: str, output: str) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output])


ONE = np.array([1, 1], np.int64)


def ends(first: str, second: str) -> bytes:
    """What a fair graph does with its input's least and largest value."""
    reduced = [
        helper.make_node("ReduceMin", ["x"], ["low"], keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["high"], keepdims=0),
        node("Reshape", f"{first} one", "first"),
        node("Reshape", f"{second} one", "second"),
        helper.make_node("Concat", ["first", "second"], ["y"], axis=1),
    ]
    return graph_of(reduced, one=ONE)


def ask(graph: bytes, task: str, *, num_examples: int = 40) -> Message:
    content = CalibrateRequest(graph, task, 1, num_examples, 1.0).to_content()
    grid = LocalGrid(app, num_clients=5, node_config=lambda _: {"secagg": "optional"})
    (reply,) = grid.send_and_receive([Message(content, 3, CALIBRATE)])
    return reply


def refusal(reply: Message) -> str:
    assert reply.has_error()
    return reply.error.reason or ""


def test_ranges_of_some_examples_come_back(task: str) -> None:
    reply = CalibrateReply.from_content(
        ask(ends("low", "high"), task).content, num_tensors=1, scale=1.0
    )
    assert reply.num_examples == 40.0
    low, high = decode(reply.places.astype(np.float64))
    assert -10 < low < 0 < high < 10


def test_the_same_question_gets_the_same_answer(task: str) -> None:
    first, again = (ask(ends("low", "high"), task).content for _ in range(2))
    assert first == again


HOSTILE = {
    "inverted": ends("high", "low"),
    "the examples themselves": graph_of([node("Flatten", "x", "y")]),
    "not a number": graph_of(
        [
            node("Sub", "x x", "zero"),
            helper.make_node("ReduceMax", ["zero"], ["none"], keepdims=0),
            node("Div", "none none", "nan"),
            node("Reshape", "nan one", "first"),
            helper.make_node("Concat", ["first", "first"], ["y"], axis=1),
        ],
        one=ONE,
    ),
    "a graph that eats memory": graph_of(
        [
            node("Flatten", "x", "v0"),
            *(
                helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=1)
                for i in range(36)
            ),
            node("Identity", "v36", "y"),
        ]
    ),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_graph_that_gives_no_ranges_is_answered_with_an_error(
    task: str, name: str
) -> None:
    assert "calibration: the server's graph" in refusal(ask(HOSTILE[name], task))


def test_a_graph_that_grows_is_refused_before_it_is_run(task: str) -> None:
    steps = [node("ConstantOfShape", "s", "c"), node("Add", "x c", "y")]
    graph = graph_of(steps, s=np.array([1 << 40]))
    assert "ConstantOfShape can ask for" in refusal(ask(graph, task))


def test_calibrating_needs_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, clients.calibration\n"
        "print('torch' in sys.modules, 'onnx' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]
