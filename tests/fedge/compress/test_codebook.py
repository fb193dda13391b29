import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.cluster import codebook_of
from fedge.compress.codebook import store_codebook
from fedge.compress.pack import pack

VALUES = arrays(
    np.float32,
    array_shapes(min_dims=1, max_dims=2, max_side=40),
    elements=st.floats(-10, 10, width=32),
)


def error_of(values: Float32, num_entries: int) -> float:
    entries, index = codebook_of(values, num_entries)
    return float(np.square(entries[index] - values).sum())


@settings(deadline=None)
@given(VALUES, st.integers(2, 256))
def test_every_value_gets_the_nearest_entry_and_zeros_stay_zeros(
    values: Float32, num_entries: int
) -> None:
    entries, index = codebook_of(values, num_entries)
    restored = entries[index]
    assert len(entries) <= num_entries
    assert (np.diff(entries) > 0).all()
    assert not restored[values == 0.0].any()
    nearest = np.abs(values[..., None] - entries).min(axis=-1)
    np.testing.assert_allclose(np.abs(restored - values), nearest, rtol=0, atol=1e-5)


def test_few_different_values_are_restored_exactly() -> None:
    values = np.array([[0.5, -1.0, 0.0], [2.0, 0.5, -1.0]], np.float32)
    entries, index = codebook_of(values, 16)
    assert np.array_equal(entries[index], values)


@pytest.mark.parametrize("num_distinct", [2, 5, 14])
def test_frequent_values_do_not_push_the_others_out(num_distinct: int) -> None:
    rng = np.random.default_rng(0)
    distinct = rng.uniform(-1, 1, num_distinct).astype(np.float32)
    values = np.concatenate([distinct, np.full(1000, distinct[0])])
    entries, index = codebook_of(values, 16)
    assert np.array_equal(entries[index], values)


def test_a_codebook_is_closer_than_evenly_spaced_values() -> None:
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    step = np.abs(values).max() / 7.5  # four bits, evenly
    evenly = float(np.square(np.rint(values / step) * step - values).sum())
    assert error_of(values, 16) < 0.5 * evenly
    assert error_of(values, 32) < 0.5 * error_of(values, 16)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        codebook_of(np.array([1.0, bad], np.float32), 16)


@pytest.mark.parametrize("num_entries", [1, 257])
def test_a_number_of_entries_out_of_range_is_refused(
    conv_model: bytes, num_entries: int
) -> None:
    with pytest.raises(ValueError, match="num_entries"):
        store_codebook(conv_model, num_entries=num_entries)


def test_a_stored_network_computes_with_its_codebooks(
    conv_model: bytes, images: Float32
) -> None:
    stored = store_codebook(conv_model)
    # The same network, with its weights replaced by what the codebooks restore.
    rounded = onnx.load_model_from_string(conv_model)
    for weight in rounded.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.ndim > 1 and values.size >= 256:
            entries, index = codebook_of(values, 16)
            weight.CopyFrom(numpy_helper.from_array(entries[index], weight.name))
    expected = run(rounded.SerializeToString(), images)
    np.testing.assert_allclose(run(stored, images), expected, rtol=0, atol=1e-5)
    assert stored == store_codebook(conv_model)
    assert len(pack(stored, level=19)) < len(pack(conv_model, level=19)) / 3


def test_recurrent_layers_and_embeddings_are_stored_too(
    recurrent_model: bytes, tokens: AnyArray
) -> None:
    stored = store_codebook(recurrent_model)
    assert len(pack(stored, level=19)) < len(pack(recurrent_model, level=19)) / 4
    difference = np.abs(run(stored, tokens) - run(recurrent_model, tokens))
    assert difference.max() < 0.1


def run(model: bytes, inputs: AnyArray) -> Float32:
    outputs: Float32 = ort.InferenceSession(model).run(None, {"input": inputs})[0]
    return outputs
