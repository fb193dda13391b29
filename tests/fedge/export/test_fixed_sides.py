"""Known parts of shapes become literals; the network computes the same."""

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedge.arrays import Float32
from fedge.export.fixed_sides import with_fixed_sides
from fedge.export.onnx import export_onnx
from fedge.runtime.growth import elements_made
from fedge.runtime.model_check import check_model


class Attention(nn.Module):
    """Causal attention of several heads, as one writes it with torch."""

    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.project, self.heads = nn.Linear(width, 3 * width), heads

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 (n, time, width)."""
        parts = self.project(x).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return found.transpose(1, 2).flatten(2)


def texts(count: int, length: int = 96) -> Float32:
    drawn = np.random.default_rng(0).normal(size=(count, length, 64))
    return drawn.astype(np.float32)


def test_a_causal_mask_is_as_large_as_the_text() -> None:
    torch.manual_seed(0)
    net = Attention().eval()
    file = export_onnx(net, texts(2))
    made = {node.op_type: n for node, n in elements_made(check_model(file))}
    assert made["Expand"] == 96 * 96
    found = ort.InferenceSession(file).run(None, {"input": texts(5)})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, net(torch.from_numpy(texts(5))), atol=1e-5)
    assert len(file) < 4 * sum(p.numel() for p in net.parameters()) + 6_000


def shaped(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto
    arrays = {"zero": [0], "one": [1], "two": [2], "last": [-1], "both": [[1, 2]]}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Shape", ["x"], ["s"]), *nodes],
        "shapes",
        [info("x", kind.FLOAT, ["n", 3, 4])],
        [info("y", kind.INT64, None)],
        [onnx.numpy_helper.from_array(np.array(a), n) for n, a in arrays.items()],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)


def node(kind: str, *inputs: str) -> onnx.NodeProto:
    return onnx.helper.make_node(kind, list(inputs), ["part"])


DOUBLE = onnx.helper.make_node("Add", ["part", "part"], ["y"])


def test_what_is_known_becomes_a_literal_and_what_is_open_does_not() -> None:
    x = np.zeros((7, 3, 4), np.float32)
    for part, expected, is_literal in (
        (node("Slice", "s", "one", "last"), [6], True),
        (node("Slice", "s", "one", "two"), [6], True),
        (node("Gather", "s", "both"), [[6, 8]], True),
        (node("Gather", "s", "last"), [8], True),
        (node("Slice", "s", "zero", "two"), [14, 6], False),
        (node("Gather", "s", "zero"), [14], False),
    ):
        model = shaped(part, DOUBLE)
        found = with_fixed_sides(model)
        kinds = [node.op_type for node in found.graph.node]
        assert (kinds == ["Add"]) == is_literal
        for file in (model, found):
            session = ort.InferenceSession(file.SerializeToString())
            assert session.run(None, {"x": x})[0].tolist() == expected


def test_a_model_without_shapes_is_left_alone() -> None:
    model = onnx.load_model_from_string(export_onnx(nn.Linear(64, 2), texts(1)[0]))
    assert with_fixed_sides(model) is model
