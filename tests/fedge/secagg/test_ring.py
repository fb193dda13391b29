import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import Float32
from fedge.errors import ConfigError, MisuseError
from fedge.secagg.ring import (
    PROFILES,
    Encoded,
    Profile,
    check_fits,
    decode_mean,
    decode_sum,
    encode,
    encode_fraction,
    weight_code_of,
)

NAMES = sorted(PROFILES)
KEY = bytes(range(32))
R24 = PROFILES["r24"]


def encoded(
    values: Float32 | list[float],
    *,
    clip: float = 1.0,
    weight_code: int = R24.max_code,
    profile: Profile = R24,
    noise_key: bytes = KEY,
) -> Encoded:
    return encode(
        np.asarray(values, np.float32),
        clip=clip,
        weight_code=weight_code,
        profile=profile,
        noise_key=noise_key,
    )


def decoded(result: Encoded, profile: Profile = R24) -> list[int]:
    return [int(code) for code in decode_sum(result.codes, profile)]


@pytest.mark.parametrize(
    ("name", "max_code", "max_clients", "num_bytes"),
    [
        ("r16", 127, 258, 6),
        ("r20", 2047, 256, 8),
        ("r24", 32_767, 256, 9),
        ("r32", 32_767, 65_538, 12),
    ],
)
def test_the_profiles_are_as_promised(
    name: str, max_code: int, max_clients: int, num_bytes: int
) -> None:
    profile = PROFILES[name]
    assert profile.max_code == max_code
    assert profile.max_clients == max_clients
    assert profile.bytes_for(3) == num_bytes
    assert max_clients * max_code < 2 ** (profile.ring_bits - 1)
    assert (max_clients + 1) * max_code >= 2 ** (profile.ring_bits - 1)


@pytest.mark.parametrize("bits", [(8, 4), (24, 17), (24, 1), (16, 16), (64, 16)])
def test_other_profiles_are_refused(bits: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="_bits"):
        Profile(*bits)


@pytest.mark.parametrize("name", NAMES)
def test_one_client_too_many_is_refused_with_a_way_out(name: str) -> None:
    check_fits(PROFILES[name], PROFILES[name].max_clients)
    with pytest.raises(ConfigError, match=r"take profile .*r32|take fewer clients"):
        check_fits(PROFILES[name], PROFILES[name].max_clients + 1)


def test_no_client_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_clients"):
        check_fits(R24, 0)


# In these three n * Q = 2^(R-1) - 1 exactly: the last sum that still fits.
@pytest.mark.parametrize("bits", [(16, 4), (16, 6), (24, 2)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sum_is_exact(bits: tuple[int, int], sign: int) -> None:
    profile = Profile(*bits)
    num_clients = profile.max_clients
    assert num_clients * profile.max_code == 2 ** (profile.ring_bits - 1) - 1
    one = encoded([sign], weight_code=profile.max_code, profile=profile).codes
    total = one * np.array(num_clients, profile.dtype)
    assert decode_sum(total, profile).tolist() == [
        sign * num_clients * profile.max_code
    ]


@pytest.mark.parametrize("bits", [(16, 4), (16, 6), (24, 2)])
def test_a_sum_one_client_larger_would_wrap_and_is_refused(
    bits: tuple[int, int],
) -> None:
    profile = Profile(*bits)
    too_many = profile.max_clients + 1
    one = encoded([1.0], weight_code=profile.max_code, profile=profile).codes
    assert decode_sum(one * np.array(too_many, profile.dtype), profile)[0] < 0
    with pytest.raises(ConfigError, match="overflow"):
        check_fits(profile, too_many)


@given(
    name=st.sampled_from(NAMES),
    num_clients=st.integers(1, 40),
    size=st.integers(0, 50),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=60)
def test_sums_are_exact_as_integers(
    name: str, num_clients: int, size: int, seed: int
) -> None:
    profile, rng = PROFILES[name], np.random.default_rng(seed)
    total = np.zeros(size, profile.dtype)
    expected = np.zeros(size, np.int64)
    for _ in range(num_clients):
        values = rng.uniform(-2.0, 2.0, size).astype(np.float32)
        code = int(rng.integers(1, profile.max_code + 1))
        key = rng.bytes(32)
        one = encoded(values, weight_code=code, profile=profile, noise_key=key)
        total += one.codes
        expected += decode_sum(one.codes, profile)
    np.testing.assert_array_equal(decode_sum(total, profile), expected)


@given(
    name=st.sampled_from(NAMES),
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)),
    clip=st.floats(1e-3, 1e3),
    weight=st.floats(0.001, 1.0),
    key=st.binary(min_size=32, max_size=32),
)
@settings(deadline=None, max_examples=200)
def test_a_single_value_is_off_by_less_than_one_step(
    name: str, values: list[float], clip: float, weight: float, key: bytes
) -> None:
    profile = PROFILES[name]
    code = weight_code_of(weight, 1.0, profile)
    result = encoded(
        values, clip=clip, weight_code=code, profile=profile, noise_key=key
    )
    codes = decode_sum(result.codes, profile)
    assert np.abs(codes).max(initial=0) <= code
    back = decode_mean(codes, code, clip)
    clipped = np.clip(np.asarray(values, np.float64), -clip, clip)
    # A step, and a few units of the last place of float64 for the arithmetic.
    assert np.abs(back - clipped).max(initial=0.0) <= clip / code * (1 + 1e-10)
    outside = np.count_nonzero(np.abs(np.asarray(values, np.float64)) > clip)
    assert result.clipped_fraction == (outside / len(values) if values else 0.0)


