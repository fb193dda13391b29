import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedge.arrays import AnyArray, Float32
from fedge.compress.delta import make_delta
from fedge.compress.quantize import prepared, quantize_int8
from fedge.compress.requantize import requantize
from fedge.errors import CompressionError


@pytest.fixture(scope="module")
def base(conv_model: bytes, images: Float32) -> bytes:
    return quantize_int8(conv_model, images)


def drifted(model: bytes, *, share: float, seed: int = 0) -> bytes:
    """Return the network after a round: each weight moved by a share of their size."""
    rng = np.random.default_rng(seed)
    parsed = onnx.load_model_from_string(model)
    for weight in parsed.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32 and values.ndim > 1:
            noise = rng.normal(size=values.shape) * share * values.std()
            moved = (values + noise * (values != 0)).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def arrays_of(model: bytes) -> dict[str, AnyArray]:
    graph = onnx.load_model_from_string(model).graph
    return {array.name: numpy_helper.to_array(array) for array in graph.initializer}


def test_the_model_that_a_file_was_made_from_changes_nothing_in_it(
    base: bytes, conv_model: bytes
) -> None:
    before, after = arrays_of(base), arrays_of(requantize(base, conv_model))
    assert before.keys() == after.keys()
    for name, codes in before.items():
        # A half may be rounded another way: float32 there, float64 here.
        assert np.abs(after[name] - codes.astype(np.float64)).max(initial=0) <= 1


def test_weights_are_the_nearest_of_the_old_grid(
    base: bytes, conv_model: bytes
) -> None:
    new = drifted(conv_model, share=0.05)
    result, wanted = arrays_of(requantize(base, new)), arrays_of(prepared(new))
    stems = [n.removesuffix("_quantized") for n in result if n.endswith("t_quantized")]
    assert len(stems) == 4
    for stem in stems:
        codes, scale = result[f"{stem}_quantized"], result[f"{stem}_scale"]
        steps = scale.reshape(-1, *[1] * (codes.ndim - 1))
        error = np.abs(codes * steps - wanted[stem])
        assert (error <= 0.5001 * steps)[np.abs(codes) < 64].all()


def test_a_dead_zone_makes_smaller_deltas_and_loses_nothing_for_good(
    base: bytes, conv_model: bytes
) -> None:
    new = drifted(conv_model, share=0.05)
    exact, calm = (requantize(base, new, dead_zone=zone) for zone in (0, 3))
    assert len(exact) == len(calm) == len(base)
    sizes = [len(make_delta(base, file, level=19)) for file in (exact, calm)]
    assert sizes[1] < 0.7 * sizes[0] < len(base)
    # The residual is in the float32 model: what is sent next may catch up with it.
    assert requantize(calm, new) == exact


def test_headroom_leaves_room_for_weights_that_grow(
    base: bytes, conv_model: bytes
) -> None:
    roomy = requantize(base, conv_model, headroom=0.25)
    assert len(roomy) == len(base)
    codes = arrays_of(roomy)["0.weight_quantized"]
    assert np.abs(codes).max() == pytest.approx(64 / 1.25, abs=1)


def test_the_result_computes_what_the_model_computes(
    base: bytes, conv_model: bytes, images: Float32
) -> None:
    import onnxruntime as ort

    new = drifted(conv_model, share=0.05)
    outputs = [
        ort.InferenceSession(model).run(None, {"input": images})[0]
        for model in (new, requantize(base, new))
    ]
    assert np.abs(outputs[0] - outputs[1]).max() < 0.1 * np.abs(outputs[0]).max()


def test_another_architecture_is_refused(
    base: bytes, conv_model: bytes, recurrent_model: bytes
) -> None:
    with pytest.raises(CompressionError, match="publish a full release"):
        requantize(base, recurrent_model)
    with pytest.raises(CompressionError, match="no quantized weights"):
        requantize(conv_model, conv_model)


@pytest.mark.parametrize(("dead_zone", "headroom"), [(-1, 0.0), (128, 0.0), (0, -0.1)])
def test_numbers_out_of_range_are_refused(
    base: bytes, conv_model: bytes, dead_zone: int, headroom: float
) -> None:
    with pytest.raises(ValueError, match=r"dead_zone|headroom"):
        requantize(base, conv_model, dead_zone=dead_zone, headroom=headroom)
