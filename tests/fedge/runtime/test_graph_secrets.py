"""A hostile graph can choose what goes wrong: the error's words must not say it."""

import time

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fedge.arrays import Float32
from fedge.config import TrainConfig
from fedge.errors import VerificationError
from fedge.runtime.graph import GraphKind, load_graph
from fedge.runtime.training import train_on_graph
from fedge.strategy import LocalSettings
from tests.fedge.runtime.graphs import file_of

PARAMS = np.array([1, 2, 4], np.float32)


def constant(name: str, values: object, dtype: type = np.int64) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(np.array(values, dtype))
    return helper.make_node("Constant", [], [name], value=tensor)


SUM = helper.make_node("ReduceSum", ["params"], ["loss"], keepdims=0)
# An index, and a shape, made of the first example's first value.
INDEX = [
    constant("million", 1e6, np.float32),
    constant("first", [0]),
    constant("flat", [-1]),
    helper.make_node("Reshape", ["x", "flat"], ["values"]),
    helper.make_node("Gather", ["values", "first"], ["one"]),
    helper.make_node("Abs", ["one"], ["positive"]),
    helper.make_node("Mul", ["positive", "million"], ["large"]),
    helper.make_node("Cast", ["large"], ["number"], to=onnx.TensorProto.INT64),
]
HOSTILE = {
    "an index": helper.make_node("Gather", ["params", "number"], ["new_params"]),
    "a shape": helper.make_node("ConstantOfShape", ["number"], ["new_params"]),
}


def error_for(node: onnx.NodeProto, examples: Float32) -> str:
    graph = load_graph(file_of([*INDEX, SUM, node]), GraphKind.train)
    with pytest.raises(VerificationError) as caught:
        train_on_graph(
            graph, PARAMS, examples, np.zeros(len(examples), np.float32),
            TrainConfig(momentum=0.0, steps=1), local=LocalSettings(),
            learning_rate=0.1, mask=None, rng=np.random.default_rng(0),
        )  # fmt: skip
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_error_says_the_same_whatever_the_data_is(name: str) -> None:
    one, other = (np.full((4, 3), value, np.float32) for value in (0.25, 0.75))
    assert error_for(HOSTILE[name], one) == error_for(HOSTILE[name], other)


def test_a_graph_that_takes_too_long_is_stopped() -> None:
    side = 1500
    nodes = [
        constant("shape", [side, side]),
        helper.make_node("ConstantOfShape", ["shape"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{i}"] * 2, [f"m{i + 1}"]) for i in range(200)),
        helper.make_node("ReduceSum", ["m200"], ["loss"], keepdims=0),
        helper.make_node("Add", ["params", "params"], ["new_params"]),
    ]
    graph = load_graph(file_of(nodes), GraphKind.train)
    feeds = {
        "x": np.zeros((1, 3), np.float32),
        "y": np.zeros(1, np.float32),
        "params": PARAMS,
        "learning_rate": np.array(0.1, np.float32),
    }
    started = time.monotonic()
    with graph.running(seconds=0.2) as run, pytest.raises(VerificationError):
        run(feeds)
    assert time.monotonic() - started < 10.0  # all of it takes a quarter of a minute


def test_loading_computes_nothing() -> None:
    """400 MB of constants that a runtime would make while it loads the file."""
    nodes = [
        constant("shape", [100_000_000]),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["loss"], keepdims=0),
        helper.make_node("Add", ["params", "params"], ["new_params"]),
    ]
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _peak_mb()
    load_graph(file_of(nodes), GraphKind.train)
    assert _peak_mb() - before < 64


def _peak_mb() -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
