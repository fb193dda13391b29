"""A secret from its shares, when some of them may be wrong.

Shamir's scheme cannot tell a wrong share from a right one, but the owner announced
something that only the right secret fits (a public key, a commitment). So subsets are
tried until one fits, and then it is known which of the others do not.
"""

import itertools
import math
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from fedge.errors import PeerError, RoundAbortedError
from fedge.secagg.hashing import digest
from fedge.secagg.shamir import combine

# Whether a recovered secret is the one that was announced.
Check = Callable[[bytes], bool]

# Subsets of shares that are tried when some are wrong, before giving up.
_MAX_SUBSETS = 500


@dataclass(frozen=True, slots=True)
class Recovered:
    """A secret that fits, and which shares do not fit it.

    Attributes:
        secret: 32 bytes.
        wrong: positions of wrong shares, as far as they were looked at.
    """

    secret: bytes = field(repr=False)
    wrong: frozenset[int]


def recover(
    shares: Mapping[int, bytes],
    *,
    threshold: int,
    is_right: Check,
    suspects: Collection[int] = (),
) -> Recovered:
    """Return the secret that the shares hold.

    Guarantee: what is returned has passed `is_right`; one wrong share among more than
    `threshold` never prevents it.

    Args:
        shares: by position, from 1.
        threshold: shares that make the secret.
        is_right: whether a secret is the announced one.
        suspects: positions to try last.

    Raises:
        RoundAbortedError: too few shares, or no subset that was tried fits.
    """
    if len(shares) < threshold:
        raise RoundAbortedError(f"{len(shares)} shares of its secret, need {threshold}")
    doubtful = shares.keys() & set(suspects)
    first = None
    for subset in _subsets(shares.keys() - doubtful, doubtful, threshold):
        first = first or subset
        secret = _combine({x: shares[x] for x in subset}, threshold)
        if secret is not None and is_right(secret):
            # If the first ones fitted, nothing is known to be wrong with the others.
            wrong = () if subset is first else _wrong(shares, subset, is_right)
            return Recovered(secret, frozenset(wrong))
    raise RoundAbortedError("the shares of its secret do not fit what it announced")


def _wrong(
    shares: Mapping[int, bytes], good: tuple[int, ...], is_right: Check
) -> Iterator[int]:
    """Yield the positions whose share spoils the secret in place of a good one."""
    for position in shares.keys() - set(good):
        swapped = {x: shares[x] for x in (*good[1:], position)}
        secret = _combine(swapped, len(good))
        if secret is None or not is_right(secret):
            yield position


def _combine(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    try:
        return combine(shares, threshold=threshold)
    except PeerError:
        return None  # shares that are no field elements, or a secret of 33 bytes


def _subsets(
    trusted: Collection[int], suspects: Collection[int], threshold: int
) -> Iterator[tuple[int, ...]]:
    """Yield subsets of the shares, the most trusted first, each unlike the last.

    In alphabetical order the first share would be in all of the first 500. Here all
    windows come first, so that any one wrong share is left out soon; then, if there are
    too many subsets to try them all, ones that are spread evenly.
    """
    ranked = [*sorted(trusted), *sorted(suspects)]
    yield tuple(ranked[:threshold])
    if math.comb(len(ranked), threshold) <= _MAX_SUBSETS:
        yield from itertools.combinations(ranked, threshold)
        return
    for start in range(1, len(ranked)):
        yield tuple((ranked[start:] + ranked[:start])[:threshold])
    for attempt in range(_MAX_SUBSETS):
        yield tuple(sorted(ranked, key=partial(_spread, attempt))[:threshold])


def _spread(attempt: int, x: int) -> bytes:
    return digest("subset", struct.pack("<II", attempt, x))
