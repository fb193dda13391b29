import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.observe import Observed, observed
from fedge.compress.quantize import quantize_int8
from fedge.errors import CompressionError
from fedge.runtime.model_check import check_model
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.preprocess import Normalization
from fedge.runtime.ranges import Ranges

AS_IT_IS = Normalization((0.0,), (1.0,))


def ranges_of(watched: Observed, parts: list[AnyArray], how: Normalization) -> Ranges:
    """What several devices would find together, each with its part of the data."""
    predictor = OnnxPredictor(watched.graph, how)
    rows = np.concatenate([predictor.predict(part) for part in parts])
    low, high = np.split(rows, 2, axis=1)
    return Ranges(watched.names, low.min(axis=0), high.max(axis=0))


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def check_same(found: bytes, expected: bytes) -> None:
    """Equal but for a rounding error: two sessions add in different orders."""
    wanted = arrays_of(expected)
    assert list(arrays_of(found)) == list(wanted)
    for name, array in arrays_of(found).items():
        # A bias is a whole number of steps of its scale, so it may be off by one.
        is_code = array.dtype == np.int32
        tolerance = {"atol": 1} if is_code else {"rtol": 1e-5}
        np.testing.assert_allclose(array, wanted[name], **tolerance)


def test_ranges_of_parts_give_the_int8_model_that_all_examples_give(
    conv_model: bytes, images: Float32
) -> None:
    watched = observed(conv_model)
    ranges = ranges_of(watched, [images[:37], images[37:]], AS_IT_IS)
    found = quantize_int8(conv_model, ranges)
    check_same(found, quantize_int8(conv_model, images))


def test_a_recurrent_network_is_observed_around_its_recurrent_layer(
    recurrent_model: bytes, tokens: AnyArray
) -> None:
    watched = observed(recurrent_model)
    ranges = ranges_of(watched, [tokens[:30], tokens[30:]], Normalization())
    found = quantize_int8(recurrent_model, ranges)
    check_same(found, quantize_int8(recurrent_model, tokens))


def test_the_same_model_gives_the_same_graph(conv_model: bytes) -> None:
    assert observed(conv_model) == observed(conv_model)


def test_the_graph_is_one_that_a_device_accepts(conv_model: bytes) -> None:
    watched = observed(conv_model)
    assert len(check_model(watched.graph).outputs) == 1
    assert b"/tmp" not in watched.graph


def test_a_model_without_anything_to_quantize_is_refused() -> None:
    sides = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Sin", ["x"], ["y"])],
        "sine",
        [sides("x", TensorProto.FLOAT, ["n", 4])],
        [sides("y", TensorProto.FLOAT, ["n", 4])],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    with pytest.raises(CompressionError, match="no tensor to observe"):
        observed(model.SerializeToString())