def test_rounding_is_unbiased() -> None:
    # 0.3 of a step between 4 and 5; the mean of n has standard deviation 0.46/sqrt(n).
    num_values = 400_000
    result = encoded(np.full(num_values, 0.043, np.float32), weight_code=100)
    codes = decode_sum(result.codes, R24)
    assert set(codes.tolist()) == {4, 5}
    assert abs(codes.mean() - 4.3) < 5 * 0.46 / num_values**0.5


def test_rounding_is_unbiased_below_zero_too() -> None:
    result = encoded(np.full(400_000, -0.043, np.float32), weight_code=100)
    assert abs(decode_sum(result.codes, R24).mean() + 4.3) < 0.004


def test_whole_numbers_of_steps_are_exact() -> None:
    values = np.arange(-100, 101, dtype=np.float32) / np.float32(128)
    assert decoded(encoded(values, weight_code=128)) == list(range(-100, 101))


def test_a_hair_below_a_whole_step_does_not_fall_to_the_one_below() -> None:
    # k / 100 in float32 is within 2^-17 of k steps; cutting off would lose 2^-16.
    steps = np.tile(np.arange(-100, 101), 5000)
    values = (steps / 100).astype(np.float32)
    codes = decode_sum(encoded(values, weight_code=100).codes, R24)
    np.testing.assert_array_equal(codes, steps)


def test_what_is_beyond_the_clip_is_counted_and_clipped() -> None:
    result = encoded([0.0, 3e38, -3e38, 2.0], clip=2.0, weight_code=1000)
    assert decoded(result) == [0, 1000, -1000, 1000]
    assert result.clipped_fraction == 0.5


def test_the_clip_holds_where_float32_rounds_it_up() -> None:
    # float32(0.1) is larger than 0.1: the code must not become Q + 1.
    values = np.full(70_000, 0.1, np.float32)
    for sign in (1, -1):
        codes = decode_sum(encoded(sign * values, clip=0.1).codes, R24)
        assert set(codes.tolist()) == {sign * R24.max_code}


def test_the_same_key_rounds_alike_and_another_one_does_not() -> None:
    values = np.random.default_rng(1).normal(0.0, 0.1, 1000).astype(np.float32)
    first = encoded(values).codes
    np.testing.assert_array_equal(first, encoded(values).codes)
    assert np.any(first != encoded(values, noise_key=bytes(32)).codes)


