"""Small files that ask for much while they are loaded, each by a trick of its own.

Every one of them made the runtime allocate hundreds of megabytes, or end the process,
before it was refused.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedge.arrays import AnyArray
from fedge.errors import DataError
from fedge.runtime.model_check import check_model

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
SIDE = 1 << 14
Nodes = list[onnx.NodeProto]


def op(kind: str, inputs: Sequence[str], output: str, **settings: Any) -> Nodes:  # noqa: ANN401  # as helper.make_node
    return [helper.make_node(kind, list(inputs), [output], **settings)]


def empty(*sides: int) -> onnx.TensorProto:
    return helper.make_tensor("z", FLOAT, sides, [])


def model(
    nodes: Nodes,
    *tensors: onnx.TensorProto,
    declared: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 18,
    **constants: AnyArray | list[int] | list[list[int]],
) -> bytes:
    """Return a model that fills a tensor of shape `s`, and adds it to its input."""
    rest: Nodes = []
    if any("s" in node.output for node in nodes):
        ones = helper.make_tensor("v", FLOAT, [1], [1.0])
        rest += op("ConstantOfShape", ["s"], "c", value=ones)
    rest += op("ReduceMax", ["c"], "m", keepdims=0) + op("Add", ["x", "m"], "y")
    arrays = [numpy_helper.from_array(np.asarray(a), k) for k, a in constants.items()]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes + rest,
        "hostile",
        [info("x", FLOAT, ["n"])],
        [info("y", FLOAT, None)],
        [*tensors, *arrays],
        value_info=list(declared),
    )
    opsets = [helper.make_opsetid("", opset)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(made.SerializeToString())


def divided(numbers: list[int], kind: int) -> bytes:
    nodes = [
        *op("Cast", ["a"], "b", to=kind),
        *op("Cast", ["b"], "large", to=INT64),
        *op("Div", ["large", "d"], "s"),
    ]
    return model(nodes, a=numbers, d=[16] * len(numbers))


MANY = [[2] * 25]
ONE = helper.make_tensor("v", INT64, [1], [1])
HOSTILE: dict[str, bytes] = {
    "a slice of rows": model(
        op("Slice", ["a", "zero", "one"], "b") + op("Reshape", ["b", "flat"], "s"),
        a=MANY, zero=[0], one=[1], flat=[-1],
    ),
    "a row of rows": model(
        op("Gather", ["a", "zero"], "b") + op("Reshape", ["b", "flat"], "s"),
        a=MANY, zero=[0], flat=[-1],
    ),
    "the number of elements": model(
        op("Add", ["a", "b"], "t") + op("Size", ["t"], "k")
        + op("Unsqueeze", ["k", "zero"], "k1") + op("Gather", ["k1", "twice"], "s"),
        a=np.ones((1, 64), np.int32), b=np.ones((96, 1), np.int32),
        zero=[0], twice=[0, 0],
    ),
    "sides of an empty tensor": model(
        op("Shape", ["z"], "k") + op("Slice", ["k", "one", "three"], "s"),
        empty(0, SIDE, SIDE), one=[1], three=[3],
    ),
    "a product over nothing": model(
        op("MatMul", ["z", "w"], "c"),
        empty(SIDE, 0),
        w=np.zeros((0, SIDE), np.float32),
    ),
    "a sum over nothing": model(
        op("ReduceSum", ["z", "axes"], "c"), empty(0, 1 << 28), axes=[0]
    ),
    "an empty tensor with a frame": model(
        op("Pad", ["z", "pads"], "c"), empty(1 << 28, 0), pads=[0, 0, 0, 1]
    ),
    "elements for no indices": model(
        op("GatherND", ["d", "z"], "c"),
        helper.make_tensor("z", INT64, [1 << 26, 0], []),
        d=np.ones(4, np.float32),
    ),
    "a shape that is believed": model(
        op("Reshape", ["x", "square"], "w") + op("Shape", ["w"], "s"),
        square=[SIDE, SIDE],
    ),
    "a claim that is believed": model(
        op("Relu", ["x"], "w") + op("Shape", ["w"], "s"),
        declared=[helper.make_tensor_value_info("w", FLOAT, [1 << 28])],
    ),
    "-1 without a sign": divided([-1], TensorProto.UINT32),
    "two -1 without a sign": divided([-1, -1], TensorProto.UINT16),
    "a quotient of nothing": model(
        op("Div", ["one", "zero"], "inf") + op("Cast", ["inf"], "low", to=6)
        + op("Sub", ["low", "step"], "wrapped") + op("Cast", ["wrapped"], "wide", to=7)
        + op("Div", ["wide", "d"], "s"),
        one=np.ones(1, np.float32), zero=np.zeros(1, np.float32),
        step=np.ones(1, np.int32), d=[8],
    ),
    "a table of products": model(
        op("Mul", ["a", "b"], "t") + op("Reshape", ["t", "flat"], "s"),
        a=[[2]] * 7, b=[[1] * 4], flat=[-1],
    ),
    "ones, twice as large": model(
        op("ConstantOfShape", ["k"], "o", value=ONE)
        + op("Add", ["o", "o"], "t") + op("ReduceProd", ["t"], "s"),
        k=[28],
    ),
    "answers, one larger": model(
        op("Equal", ["a", "zero"], "e") + op("Cast", ["e"], "t", to=INT64)
        + op("Add", ["t", "one"], "u") + op("Slice", ["u", "zero", "end"], "v")
        + op("ReduceProd", ["v"], "s"),
        a=[0] * 65, zero=[0], one=[1], end=[28],
    ),
    "a size that keeps proportions": model(
        op(
            "Resize", ["z", "", "", "sizes"], "c",
            keep_aspect_ratio_policy="not_smaller", mode="nearest",
        ),
        z=np.ones((1, 1, 1), np.float32), sizes=[320, 1, 1],
    ),
    "windows as large as the data": model(
        op("MaxPool", ["z"], "c", kernel_shape=[1 << 14]),
        z=np.zeros((1, 1, 1 << 17), np.float32),
    ),
    "numbers as text": model(
        op("Cast", ["z"], "t", to=TensorProto.STRING)
        + op("Cast", ["t"], "c", to=FLOAT),
        z=np.zeros(1 << 20, np.int8),
    ),
    "the least number by -1": model(
        op("Div", ["a", "b"], "c"),
        a=np.array([-(2**31)], np.int32), b=np.array([-1], np.int32),
    ),
    "the least number by -1, after a Cast": model(
        op("Cast", ["a"], "b", to=TensorProto.INT32) + op("Mod", ["b", "d"], "c"),
        a=np.array([3e9], np.float32), d=np.array([-1], np.int32),
    ),
    "one weight in many layers": model(
        [
            node for n in range(40) for node in (
                *op("Conv", [f"i{n}", "w"], f"h{n}"),
                *op("Mul", [f"h{n}", "two"], f"i{n + 1}"),
            )
        ] + op("Relu", ["i40"], "c"),
        i0=np.zeros((1, 96, 1, 1), np.float32), w=np.zeros((96, 96, 3, 3), np.float32),
        two=np.ones((96, 1, 1), np.float32),
    ),
    "nothing, and one more": model(
        op("Concat", ["z"] * 25 + ["two"], "b", axis=0) + op("Mul", ["b", "ones"], "s"),
        helper.make_tensor("z", INT64, [0], []),
        two=[2], ones=[1] * 26,
    ),
    "the least of nothing": model(
        op("ReduceMin", ["z"], "low") + op("Sub", ["low", "one"], "less")
        + op("Div", ["less", "d"], "much") + op("Cast", ["much"], "s", to=INT64),
        helper.make_tensor("z", TensorProto.INT32, [0], []),
        one=np.ones(1, np.int32), d=np.full(1, 15, np.int32),
    ),
    "1 - 2 without a sign": model(
        op("Cast", ["one"], "a", to=TensorProto.UINT32)
        + op("Cast", ["two"], "b", to=TensorProto.UINT32)
        + op("Sub", ["a", "b"], "d") + op("Cast", ["d"], "e", to=INT64)
        + op("Div", ["e", "k"], "s"),
        one=[1], two=[2], k=[64],
    ),
    "infinity in 16 bits": model(
        op("Cast", ["a"], "h", to=TensorProto.FLOAT16)
        + op("Cast", ["h"], "i", to=TensorProto.INT32) + op("Sub", ["i", "one"], "j")
        + op("Div", ["j", "d"], "k") + op("Cast", ["k"], "s", to=INT64),
        a=[65520], one=np.ones(1, np.int32), d=np.full(1, 8, np.int32),
    ),
    "sixty axes": model(
        op("Reshape", ["x", "ones"], "w") + op("Shape", ["w"], "k")
        + op("Add", ["k", "one"], "t") + op("Slice", ["t", "zero", "end"], "s"),
        ones=[1] * 60, one=[1], zero=[0], end=[26],
    ),
    "parts without a place": model(
        [helper.make_node("Split", ["x"], ["c", "d", "e"], num_outputs=2)]
    ),
    "a name without an end": model(
        op("Relu", ["x"], "c" * 2000) + op("Neg", ["x"], "c")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_it_is_refused(name: str) -> None:
    assert len(HOSTILE[name]) < 2_100_000
    with pytest.raises(DataError, match="model file: "):
        check_model(HOSTILE[name])


def test_a_start_of_more_bits_than_its_type_has_is_no_number() -> None:
    """The runtime takes the lower 32 bits of it: 0."""
    start = TensorProto(name="start", data_type=TensorProto.INT32, dims=[1])
    nodes = op("Slice", ["a", "start", "end"], "s")
    whole = model(nodes, start, a=[2] * 26, end=[26])
    proto = onnx.load_model_from_string(whole)
    tensor = proto.graph.initializer[0].SerializeToString()
    long = tensor + b"\x2a\x05\x80\x80\x80\x80\x10"  # int32_data: 2**32
    framed = [b"\x2a" + bytes([len(part)]) + part for part in (tensor, long)]
    graph = proto.graph.SerializeToString()
    assert framed[0] in graph
    changed = graph.replace(*framed)
    proto.ClearField("graph")
    head = proto.SerializeToString()
    size = len(changed)
    with pytest.raises(DataError, match="ConstantOfShape can ask for"):
        check_model(head + b"\x3a" + bytes([size & 127 | 128, size >> 7]) + changed)


@pytest.mark.parametrize("settings", [{}, {"to": [1, 7]}, {"to": 1.0}, {"to": "x"}])
def test_a_cast_to_nothing_is_no_error_of_another_kind(
    settings: dict[str, Any],
) -> None:
    nodes = op("Cast", ["a"], "b", **settings) + op("Reshape", ["x", "b"], "c")
    with suppress(DataError):
        check_model(model(nodes, a=[-1]))


def test_what_exporters_do_with_shapes_is_accepted() -> None:
    """The same operators, as they are meant."""
    nodes = [
        *op("Shape", ["x"], "k"),
        *op("Gather", ["k", "zero"], "rows"),
        *op("Mul", ["rows", "two"], "twice"),
        *op("Div", ["twice", "two"], "half"),
        *op("Concat", ["half", "flat"], "t", axis=0),
        *op("Reshape", ["x", "t"], "w"),
        *op("Shape", ["w"], "k2"),
        *op("Slice", ["k2", "zero", "one"], "s"),
    ]
    check_model(model(nodes, zero=[0], one=[1], two=[2], flat=[-1]))
