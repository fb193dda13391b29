import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.recurrent import has_recurrent, store_recurrent_int8


@pytest.fixture(scope="module")
def weights() -> Float32:
    """Shape (1, 4 gates x 3 units, 2): rows of all sizes, one row zero, one tiny."""
    values = np.random.default_rng(1).normal(size=(1, 12, 2)).astype(np.float32)
    values *= np.float32(10.0) ** np.arange(-6, 6, dtype=np.float32)[:, None]
    values[0, 3], values[0, 4], values[0, 5, 0] = 0.0, 1e-44, 0.0
    return values


@pytest.fixture(scope="module")
def model(weights: Float32) -> bytes:
    """An LSTM whose recurrence weights reach it through an operator on constants."""
    recurrence = np.random.default_rng(2).normal(size=(12, 3)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["r", "axis"], ["r3"]),
            helper.make_node("LSTM", ["input", "w", "r3"], ["output"], hidden_size=3),
        ],
        "main",
        [helper.make_tensor_value_info("input", 1, ["time", "batch", 2])],
        [helper.make_tensor_value_info("output", 1, ["time", 1, "batch", 3])],
        initializer=[
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(recurrence, "r"),
            numpy_helper.from_array(np.zeros(1, np.int64), "axis"),
        ],
    )
    parsed = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    parsed.ir_version = 10
    result: bytes = parsed.SerializeToString()
    return result


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {w.name: numpy_helper.to_array(w) for w in graph.initializer}


def test_restored_weights_are_within_half_a_step(
    model: bytes, weights: Float32
) -> None:
    stored = arrays_of(store_recurrent_int8(model))
    restored = stored["w_int8"].astype(np.float64) * stored["w_scale"]
    step = np.abs(weights).max(axis=-1, keepdims=True) / 127
    # the step itself is rounded to float32: 1e-6 of 127 steps
    assert (np.abs(restored - weights) <= 0.501 * step + 1e-36).all()
    assert not restored[weights == 0].any()


def test_both_weight_matrices_are_stored_as_int8_and_nothing_else(model: bytes) -> None:
    stored = arrays_of(store_recurrent_int8(model))
    assert {k for k, v in stored.items() if v.dtype == np.int8} == {"w_int8", "r_int8"}
    assert stored["axis"].tolist() == [0]
    assert "w" not in stored


def test_the_network_computes_nearly_the_same(model: bytes) -> None:
    inputs = np.random.default_rng(3).normal(size=(5, 4, 2)).astype(np.float32)
    before, after = (
        ort.InferenceSession(m).run(None, {"input": inputs})[0]
        for m in (model, store_recurrent_int8(model))
    )
    assert np.abs(after - before).max() < 0.05  # outputs lie in [-1, 1]


def test_a_network_without_recurrent_layers_is_left_as_it_is(conv_model: bytes) -> None:
    assert not has_recurrent(onnx.load_model_from_string(conv_model).graph)
    assert arrays_of(store_recurrent_int8(conv_model)).keys() == (
        arrays_of(conv_model).keys()
    )
