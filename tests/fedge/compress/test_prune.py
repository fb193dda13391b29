import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedge.arrays import ArraySpec, Bool, Float32, ModelSpec, UInt8
from fedge.compress.prune import magnitude_mask, pack_mask, unpack_mask
from fedge.config.compression import PruneScope

SPEC = ModelSpec(
    (
        ArraySpec("conv", (4, 3), prunable=True),
        ArraySpec("bias", (4,)),
        ArraySpec("head", (1, 5), prunable=True),
        ArraySpec("mean", (4,), trainable=False),
    )
)
CONV, BIAS, HEAD, MEAN = SPEC.slices().values()
# few different values, so that ties are common
vectors = arrays(np.float32, SPEC.size, elements=st.integers(-3, 3).map(float))
shares = st.floats(0.0, 0.999)


@settings(deadline=None, max_examples=50)
@given(vectors, shares)
def test_each_array_loses_its_share_and_never_everything(
    params: Float32, sparsity: float
) -> None:
    mask = magnitude_mask(params, SPEC, sparsity=sparsity)
    for place, size in ((CONV, 12), (HEAD, 5)):
        num_pruned = size - np.count_nonzero(mask[place])
        assert sparsity * size - 1 < num_pruned <= sparsity * size
        assert mask[place].any()
    assert mask[BIAS].all()
    assert mask[MEAN].all()


@settings(deadline=None, max_examples=50)
@given(vectors, shares)
def test_what_is_pruned_is_never_larger_than_what_is_kept(
    params: Float32, sparsity: float
) -> None:
    mask = magnitude_mask(params, SPEC, sparsity=sparsity)
    for place in (CONV, HEAD):
        values, kept = np.abs(params[place]), mask[place]
        assert values[~kept].max(initial=0.0) <= values[kept].min()


@settings(deadline=None, max_examples=50)
@given(vectors, vectors, shares, shares)
def test_masks_only_grow(
    params: Float32, later: Float32, first: float, second: float
) -> None:
    previous = magnitude_mask(params, SPEC, sparsity=first)
    before = previous.copy()

    mask = magnitude_mask(later, SPEC, sparsity=second, previous=previous)

    assert not (mask & ~previous).any()
    assert np.count_nonzero(mask[CONV]) == 12 - int(12 * max(first, second))
    np.testing.assert_array_equal(previous, before)


def test_of_equal_magnitudes_the_first_go_first() -> None:
    params = np.full(SPEC.size, -1.0, np.float32)
    params[1] = 1.0
    mask = magnitude_mask(params, SPEC, sparsity=0.25)
    assert mask[CONV].tolist() == [False] * 3 + [True] * 9


def test_a_large_layer_does_not_empty_a_small_one() -> None:
    params = np.ones(SPEC.size, np.float32)
    params[HEAD] = 1e-6  # one threshold for all would prune only here
    mask = magnitude_mask(params, SPEC, sparsity=0.4)
    assert np.count_nonzero(mask[HEAD]) == 3


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="sparsity"):
        magnitude_mask(np.ones(SPEC.size, np.float32), SPEC, sparsity=sparsity)


def test_params_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"params: shape \(3,\)"):
        magnitude_mask(np.ones(3, np.float32), SPEC, sparsity=0.5)


def test_params_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        magnitude_mask(np.full(SPEC.size, np.nan, np.float32), SPEC, sparsity=0.5)


def test_a_previous_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="previous"):
        magnitude_mask(
            np.ones(SPEC.size, np.float32), SPEC, sparsity=0.5,
            previous=np.ones(3, np.bool_),
        )  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(arrays(np.bool_, st.integers(0, 40)))
def test_a_packed_mask_comes_back(mask: Bool) -> None:
    packed = pack_mask(mask)
    assert packed.nbytes == (mask.size + 7) // 8
    np.testing.assert_array_equal(unpack_mask(packed, mask.size), mask)


def test_the_first_coordinate_is_the_highest_bit() -> None:
    assert pack_mask(np.array([True] + [False] * 8)).tolist() == [128, 0]


