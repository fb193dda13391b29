import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import AnyArray
from fedge.errors import MisuseError
from fedge.secagg.keystream import (
    MAX_MASK_BYTES,
    MaskSeed,
    Suite,
    apply_masks,
    check_mask_length,
    cipher_at,
    keystream,
)
from fedge.secagg.ring import RingArray
from tests.fedge.secagg.randomness import chi_square_of_bytes, linear_complexity

VECTORS = Path(__file__).parents[2] / "vectors"
SUITES = list(Suite)


def key(number: int) -> bytes:
    return number.to_bytes(32, "little")


def seeds_of(rng: np.random.Generator, num_seeds: int) -> list[MaskSeed]:
    return [
        MaskSeed(rng.bytes(32), Suite(int(suite)), int(sign))
        for suite, sign in zip(
            rng.integers(1, 3, num_seeds), rng.choice([-1, 1], num_seeds), strict=True
        )
    ]


def masked_naively(start: RingArray, seeds: list[MaskSeed]) -> list[int]:
    """One mask after the other, in Python integers."""
    values, width = [int(v) for v in start], start.itemsize
    for seed in seeds:
        stream = keystream(seed.key, seed.suite, start.nbytes)
        for i in range(start.size):
            word = int.from_bytes(stream[i * width : (i + 1) * width], "little")
            values[i] = (values[i] + seed.sign * word) % 2 ** (8 * width)
    return values


@given(
    size=st.one_of(st.integers(0, 40), st.integers(1000, 1100)),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    num_seeds=st.integers(0, 5),
    threads=st.integers(1, 4),
    blocks=st.integers(1, 5),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=60)
