"""Shamir's secret sharing of 32-byte secrets, over the prime 2^256 + 297.

The prime is the first above 2^256, so that every 32-byte secret is an element and a
share takes 33 bytes. Plain Python integers: no tables that a cache could betray, and
never the slowest part. They do not run in constant time; a device shares secrets that
live for one round only, and whoever combines learns the secret anyway.

Shares say nothing about who made them: commitments that catch a wrong one, and the
encryption under which they travel, are elsewhere.

Source: Shamir, "How to share a secret", CACM 22 (1979).
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from fedge.errors import MisuseError, PeerError, RoundAbortedError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
MAX_SHARES = 2**16 - 1  # a share's number travels in two bytes


def split(
    secret: bytes,
    *,
    num_shares: int,
    threshold: int,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> list[bytes]:
    """Return one share for each x = 1, ..., num_shares.

    The top coefficient may be zero. Forbidding it would tell threshold - 1 holders one
    value that the secret does not have: the one on their polynomial of lower degree.

    Guarantee: any `threshold` shares give the secret back; fewer are independent of it.

    Args:
        secret: 32 bytes.
        num_shares: how many, at most 65 535.
        threshold: how many are needed, in [1, num_shares].
        random_bytes: source of uniform bytes; the operating system's but for tests.

    Returns:
        33-byte little-endian elements; the first is for x = 1.

    Raises:
        MisuseError: a wrong length of the secret, or numbers out of range.
    """
    if len(secret) != SECRET_BYTES:
        raise MisuseError(f"secret: {len(secret)} bytes, need {SECRET_BYTES}")
    if not 1 <= threshold <= num_shares <= MAX_SHARES:
        raise MisuseError(
            f"need 1 <= threshold <= num_shares <= {MAX_SHARES}, "
            f"got threshold {threshold}, num_shares {num_shares}"
        )
    constant = int.from_bytes(secret, "little")
    coefficients = [constant, *uniform_elements(threshold - 1, random_bytes)]
    values = polynomial_values(coefficients, num_shares)
    return [value.to_bytes(SHARE_BYTES, "little") for value in values]


def combine(shares: Mapping[int, bytes], *, threshold: int) -> bytes:
    """Return the secret behind the `threshold` shares of lowest x.

    The weights are kept between calls, so that many secrets shared among the same
    holders cost little more than one. A wrong share gives a wrong secret, which only a
    commitment to the secret can tell.

    Args:
        shares: 33 bytes each, by x.
        threshold: the one that the secret was split with.

    Returns:
        32 bytes.

    Raises:
        PeerError: a share is malformed (its x is named), or the result is no 32-byte
            secret, so that at least one of the shares is wrong.
        RoundAbortedError: fewer than `threshold` shares.
    """
    for x, share in shares.items():
        check_share(x, share)
    if not 1 <= threshold <= len(shares):
        raise RoundAbortedError(f"{len(shares)} shares, need {threshold}")
    xs = sorted(shares)[:threshold]
    values = (int.from_bytes(shares[x], "little") for x in xs)
    products = (w * v for w, v in zip(lagrange_at_zero(xs), values, strict=True))
    secret = sum(products) % PRIME
    if secret >> (8 * SECRET_BYTES):
        raise PeerError("the shares do not give a 32-byte secret: one of them is wrong")
    return secret.to_bytes(SECRET_BYTES, "little")


def check_share(x: int, share: bytes) -> None:
    """Raise PeerError unless this can be a share; its bytes are never shown."""
    if not 1 <= x <= MAX_SHARES:
        raise PeerError(f"share number {x} not in [1, {MAX_SHARES}]")
    if len(share) != SHARE_BYTES:
        raise PeerError(f"share {x}: {len(share)} bytes, need {SHARE_BYTES}")
    if int.from_bytes(share, "little") >= PRIME:
        raise PeerError(f"share {x}: not an element of the field")


def lagrange_at_zero(xs: Sequence[int], *, prime: int = PRIME) -> list[int]:
    """Return the weights that turn values at `xs` into the value at zero.

    Guarantee: sum of weight * f(x) = f(0) for every f of degree below len(xs).

    Raises:
        MisuseError: two xs are the same, or one is zero, modulo `prime`.
    """
    return list(_cached_weights(tuple(xs), prime))


def uniform_elements(
    count: int, random_bytes: Callable[[int], bytes], *, prime: int = PRIME
) -> list[int]:
    """Return `count` uniform elements of [0, prime).

    Draws whole bytes, and again where a draw is at or above the largest multiple of the
    prime (once in 256 for `PRIME`): otherwise small elements would be more likely.
    """
    width = (prime.bit_length() + 7) // 8
    limit = 256**width // prime * prime
    elements: list[int] = []
    while len(elements) < count:
        wanted = width * (count - len(elements))
        drawn = random_bytes(wanted)
        if len(drawn) != wanted:
            raise MisuseError(f"{len(drawn)} random bytes instead of {wanted}")
        pieces = (drawn[i : i + width] for i in range(0, wanted, width))
        draws = (int.from_bytes(piece, "little") for piece in pieces)
        elements += [draw % prime for draw in draws if draw < limit]
    return elements


def polynomial_values(
    coefficients: Sequence[int], num_points: int, *, prime: int = PRIME
) -> list[int]:
    """Return the polynomial at 1, ..., num_points; constant coefficient first.

    Horner's rule in whole integers, reduced once: x is small, so they grow slowly.
    """
    descending = coefficients[::-1]
    values = []
    for x in range(1, num_points + 1):
        value = 0
        for coefficient in descending:
            value = value * x + coefficient
        values.append(value % prime)
    return values


@lru_cache(maxsize=1024)  # about 5 MB at a threshold of 67
def _cached_weights(xs: tuple[int, ...], prime: int) -> tuple[int, ...]:
    if len({x % prime for x in xs} - {0}) != len(xs):
        raise MisuseError("share numbers must be different and not zero")
    product = math.prod(xs)
    denominators = [
        x * math.prod(other - x for other in xs if other != x) % prime for x in xs
    ]
    return tuple(
        product * inverse % prime for inverse in _inverses(denominators, prime)
    )


def _inverses(values: Sequence[int], prime: int) -> list[int]:
    """Return 1 / value for each, with a single division (Montgomery's trick)."""
    before = [1, *accumulate(values, lambda a, b: a * b % prime)]
    inverse = pow(before[-1], -1, prime)
    result = []
    for value, product in zip(reversed(values), reversed(before[:-1]), strict=True):
        result.append(inverse * product % prime)
        inverse = inverse * value % prime
    return result[::-1]
