"""Files of any origin: what is not ready for compression becomes so, and no more."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedge.arrays import Float32
from fedge.compress.plan import build
from fedge.config.compression import Quantization
from fedge.errors import CompressionError
from fedge.export.tidy import tidy
from fedge.runtime.model_check import check_model

FORMS = ["float32", "int8", "dynamic", "int4", "codebook"]


def images(count: int = 32) -> Float32:
    drawn = np.random.default_rng(1).normal(size=(count, 3, 8, 8))
    return drawn.astype(np.float32)


def network(
    opset: int = 17,
    *,
    weight: str = "w",
    head: str = "head",
    output: str = "y",
    weights_are_inputs: bool = False,
    ir_version: int = 8,
) -> bytes:
    """Return a convolution and a layer of classes, with chosen names."""
    rng = np.random.default_rng(0)
    arrays = {
        weight: rng.normal(size=(16, 3, 3, 3)),
        "bias": rng.normal(size=16),
        head: rng.normal(size=(16, 20)),
    }
    nodes = [
        helper.make_node("Conv", ["x", weight, "bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", head], [output]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, ["n", 3, 8, 8])]
    if weights_are_inputs:
        inputs += [value(n, TensorProto.FLOAT, a.shape) for n, a in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "network",
        inputs,
        [value(output, TensorProto.FLOAT, ["n", 20])],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)
    return bytes(model.SerializeToString())


def outputs(model: bytes) -> Float32:
    result: Float32 = ort.InferenceSession(model).run(None, {"x": images()})[0]
    return result


def test_what_is_ready_is_left_alone() -> None:
    assert tidy(network()) == network()


@pytest.mark.parametrize(
    "model",
    [
        network(head="w_scale"),
        network(head="w_int8_"),
        network(head="bias_zero_point"),
        network(head="x_scale"),
        network(head="w_scale", weights_are_inputs=True),
        network(weight="v0", head="v0_cast", output="v1"),
        network(weights_are_inputs=True),
        network(11, weights_are_inputs=True, ir_version=3),
        network(13, weights_are_inputs=True, ir_version=3),
        network(head="w_scale", output="v0_scale"),
        network(9),
        network(11, head="w_scale"),
        network(12),
    ],
)
def test_every_form_of_what_is_made_ready_computes_the_same(model: bytes) -> None:
    ready = tidy(model)
    assert ready != model
    assert tidy(ready) == ready
    check_model(ready)
    onnx.checker.check_model(ready)
    np.testing.assert_allclose(outputs(ready), outputs(model), rtol=1e-4, atol=1e-5)
    models = build(model, images(), Quantization.smallest)
    assert list(models) == FORMS
    assert models["float32"] == model
    for form, found in models.items():
        scale = np.abs(outputs(model)).max()
        assert np.abs(outputs(found) - outputs(model)).max() < 0.25 * scale, form


@pytest.mark.parametrize("output", ["x_scale", "x_QuantizeLinear_Output"])
def test_an_output_that_a_pass_would_make_from_the_input_is_refused(
    output: str,
) -> None:
    with pytest.raises(CompressionError, match=f"x and {output}"):
        tidy(network(output=output))


def test_operators_too_old_to_be_converted_are_refused() -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "b"], ["y"], broadcast=1, axis=1)],
        "old",
        [value("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [value("y", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [numpy_helper.from_array(np.ones(3, np.float32), "b")],
    )
    opsets = [helper.make_opsetid("", 6)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(CompressionError, match="opset 13 or later"):
        tidy(model.SerializeToString())
