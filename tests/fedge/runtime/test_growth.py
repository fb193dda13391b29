"""The bound of what a runtime makes while it loads a model is never too small."""

from collections.abc import Callable
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from fedge.errors import DataError
from fedge.runtime.growth import elements_made
from fedge.runtime.onnx_file import read_onnx
from tests.fedge.runtime.onnx_models import model_proto

Step = Callable[[str, str], list[onnx.NodeProto]]


def op(kind: str, inputs: list[str], output: str) -> list[onnx.NodeProto]:
    return [helper.make_node(kind, inputs, [output])]


# Each makes `new` from a matrix `old`, as exporters do.
STEPS: dict[str, Step] = {
    "tile": lambda old, new: op("Tile", [old, "two"], new),
    "negate": lambda old, new: op("Neg", [old], new),
    "transpose": lambda old, new: op("Transpose", [old], new),
    "join": lambda old, new: [helper.make_node("Concat", [old, old], [new], axis=0)],
    "outer product": lambda old, new: op("Mul", [old, "column"], new),
    "look up": lambda old, new: op("Gather", [old, "places"], new),
    "fill": lambda old, new: [
        *op("Shape", [old], f"{new}s"),
        *op("ConstantOfShape", [f"{new}s"], new),
    ],
    "fill more": lambda old, new: [
        *op("Shape", [old], f"{new}s"),
        *op("Mul", [f"{new}s", "two"], f"{new}m"),
        *op("ConstantOfShape", [f"{new}m"], new),
    ],
    "fill a little more": lambda old, new: [
        *op("Shape", [old], f"{new}s"),
        *op("Add", [f"{new}s", "two"], f"{new}m"),
        *op("ConstantOfShape", [f"{new}m"], new),
    ],
    "expand": lambda old, new: [
        *op("Shape", [old], f"{new}s"),
        *op("Max", [f"{new}s", "two"], f"{new}m"),
        *op("ConstantOfShape", ["one"], f"{new}c"),
        *op("Expand", [f"{new}c", f"{new}m"], new),
    ],
    "pad": lambda old, new: op("Pad", [old, "pads"], new),
}
CONSTANTS = {
    "v0": np.ones((2, 3), np.float32),
    "two": np.array([2, 2]),
    "one": np.array([1, 1]),
    "places": np.array([0, 1, 1]),
    "column": np.ones((1, 1), np.float32),
    "pads": np.array([1, 0, 0, 2]),
}


def chain(names: list[str]) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    for place, name in enumerate(names):
        nodes += STEPS[name](f"v{place}", f"v{place + 1}")
    constants = [numpy_helper.from_array(a, name) for name, a in CONSTANTS.items()]
    return model_proto(nodes, constants, outputs=[f"v{len(names)}"])


def check_bounds(model: onnx.ModelProto) -> None:
    found = read_onnx(model.SerializeToString())
    bounds = [count for _, count in elements_made(found)]
    inputs = {"x": np.zeros(1, np.float32)}
    made = ReferenceEvaluator(model).run(None, inputs, intermediate=True)
    sizes = [np.asarray(made[node.output[0]]).size for node in model.graph.node]
    assert all(size <= bound for size, bound in zip(sizes, bounds, strict=True))


@pytest.mark.parametrize("name", sorted(STEPS))
def test_what_exporters_do_once_has_a_bound(name: str) -> None:
    check_bounds(chain([name]))


@settings(deadline=None, max_examples=60)
@given(names=st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=5))
def test_no_constant_is_larger_than_its_bound(names: list[str]) -> None:
    with suppress(DataError):  # refused: nothing is made
        check_bounds(chain(names))
