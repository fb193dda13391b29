from collections.abc import Callable

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from fedge.arrays import Float32
from fedge.compress.cluster import codebook_of
from fedge.compress.grid import best_scales, to_codes, widest_scales
from fedge.compress.int4 import store_int4
from fedge.config import Quantization
from fedge.export.onnx import export_onnx
from fedge.train.fake_quant import WeightRounding, output_axes


def values_of(*shape: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=shape).astype(np.float32))


def expected(values: Float32, form: Quantization) -> Float32:
    """What the shipped file restores."""
    rows = values.reshape(len(values), -1)
    if form is Quantization.codebook:
        entries, index = codebook_of(rows, 16)
        rounded = entries[index]
    elif form is Quantization.int4:
        scales = best_scales(rows, 7)
        rounded = to_codes(rows, scales, 7) * scales
    else:
        scales = widest_scales(rows, 64)
        rounded = to_codes(rows, scales, 64) * scales
    result: Float32 = rounded.reshape(values.shape)
    return result


FORMS = [Quantization.int8, Quantization.int4, Quantization.codebook]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(8, 40), (8, 4, 3, 3)])
def test_inside_weights_are_what_the_shipped_file_holds(
    form: Quantization, shape: tuple[int, ...]
) -> None:
    values = values_of(*shape)
    values[0, 1] = 0.0
    before = values.clone()
    rounding = WeightRounding([values], form)
    with rounding.applied():
        np.testing.assert_allclose(
            values.numpy(), expected(before.numpy(), form), rtol=1e-6, atol=0
        )
        assert (values[0, 1] == 0.0).all()
        assert not torch.equal(values, before)
    assert torch.equal(values, before)


@pytest.mark.parametrize("form", FORMS)
def test_the_grid_stays_where_it_was_laid_down(form: Quantization) -> None:
    values = values_of(4, 100)
    rounding = WeightRounding([values], form)
    with rounding.applied():
        points = set(values.flatten().tolist())
    values.mul_(1.001)  # a few weights now are nearer to another point
    with rounding.applied():
        again = set(values.flatten().tolist())
    with WeightRounding([values], form).applied():
        fresh = set(values.flatten().tolist())
    assert len(again & points) > 0.9 * len(points)
    assert len(fresh & points) < 0.1 * len(points)


def test_small_arrays_and_vectors_are_left_alone() -> None:
    bias, small = values_of(500), values_of(5, 5)
    copies = bias.clone(), small.clone()
    with WeightRounding([bias, small], Quantization.int4).applied():
        assert torch.equal(bias, copies[0])
        assert torch.equal(small, copies[1])


def test_values_come_back_after_an_error() -> None:
    values = values_of(8, 40)
    before = values.clone()
    with pytest.raises(KeyError), WeightRounding([values], Quantization.int4).applied():
        raise KeyError
    assert torch.equal(values, before)


def test_an_array_in_another_memory_order_is_rounded_by_its_channels() -> None:
    plain = values_of(8, 4, 3, 3)
    turned = plain.to(memory_format=torch.channels_last, copy=True)
    for form in FORMS:
        with (
            WeightRounding([plain], form).applied(),
            WeightRounding([turned], form).applied(),
        ):
            assert torch.equal(plain, turned)


@pytest.mark.parametrize("form", [Quantization.none, Quantization.smallest])
def test_a_form_that_cannot_be_trained_for_is_refused(form: Quantization) -> None:
    with pytest.raises(ValueError, match="int8, int4, codebook"):
        WeightRounding([values_of(8, 40)], form)


def upsampling() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(),
        nn.ConvTranspose2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU(),
        nn.ConvTranspose2d(24, 8, 2, groups=4), nn.Flatten(), nn.Linear(648, 10),
    )  # fmt: skip


def downsampling() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


@pytest.mark.parametrize("make", [downsampling, upsampling])
def test_a_network_trained_for_int4_computes_what_its_file_computes(
    make: Callable[[], nn.Sequential],
) -> None:
    """Also where the exporter folds a normalization into the weights."""
    torch.manual_seed(0)
    net = make()
    images = np.random.default_rng(1).normal(size=(50, 1, 8, 8)).astype(np.float32)
    net(torch.from_numpy(images))  # running statistics other than the first ones
    net.eval()
    whole = export_onnx(net, images)
    values = [parameter.detach() for parameter in net.parameters()]
    rounding = WeightRounding(values, Quantization.int4, output_axes(net))
    with torch.no_grad(), rounding.applied():
        rounded = net(torch.from_numpy(images)).numpy()
    shipped, float32 = (
        ort.InferenceSession(file).run(None, {"input": images})[0]
        for file in (store_int4(whole), whole)
    )
    np.testing.assert_allclose(shipped, rounded, atol=1e-4)
    assert np.abs(shipped - float32).max() > 0.01
