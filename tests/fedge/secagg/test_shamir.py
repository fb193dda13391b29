import random
from collections import Counter
from itertools import combinations, count, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import MisuseError, PeerError, RoundAbortedError
from fedge.secagg.shamir import (
    PRIME,
    SHARE_BYTES,
    combine,
    lagrange_at_zero,
    polynomial_values,
    split,
    uniform_elements,
)

SECRET = bytes(range(32))


def is_probable_prime(number: int, rounds: int = 40) -> bool:
    """Miller-Rabin; a composite passes with probability 4^-rounds."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    rng = random.Random(1)
    for _ in range(rounds):
        power = pow(rng.randrange(2, number - 1), odd, number)
        chain = [pow(power, 2**i, number) for i in range(twos)]
        if power != 1 and number - 1 not in chain:
            return False
    return True


def shares_of(secret: bytes, num_shares: int, threshold: int) -> dict[int, bytes]:
    made = split(secret, num_shares=num_shares, threshold=threshold)
    return dict(zip(count(1), made, strict=False))


def test_the_prime_is_the_first_one_above_the_secrets() -> None:
    primes = [2**256 + d for d in range(1, 298, 2) if is_probable_prime(2**256 + d)]
    assert primes == [PRIME]


@given(data=st.data(), secret=st.binary(min_size=32, max_size=32))
@settings(deadline=None, max_examples=60)
def test_any_threshold_shares_give_the_secret_back(
    data: st.DataObject, secret: bytes
) -> None:
    num_shares = data.draw(st.integers(1, 254))
    threshold = data.draw(st.integers(1, num_shares))
    shares = shares_of(secret, num_shares, threshold)
    order = data.draw(st.permutations(sorted(shares)))
    chosen = {x: shares[x] for x in order[:threshold]}
    assert combine(chosen, threshold=threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_smallest_and_the_largest_secret_survive(secret: bytes) -> None:
    assert combine(shares_of(secret, 5, 3), threshold=3) == secret


def test_every_subset_gives_the_same_secret() -> None:
    shares = shares_of(SECRET, 6, 3)
    subsets = [{x: shares[x] for x in xs} for xs in combinations(shares, 3)]
    assert {combine(subset, threshold=3) for subset in subsets} == {SECRET}


@pytest.mark.parametrize("xs", [(1, 2), (1, 3), (2, 4), (3, 4)])
def test_one_share_too_few_says_nothing_about_the_secret(xs: tuple[int, int]) -> None:
    prime, threshold, num_shares = 7, 3, 4
    seen: dict[int, Counter[tuple[int, ...]]] = {s: Counter() for s in range(prime)}
    for secret, *rest in product(range(prime), repeat=threshold):
        values = polynomial_values([secret, *rest], num_shares, prime=prime)
        seen[secret][tuple(values[x - 1] for x in xs)] += 1
    uniform = Counter(dict.fromkeys(product(range(prime), repeat=2), 1))
    assert all(seen[secret] == uniform for secret in range(prime))


def test_all_polynomials_over_a_small_prime_come_back() -> None:
    prime, xs = 11, (1, 3, 4)
    weights = lagrange_at_zero(xs, prime=prime)
    for coefficients in product(range(prime), repeat=3):
        values = polynomial_values(coefficients, 4, prime=prime)
        total = sum(w * values[x - 1] for w, x in zip(weights, xs, strict=True))
        assert total % prime == coefficients[0]


def test_coefficients_are_uniform_and_cover_the_field() -> None:
    rng = random.Random(5)
    drawn = Counter(uniform_elements(70_000, rng.randbytes, prime=7))
    assert sorted(drawn) == list(range(7))
    # Six standard deviations of a binomial count: sqrt(70000 * 6/49) = 92.6.
    assert max(abs(n - 10_000) for n in drawn.values()) < 560


def test_a_draw_above_the_largest_multiple_is_thrown_away() -> None:
    # 256 // 7 * 7 = 252: of these bytes 252 and 255 would make 0 and 3 more likely.
    supply = iter([bytes([252, 3, 255]), bytes([251, 0])])
    assert uniform_elements(3, lambda _: next(supply), prime=7) == [3, 251 % 7, 0]


def test_the_constant_coefficient_alone_is_not_random() -> None:
    assert set(split(SECRET, num_shares=4, threshold=1)) == {SECRET + b"\x00"}


def test_sharing_twice_gives_different_shares() -> None:
    assert not set(shares_of(SECRET, 9, 5).values()) & set(
        shares_of(SECRET, 9, 5).values()
    )


def test_a_share_is_33_little_endian_bytes() -> None:
    # f(x) = 5 + x with the one random element 1.
    secret, one = (5).to_bytes(32, "little"), (1).to_bytes(33, "little")
    shares = split(secret, num_shares=2, threshold=2, random_bytes=lambda _: one)
    assert shares == [(6).to_bytes(33, "little"), (7).to_bytes(33, "little")]


def test_only_the_lowest_shares_are_used() -> None:
    shares = shares_of(SECRET, 5, 3)
    assert combine(shares | {4: bytes(33), 5: bytes(33)}, threshold=3) == SECRET


@pytest.mark.parametrize(
    ("x", "share", "message"),
    [
        (1, bytes(32), "32 bytes, need 33"),
        (1, bytes(34), "34 bytes, need 33"),
        (1, PRIME.to_bytes(33, "little"), "not an element"),
        (1, b"\xff" * 33, "not an element"),
        (0, bytes(33), "share number 0"),
        (-1, bytes(33), "share number -1"),
        (2**16, bytes(33), "share number 65536"),
    ],
)
def test_a_malformed_share_is_the_peers_fault(
    x: int, share: bytes, message: str
) -> None:
    with pytest.raises(PeerError, match=message):
        combine({**shares_of(SECRET, 5, 3), x: share}, threshold=3)


def test_a_result_of_more_than_32_bytes_is_the_peers_fault() -> None:
    too_large = (2**256 + 1).to_bytes(33, "little")
    with pytest.raises(PeerError, match="one of them is wrong"):
        combine({1: too_large, 2: too_large}, threshold=2)


def test_too_few_shares_lose_the_round() -> None:
    shares = shares_of(SECRET, 5, 3)
    with pytest.raises(RoundAbortedError, match="2 shares, need 3"):
        combine({1: shares[1], 2: shares[2]}, threshold=3)


@pytest.mark.parametrize(
    ("num_shares", "threshold"), [(3, 4), (3, 0), (0, 0), (2**16, 2)]
)
def test_numbers_out_of_range_are_refused(num_shares: int, threshold: int) -> None:
    with pytest.raises(MisuseError, match="threshold"):
        split(SECRET, num_shares=num_shares, threshold=threshold)


def test_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(MisuseError, match="31 bytes, need 32"):
        split(bytes(31), num_shares=3, threshold=2)


def test_a_source_that_runs_dry_is_noticed() -> None:
    with pytest.raises(MisuseError, match="random bytes instead of"):
        split(SECRET, num_shares=3, threshold=2, random_bytes=lambda n: bytes(n - 1))


@pytest.mark.parametrize("xs", [(1, 1), (0, 1), (PRIME, 2), (1, PRIME + 1)])
def test_points_that_fall_together_have_no_weights(xs: tuple[int, int]) -> None:
    with pytest.raises(MisuseError, match="different and not zero"):
        lagrange_at_zero(xs)


def test_weights_are_a_fresh_list_each_time() -> None:
    lagrange_at_zero((1, 2)).clear()
    assert lagrange_at_zero((1, 2)) == [2, PRIME - 1]


def test_an_error_shows_no_share() -> None:
    share = b"\xff" * SHARE_BYTES
    with pytest.raises(PeerError) as caught:
        combine({1: share}, threshold=1)
    assert share.hex() not in str(caught.value)
    assert str(int.from_bytes(share, "little")) not in str(caught.value)