def test_blocks_and_threads_change_no_bit(
    size: int,
    dtype: type[np.uint16] | type[np.uint32],
    num_seeds: int,
    threads: int,
    blocks: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    vector: RingArray = rng.integers(0, 2**16, size).astype(dtype)
    seeds = seeds_of(rng, num_seeds)
    expected = masked_naively(vector, seeds)
    apply_masks(vector, seeds, threads=threads, block_bytes=64 * blocks)
    assert vector.tolist() == expected


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_large_odd_vector_is_the_same_with_the_usual_blocks(threads: int) -> None:
    seeds = seeds_of(np.random.default_rng(3), 3)
    vector = np.zeros(200_003, np.uint32)
    apply_masks(vector, seeds, threads=threads)
    streams = [keystream(s.key, s.suite, vector.nbytes) for s in seeds]
    words = [np.frombuffer(stream, "<u4") for stream in streams]
    signed = [w if s.sign > 0 else -w for w, s in zip(words, seeds, strict=True)]
    np.testing.assert_array_equal(vector, np.sum(signed, axis=0, dtype=np.uint32))


@pytest.mark.parametrize("suite", SUITES)
def test_a_mask_taken_away_leaves_what_was_there(suite: Suite) -> None:
    vector = np.arange(1001, dtype=np.uint32)
    apply_masks(vector, [MaskSeed(key(1), suite, 1)], threads=2, block_bytes=128)
    apply_masks(vector, [MaskSeed(key(1), suite, -1)])
    np.testing.assert_array_equal(vector, np.arange(1001))


@pytest.mark.parametrize("suite", SUITES)
@given(start=st.integers(0, 50), length=st.integers(0, 200))
@settings(deadline=None, max_examples=20)
def test_a_keystream_can_start_in_the_middle(
    suite: Suite, start: int, length: int
) -> None:
    whole = keystream(key(7), suite, 64 * start + length)
    cipher = cipher_at(key(7), suite, start_byte=64 * start)
    assert cipher.update(bytes(length)) == whole[64 * start :]


def test_the_two_suites_share_nothing() -> None:
    streams = [keystream(key(1), suite, 64) for suite in SUITES]
    assert len({stream[:16] for stream in streams}) == len(SUITES)


@pytest.mark.parametrize("suite", SUITES)
def test_frozen_mask_words_have_not_changed(suite: Suite) -> None:
    frozen = json.loads((VECTORS / "secagg_primitives.json").read_text())["masks"]
    vector = np.zeros(16, np.uint32)
    apply_masks(vector, [MaskSeed(bytes(range(32)), suite, 1)])
    assert vector.tolist() == frozen[suite.name]


@pytest.mark.parametrize("num_bytes", [-1, MAX_MASK_BYTES, MAX_MASK_BYTES + 64])
def test_a_mask_longer_than_the_counter_is_refused(num_bytes: int) -> None:
    with pytest.raises(MisuseError, match="would repeat"):
        check_mask_length(num_bytes)
    with pytest.raises(MisuseError, match="would repeat"):
        keystream(key(1), Suite.CHACHA20, num_bytes)


@pytest.mark.parametrize("suite", SUITES)
def test_the_last_block_before_the_limit_exists(suite: Suite) -> None:
    check_mask_length(MAX_MASK_BYTES - 64)
    cipher = cipher_at(key(1), suite, start_byte=MAX_MASK_BYTES - 64)
    assert len(set(cipher.update(bytes(64)))) > 30


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(4, np.int32), "uint16 or uint32"),
        (np.zeros(4, np.uint64), "uint16 or uint32"),
        (np.zeros((2, 2), np.uint32), "uint16 or uint32"),
        (np.zeros(8, np.uint32)[::2], "contiguous"),
        (np.frombuffer(bytes(8), np.uint32), "writeable"),
    ],
)
def test_other_arrays_are_refused(wrong: AnyArray, message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        apply_masks(wrong, [])


@pytest.mark.parametrize("arguments", [{"threads": 0}, {"block_bytes": 100}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(MisuseError):
        apply_masks(np.zeros(4, np.uint32), [], **arguments)


@pytest.mark.parametrize(("length", "sign"), [(31, 1), (33, 1), (32, 0), (32, 2)])
def test_a_seed_must_be_well_formed(length: int, sign: int) -> None:
    with pytest.raises(MisuseError):
        MaskSeed(bytes(length), Suite.AES256_CTR, sign)


def test_a_seed_does_not_show_its_key() -> None:
    shown = repr(MaskSeed(b"K" * 32, Suite.CHACHA20, 1))
    assert "K" not in shown.replace("MaskSeed", "").replace("CHACHA", "")


# A little more than twice the 19 937 bits of a Mersenne Twister's state.
NUM_BITS = 41_000


def test_the_statistic_finds_the_mersenne_twister() -> None:
    outputs = np.random.MT19937(1).random_raw(NUM_BITS)
    assert linear_complexity((outputs & 1).tolist()) == 19_937


@pytest.mark.parametrize(("constant", "suite"), [(0, 1), (2**24 - 1, 2)])
def test_masked_constants_look_random(constant: int, suite: int) -> None:
    vector = np.full(NUM_BITS, constant, np.uint32)
    apply_masks(vector, [MaskSeed(key(i), Suite(suite), 1) for i in range(29)])
    # Half the length, give or take a few, as for random bits.
    assert abs(linear_complexity((vector & 1).tolist()) - NUM_BITS // 2) < 30
    # 255 +- 23; five standard deviations.
    columns = vector.astype("<u4").view(np.uint8).reshape(-1, 4).T
    assert all(140 < chi_square_of_bytes(column) < 370 for column in columns)


def test_masks_of_two_rounds_and_of_two_clients_are_uncorrelated() -> None:
    masked = [np.full(100_000, 5, np.uint32) for _ in range(2)]
    for number, vector in enumerate(masked):
        apply_masks(vector, [MaskSeed(key(100 + number), Suite.AES256_CTR, 1)])
    difference = masked[0] - masked[1]
    assert 140 < chi_square_of_bytes(difference & 255) < 370
    # A correlation of n random pairs has standard deviation 1 / sqrt(n) = 0.0032.
    assert abs(np.corrcoef(masked[0], masked[1])[0, 1]) < 0.016
