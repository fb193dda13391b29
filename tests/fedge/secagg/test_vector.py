import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import AnyArray, Float32, Int64
from fedge.errors import RoundAbortedError
from fedge.secagg.ring import PROFILES, decode_sum
from fedge.secagg.vector import (
    METRIC_CLIP,
    Scale,
    decode_total,
    encode_update,
    vector_size,
)

SCALE = Scale(PROFILES["r24"], 1.0, 100.0)
PROFILE_NAMES = st.sampled_from(sorted(PROFILES))


def update_of(seed: int, size: int = 20, spread: float = 0.3) -> Float32:
    rng = np.random.default_rng(seed)
    return rng.normal(0.0, spread, size).astype(np.float32)


def sum_of(vectors: list[AnyArray], scale: Scale = SCALE) -> Int64:
    total = vectors[0].copy()
    for vector in vectors[1:]:
        total += vector
    return decode_sum(total, scale.profile)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 999),
    st.lists(st.floats(0.01, 200.0), min_size=1, max_size=9),
    PROFILE_NAMES,
)
def test_the_mean_is_as_precise_as_the_weights_allow(
    seed: int, weights: list[float], name: str
) -> None:
    scale = Scale(PROFILES[name], 1.0, 100.0)
    updates = [update_of(seed + i) for i in range(len(weights))]
    vectors = [
        encode_update(u, w, [], scale) for u, w in zip(updates, weights, strict=True)
    ]
    codes = np.array([decode_sum(v, scale.profile)[20] for v in vectors])
    sums = sum_of(vectors, scale)
    decoded = decode_total(sums, 20, scale, num_survivors=len(weights))
    exact = codes @ np.clip(np.stack(updates), -1.0, 1.0) / codes.sum()
    # Each client is rounded by less than one code.
    assert np.abs(decoded.mean - exact).max() <= len(weights) / codes.sum()
    assert decoded.weight_sum == pytest.approx(
        codes.sum() * 100.0 / scale.profile.max_code
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0.5, 100.0), st.floats(-METRIC_CLIP, METRIC_CLIP)),
        min_size=1,
        max_size=20,
    )
)
def test_a_metric_is_known_to_a_millionth_of_its_range(
    clients: list[tuple[float, float]],
) -> None:
    vectors = [encode_update(update_of(0, 1), w, [x], SCALE) for w, x in clients]
    decoded = decode_total(sum_of(vectors), 1, SCALE, num_survivors=len(clients))
    codes = np.array([decode_sum(v, SCALE.profile)[1] for v in vectors])
    exact = codes @ np.array([x for _, x in clients]) / codes.sum()
    # Half a code of the second digit per client: 64 / (2 Q code), code > Q / 200.
    bound = METRIC_CLIP * len(clients) / (2 * 32_767 * codes.sum()) + 1e-9
    assert abs(decoded.metrics[0] - exact) <= bound


def test_equal_updates_give_equal_codes() -> None:
    first, again = (encode_update(update_of(3), 7.0, [0.5], SCALE) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_another_update_is_rounded_with_other_noise() -> None:
    flat = np.full(4_000, 0.100_003, np.float32)
    other = flat.copy()
    other[-1] = 0.2
    first, second = (encode_update(u, 7.0, [], SCALE)[:3_999] for u in (flat, other))
    assert (first != second).any()


def test_rounding_is_unbiased() -> None:
    values = np.full(100_000, 0.100_003, np.float32)
    vector = encode_update(values, 50.0, [], SCALE)
    codes = decode_sum(vector, SCALE.profile)
    exact = float(values[0]) * codes[100_000]
    # One standard deviation of the mean of 100,000 roundings is below 0.0016.
    assert abs(codes[:100_000].mean() - exact) < 0.01


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_everything_at_its_largest_still_adds_up(name: str) -> None:
    scale = Scale(PROFILES[name], 1.0, 10.0)
    n = min(scale.profile.max_clients, 250)
    largest = np.array([5.0, -5.0], np.float32)
    vector = encode_update(largest, 99.0, [1e9, -1e9], scale)
    sums = sum_of([vector] * n, scale)
    decoded = decode_total(sums, 2, scale, num_survivors=n)
    np.testing.assert_array_equal(decoded.mean, [1.0, -1.0])
    assert decoded.metrics == (METRIC_CLIP, -METRIC_CLIP)
    assert decoded.clipped_fraction == 1.0
    assert decoded.weight_sum == pytest.approx(10.0 * n)


def test_the_clipped_share_is_weighted_and_reported() -> None:
    inside = np.zeros(4, np.float32)
    outside = np.array([2.0, 0.0, 0.0, -2.0], np.float32)
    vectors = [encode_update(inside, 75.0, [], SCALE)]
    vectors.append(encode_update(outside, 25.0, [], SCALE))
    decoded = decode_total(sum_of(vectors), 4, SCALE, num_survivors=2)
    assert decoded.clipped_fraction == pytest.approx(0.125, abs=1e-4)


def test_a_vector_is_as_long_as_it_was_said() -> None:
    vector = encode_update(update_of(0), 1.0, [1.0, 2.0, 3.0], SCALE)
    assert vector.size == vector_size(20, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_shown(bad: float) -> None:
    poisoned = update_of(0)
    poisoned[7] = bad
    with pytest.raises(ValueError, match="finite"):
        encode_update(poisoned, 1.0, [], SCALE)
    with pytest.raises(ValueError, match="finite"):
        encode_update(update_of(0), 1.0, [bad], SCALE)
    with pytest.raises(ValueError, match="finite"):
        encode_update(update_of(0), bad, [], SCALE)


@pytest.mark.parametrize("weight", [0.0, -3.25])
def test_a_weight_that_is_not_positive_is_refused_and_not_shown(weight: float) -> None:
    with pytest.raises(ValueError, match="weight") as refused:
        encode_update(update_of(0), weight, [], SCALE)
    assert "3.25" not in str(refused.value)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 24), st.sampled_from([-(2**22), 2**22]))
def test_a_sum_that_honest_clients_cannot_make_is_refused(at: int, size: int) -> None:
    vectors = [encode_update(update_of(i), 9.0, [0.5], SCALE) for i in range(3)]
    sums = sum_of(vectors)
    sums[at] += size
    with pytest.raises(RoundAbortedError):
        decode_total(sums, 20, SCALE, num_survivors=3)


def test_what_is_left_of_a_mask_is_refused() -> None:
    rng = np.random.default_rng(5)
    noise = rng.integers(-(2**23), 2**23, vector_size(20, 1))
    with pytest.raises(RoundAbortedError):
        decode_total(noise, 20, SCALE, num_survivors=3)
