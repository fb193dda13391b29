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


@st.composite
def shapes_of_views(draw: st.DrawFn) -> onnx.ModelProto:
    """Return a model that makes zeros, as many as sides of a view of its input say."""
    shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=3))
    declared = list(shape)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}
    name = "x"
    for place in range(draw(st.integers(0, 4))):
        new = f"v{place}"
        axis = draw(st.integers(0, len(shape) - 1))
        match draw(st.sampled_from(["product", "turn", "widen", "split", "cut"])):
            case "product":
                width = draw(st.integers(1, 9))
                constants[f"{new}w"] = np.ones((shape[-1], width), np.float32)
                nodes += op("MatMul", [name, f"{new}w"], new)
                shape[-1] = width
            case "turn":
                order = draw(st.permutations(range(len(shape))))
                nodes.append(helper.make_node("Transpose", [name], [new], perm=order))
                shape = [shape[i] for i in order]
            case "widen":
                side = draw(st.sampled_from([axis, axis - len(shape) - 1]))
                constants[f"{new}a"] = np.array([side])
                nodes += op("Unsqueeze", [name, f"{new}a"], new)
                shape.insert(side % (len(shape) + 1), 1)
            case "split" if shape[axis] > 2:
                outputs = [new, f"{new}b"]
                node = helper.make_node(
                    "Split", [name], outputs, axis=axis, num_outputs=2
                )
                nodes.append(node)
                shape[axis] = -(-shape[axis] // 2)
            case _:
                constants |= {f"{new}s": np.array([0]), f"{new}e": np.array([2])}
                nodes += op("Slice", [name, f"{new}s", f"{new}e"], new)
                shape[0] = min(shape[0], 2)
        name = new
    start, end = draw(st.integers(-4, 3)), draw(st.integers(-4, 4))
    constants |= {"start": np.array([start]), "end": np.array([end])}
    nodes += [
        *op("Shape", [name], "sides"),
        *op("Slice", ["sides", "start", "end"], "some"),
        *op("Concat", ["some", "some"], "twice"),
        *op("ConstantOfShape", ["twice"], "zeros"),
    ]
    nodes[-2].attribute.append(helper.make_attribute("axis", 0))
    arrays = [numpy_helper.from_array(a, key) for key, a in constants.items()]
    model = model_proto(nodes, arrays, outputs=["zeros"])
    model.opset_import[0].version = 20
    sides = model.graph.input[0].type.tensor_type.shape
    for side in declared:
        sides.dim.add().dim_value = side
    return model


@settings(deadline=None, max_examples=200)
@given(model=shapes_of_views())
def test_zeros_are_no_more_than_the_sides_of_a_view_say(model: onnx.ModelProto) -> None:
    found = read_onnx(model.SerializeToString())
    *_, (_, bound) = elements_made(found)
    declared = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    inputs = {"x": np.zeros(declared, np.float32)}
    (zeros,) = ReferenceEvaluator(model).run(None, inputs)
    assert np.asarray(zeros).size <= bound


def test_a_causal_mask_is_bounded_by_the_sequence() -> None:
    """What torch exports for scaled_dot_product_attention(is_causal=True)."""
    width, length = 64, 128
    constants = {
        "w": np.ones((width, 3 * width), np.float32),
        "one": np.array([1]),
        "start": np.array([-2]),
        "end": np.array([-1]),
        "fill": np.array(1, np.float32),
    }
    nodes = [
        *op("MatMul", ["x", "w"], "qkv"),
        helper.make_node("Split", ["qkv"], ["q", "k", "v"], axis=2, num_outputs=3),
        *op("Unsqueeze", ["q", "one"], "heads"),
        *op("Shape", ["heads"], "sides"),
        *op("Slice", ["sides", "start", "end"], "rows"),
        helper.make_node("Concat", ["rows", "rows"], ["square"], axis=0),
        *op("Expand", ["fill", "square"], "mask"),
        *op("Trilu", ["mask"], "causal"),
        *op("Add", ["heads", "causal"], "y"),
    ]
    arrays = [numpy_helper.from_array(a, name) for name, a in constants.items()]
    model = model_proto(nodes, arrays)
    sides = model.graph.input[0].type.tensor_type.shape
    sides.dim.add().dim_param = "batch"
    for side in (length, width):
        sides.dim.add().dim_value = side
    made = {node.op_type: n for node, n in elements_made(read_onnx(bytes_of(model)))}
    assert length**2 <= made["Expand"] <= max(length, width) ** 2 == made["Trilu"]


def bytes_of(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString())
