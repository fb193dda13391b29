"""Hand-made graphs: a step of a linear model, and what a hostile server would send."""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

from fedge.config import Task
from fedge.config.experiment import to_json
from fedge.runtime.graph import METADATA, GraphInfo, GraphKind

LINEAR = {
    "task": Task.regression,
    "tokens": False,
    "input_shape": [3],
    "target_shape": [],
    "names": ["weight"],
    "shapes": [[3]],
    "prunable": [True],
    "num_trainable": 1,
}


def info_of(**changes: Any) -> GraphInfo:  # noqa: ANN401 - any field
    return GraphInfo(**{"kind": GraphKind.train, **LINEAR, **changes})


def linear_step() -> bytes:
    """Return the file of a step that halves the parameters; the loss is their sum."""
    nodes = [
        helper.make_node("ReduceSum", ["params"], ["loss"], keepdims=0),
        helper.make_node("Mul", ["params", "half"], ["new_params"]),
    ]
    return file_of(nodes)


def file_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    info: str | None = None,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[str] = ("loss", "new_params"),
    domain: str = "",
    entries: int = 1,
) -> bytes:
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    graph = helper.make_graph(
        list(nodes),
        "step",
        list(linear_inputs() if inputs is None else inputs),
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [half],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain, 20)], ir_version=10
    )
    for _ in range(entries):
        text = to_json(info_of()) if info is None else info
        model.metadata_props.add(key=METADATA, value=text)
    data: bytes = model.SerializeToString()
    return data


def linear_inputs(
    features: Sequence[int | str] = ("n", 3), kind: int = TensorProto.FLOAT
) -> list[onnx.ValueInfoProto]:
    shapes: dict[str, Sequence[int | str]] = {
        "x": features,
        "params": (3,),
        "y": ("n",),
        "learning_rate": (),
    }
    return [
        helper.make_tensor_value_info(
            name, kind if name == "x" else TensorProto.FLOAT, shape
        )
        for name, shape in shapes.items()
    ]
