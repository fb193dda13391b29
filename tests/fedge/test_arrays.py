"""A model as one flat vector: what is put in comes out, what does not fit is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import ArraySpec, ModelSpec, check_finite, trainable_first

SHAPES = st.lists(
    st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=5
)
SPEC = ModelSpec(
    (
        ArraySpec("weight", (2, 3), prunable=True),
        ArraySpec("bias", (3,)),
        ArraySpec("mean", (), trainable=False),
    )
)


@given(SHAPES, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_flattening_and_unflattening_gives_the_same_bits(
    shapes: list[tuple[int, ...]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    spec = ModelSpec(tuple(ArraySpec(f"a{i}", s) for i, s in enumerate(shapes)))
    arrays = {a.name: np.asarray(rng.normal(size=a.shape), "f4") for a in spec.arrays}
    back = spec.unflatten(spec.flatten(arrays))
    assert list(back) == [array.name for array in spec.arrays]
    assert all(back[n].shape == arrays[n].shape for n in arrays)
    assert all(back[n].tobytes() == arrays[n].tobytes() for n in arrays)


def test_sizes_and_places_are_those_of_the_shapes() -> None:
    assert (SPEC.size, SPEC.num_trainable) == (10, 9)
    assert SPEC.slices() == {
        "weight": slice(0, 6),
        "bias": slice(6, 9),
        "mean": slice(9, 10),
    }


def test_a_flat_vector_is_a_copy_and_its_parts_are_views() -> None:
    weight = np.ones((2, 3), np.float32)
    bias, mean = np.zeros(3, np.float32), np.array(2.0, np.float32)
    vector = SPEC.flatten({"weight": weight, "bias": bias, "mean": mean})
    vector[0] = 7.0
    assert weight[0, 0] == 1.0
    assert SPEC.unflatten(vector)["weight"][0, 0] == 7.0


def test_a_missing_array_is_named() -> None:
    with pytest.raises(ValueError, match="'weight' is missing"):
        SPEC.flatten({"bias": np.zeros(3, np.float32)})


def test_an_array_of_another_shape_is_named_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"'weight': shape \(3, 2\), need \(2, 3\)"):
        SPEC.flatten({"weight": np.zeros((3, 2), np.float32)})


@pytest.mark.parametrize("shape", [(9,), (11,), (10, 1), ()])
def test_a_vector_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"need shape \(10,\), got"):
        SPEC.unflatten(np.zeros(shape, np.float32))


def test_buffers_come_last() -> None:
    specs = (ArraySpec("mean", (1,), trainable=False), ArraySpec("weight", (1,)))
    with pytest.raises(ValueError, match="before buffers"):
        ModelSpec(specs)
    assert [a.name for a in trainable_first(specs).arrays] == ["weight", "mean"]


def test_moving_buffers_last_keeps_the_order_otherwise() -> None:
    names = ["c", "mean2", "a", "mean1", "b"]
    specs = [ArraySpec(n, (1,), trainable="mean" not in n) for n in names]
    moved = [a.name for a in trainable_first(specs).arrays]
    assert moved == ["c", "a", "b", "mean2", "mean1"]


def test_two_arrays_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        ModelSpec((ArraySpec("a", (1,)), ArraySpec("a", (2,))))


@pytest.mark.parametrize(
    "other",
    [
        ArraySpec("w", (3, 2)),
        ArraySpec("v", (2, 3)),
        ArraySpec("w", (2, 3), trainable=False),
        ArraySpec("w", (2, 3), prunable=True),
    ],
)
def test_equal_specs_have_equal_digests_and_others_differ(other: ArraySpec) -> None:
    one = ModelSpec((ArraySpec("w", (2, 3)),))
    assert one.digest == ModelSpec((ArraySpec("w", (2, 3)),)).digest
    assert one.digest != ModelSpec((other,)).digest


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_not_shown(bad: float) -> None:
    with pytest.raises(ValueError, match=r"^update: 2 of 4 values are not finite$"):
        check_finite(np.array([1.25, bad, bad, 2.5]), "update")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1"])
def test_finite_values_of_any_number_type_pass(dtype: str) -> None:
    check_finite(np.arange(5).astype(dtype), "update")
    check_finite(np.zeros(0, dtype), "update")
