import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from fedge.compress.prune_file import prune_file
from fedge.export.describe import describe


def test_the_smallest_weights_of_each_array_go(conv_model: bytes) -> None:
    pruned = prune_file(conv_model, sparsity=0.8)
    before, after = (
        {
            a.name: numpy_helper.to_array(a)
            for a in onnx.load_model_from_string(model).graph.initializer
        }
        for model in (conv_model, pruned)
    )
    for name, values in after.items():
        if values.ndim < 2 or values.size < 256:
            assert np.array_equal(values, before[name])
            continue
        gone = values == 0.0
        assert np.count_nonzero(gone) == int(0.8 * values.size)
        assert np.array_equal(values[~gone], before[name][~gone])
        assert np.abs(before[name][gone]).max() <= np.abs(values[~gone]).min()


def test_nothing_goes_beyond_what_is_zero_already(conv_model: bytes) -> None:
    assert describe(prune_file(conv_model, sparsity=0.3)) == describe(conv_model)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(conv_model: bytes, sparsity: float) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        prune_file(conv_model, sparsity=sparsity)