def test_blocks_use_different_noise() -> None:
    codes = encoded(np.full(2 * 32_768, 0.005, np.float32), weight_code=100).codes
    assert np.any(codes[:32_768] != codes[32_768:])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted_and_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="update: 2 of 4 values are not finite"):
        encoded([0.125, bad, 0.5, bad])


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan, np.inf])
def test_a_clip_must_be_a_positive_number(clip: float) -> None:
    with pytest.raises(ConfigError, match="clip"):
        encoded([0.0], clip=clip)


@pytest.mark.parametrize("weight_code", [0, -1, 32_768])
def test_a_weight_code_beyond_the_profile_is_refused(weight_code: int) -> None:
    with pytest.raises(MisuseError, match="weight_code"):
        encoded([0.0], weight_code=weight_code)


def test_a_noise_key_of_another_length_is_refused() -> None:
    with pytest.raises(MisuseError, match="16 bytes, need 32"):
        encoded([0.0], noise_key=bytes(16))


def test_a_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="one axis"):
        encoded(np.zeros((2, 2), np.float32))


def test_an_encoded_update_does_not_show_itself() -> None:
    assert repr(encoded([0.5])) == "Encoded(clipped_fraction=0.0)"


def test_a_weight_becomes_its_share_of_the_largest_one() -> None:
    assert weight_code_of(100.0, 100.0, R24) == R24.max_code
    assert weight_code_of(50.0, 100.0, R24) == 16_384
    assert weight_code_of(1e-9, 100.0, R24) == 1


@pytest.mark.parametrize("weight", [0.0, -1.0, 100.5, np.nan, np.inf])
def test_a_weight_out_of_range_is_refused_and_not_shown(weight: float) -> None:
    with pytest.raises(ConfigError, match="raise w_max") as caught:
        weight_code_of(weight, 100.0, R24)
    assert str(weight) not in str(caught.value).replace("100.0", "")


@pytest.mark.parametrize("w_max", [0.0, np.nan, np.inf])
def test_the_largest_weight_must_be_a_positive_number(w_max: float) -> None:
    with pytest.raises(ConfigError, match="w_max"):
        weight_code_of(1.0, w_max, R24)


@given(value=st.floats(0.0, 1.0), name=st.sampled_from(NAMES))
@settings(deadline=None)
def test_an_extra_coordinate_is_off_by_half_a_step(value: float, name: str) -> None:
    profile = PROFILES[name]
    code = encode_fraction(value, profile)
    assert 0 <= code <= profile.max_code
    assert abs(code / profile.max_code - value) <= 0.5 / profile.max_code + 1e-12


@pytest.mark.parametrize("value", [-0.25, 1.5, np.nan])
def test_an_extra_coordinate_beyond_one_is_refused_and_not_shown(value: float) -> None:
    with pytest.raises(ValueError, match="in \\[0, 1\\]") as caught:
        encode_fraction(value, R24)
    assert str(value) not in str(caught.value)


def test_bits_above_the_ring_are_ignored() -> None:
    words = np.array([0xAB00_0001, 0x01FF_FFFF, 0x0080_0000], np.uint32)
    assert decode_sum(words, R24).tolist() == [1, -1, -(2**23)]


def test_a_sum_of_another_dtype_is_refused() -> None:
    with pytest.raises(MisuseError, match="dtype uint16, need uint32"):
        decode_sum(np.zeros(2, np.uint16), R24)


def test_a_mean_without_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight_code_sum"):
        decode_mean(np.zeros(1, np.int64), 0, 1.0)


def test_a_weighted_mean_comes_back() -> None:
    weights, values = [10.0, 30.0], [0.5, -0.25]
    codes = [weight_code_of(w, 30.0, R24) for w in weights]
    total = np.zeros(1, np.uint32)
    for value, code in zip(values, codes, strict=True):
        total += encoded([value], weight_code=code).codes
    mean = decode_mean(decode_sum(total, R24), sum(codes), 1.0)
    # Two roundings of values and the weights' own: three steps.
    assert abs(mean[0] - -0.0625) < 3 / sum(codes)