@pytest.mark.parametrize(
    "packed",
    [
        np.zeros(1, np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((2, 1), np.uint8),
        np.zeros(2, np.int8),
        np.array([0, 0b0100_0000], np.uint8),
    ],
    ids=["short", "long", "matrix", "signed", "padding"],
)
def test_a_packed_mask_that_is_not_exact_is_refused(packed: UInt8) -> None:
    with pytest.raises(ValueError, match="packed mask"):
        unpack_mask(packed, 9)


def test_only_vectors_of_bool_are_packed() -> None:
    with pytest.raises(ValueError, match="need bool"):
        pack_mask(np.ones((2, 3), np.bool_))


WIDE = ModelSpec(
    (
        ArraySpec("conv", (3, 10, 2, 2), prunable=True),
        ArraySpec("bias", (3,)),
        ArraySpec("head", (4, 9), prunable=True),
    )
)
wide_vectors = arrays(np.float32, WIDE.size, elements=st.integers(-9, 9).map(float))


@settings(deadline=None, max_examples=40)
@given(wide_vectors, wide_vectors, shares, shares, st.integers(2, 12))
def test_of_every_group_of_inputs_the_same_number_goes(
    params: Float32, later: Float32, first: float, second: float, group: int
) -> None:
    first, second = sorted((first, second))
    options = {"scope": PruneScope.group, "group": group}
    before = magnitude_mask(params, WIDE, sparsity=first, **options)  # type: ignore[arg-type]
    mask = magnitude_mask(later, WIDE, sparsity=second, previous=before, **options)  # type: ignore[arg-type]
    assert not (mask & ~before).any()
    for name, shape in (("conv", (3, 10, 2, 2)), ("head", (4, 9))):
        kept = mask[WIDE.slices()[name]].reshape(shape)
        for begin in range(0, shape[1], group):
            part = kept[:, begin : begin + group]
            pruned = part.shape[1] - part.sum(axis=1)
            assert (pruned == int(second * part.shape[1])).all()


def test_half_of_every_four_is_the_pattern_of_sparse_tensor_cores() -> None:
    params = np.zeros(WIDE.size, np.float32)
    params[WIDE.slices()["head"]] = np.arange(36)
    mask = magnitude_mask(params, WIDE, sparsity=0.5, scope=PruneScope.group)
    head = mask[WIDE.slices()["head"]].reshape(4, 9)
    expected = [False, False, True, True, False, False, True, True, True]
    assert (head == expected).all()


@settings(deadline=None, max_examples=40)
@given(wide_vectors, shares)
def test_together_the_smallest_of_all_go_but_never_a_whole_array(
    params: Float32, sparsity: float
) -> None:
    mask = magnitude_mask(params, WIDE, sparsity=sparsity, scope=PruneScope.whole)
    conv, _, head = WIDE.slices().values()
    pruned = sum(np.count_nonzero(~mask[place]) for place in (conv, head))
    assert pruned <= sparsity * 156
    for place, size in ((conv, 120), (head, 36)):
        assert np.count_nonzero(mask[place]) >= 0.1 * size
    if sparsity < 0.2:  # then no array comes near a tenth
        assert pruned == int(sparsity * 156)


def test_together_a_layer_of_small_weights_loses_more() -> None:
    params = np.random.default_rng(0).normal(size=WIDE.size).astype(np.float32)
    conv, _, head = WIDE.slices().values()
    params[head] *= 0.01
    mask = magnitude_mask(params, WIDE, sparsity=0.5, scope=PruneScope.whole)
    assert np.count_nonzero(mask[head]) == 4  # a tenth of 36
    assert np.count_nonzero(~mask[conv]) == 78 - 32


def test_a_group_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="group: 1"):
        magnitude_mask(
            np.zeros(WIDE.size, np.float32), WIDE, sparsity=0.5,
            scope=PruneScope.group, group=1,
        )  # fmt: skip
