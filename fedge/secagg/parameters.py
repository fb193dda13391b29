"""How many neighbours k, and how many shares t open a secret, for n members.

Too few neighbours and corrupt ones may hold t shares of an honest client, or the honest
survivors fall apart; too many cost time. A random neighbourhood holds a hypergeometric
number of corrupt and of surviving members, and the finder takes the smallest k for
which the tails are thin enough.

Source: Bell et al., CCS 2020, section 3. The split of the bad events, and counting the
client itself among the n, are those of google-parfait/federated-compute, fcp/secagg
(Apache-2.0), whose test table is our known answer. Differs in: t = 2 is not taken where
only t = 1 would be reliable (two rows of the table, both n = 10 with 33 % dropout).
"""

import math
from enum import Enum, auto
from fractions import Fraction

from fedge.errors import ConfigError

MAX_COMPLETE = 128  # a complete graph needs no trust in a graph, and is affordable here
DEFAULT_RATE = 0.1
MIN_THRESHOLD = 2
_MAX_BAD_SHARE = Fraction(9, 10)


class ServerModel(Enum):
    """What the server may do with the members it has corrupted."""

    SEMI_HONEST = auto()
    """It follows the protocol and looks: corrupt neighbours must hold < t shares."""
    SEMI_MALICIOUS = auto()
    """It lies about who is alive: 2 t > k + corrupt neighbours must hold."""


def complete_parameters(n: int) -> tuple[int, int]:
    """Return (k, t) of the complete graph: t just above two thirds of the others.

    Guarantee: 2 t > k + c while the corrupt c are at most a third of the others, so no
    server opens both secrets of a client, in either model.

    Raises:
        ConfigError: n is below 3.
    """
    if n < 3:
        raise ConfigError(f"graph: {n} members, need at least 3")
    return n - 1, 2 * (n - 1) // 3 + 1


def default_parameters(n: int, *, privacy_bits: int = 40) -> tuple[int, int]:
    """Return (k, t): complete up to 128 members, then for 10 % corrupt, 10 % dropout.

    Args:
        n: members asked to take part.
        privacy_bits: 40 if nobody could choose the graph's seed; 80 if there is no
            beacon, so that a server could try rosters until it likes one.

    Raises:
        ConfigError: n is below 3, or there is no such graph.
    """
    if n <= MAX_COMPLETE:
        return complete_parameters(n)
    return find_parameters(
        n,
        adversarial=DEFAULT_RATE,
        dropout=DEFAULT_RATE,
        model=ServerModel.SEMI_MALICIOUS,
        privacy_bits=privacy_bits,
    )


def find_parameters(
    n: int,
    *,
    adversarial: float,
    dropout: float,
    model: ServerModel,
    privacy_bits: int = 40,
    failure_bits: int = 20,
) -> tuple[int, int]:
    """Return the smallest even k below n - 1 that is safe, and its smallest t.

    Guarantee: with probability above 1 - 2**-privacy_bits the honest survivors are
    connected and no honest client has t corrupt neighbours (or 2 t <= k + corrupt, in
    the semi-malicious model); with probability above 1 - 2**-failure_bits every client
    keeps t neighbours.

    Args:
        n: members asked to take part, dropouts during training included.
        adversarial: share of them that the server has corrupted, in [0, 1).
        dropout: share of them that fails, in [0, 1).
        model: what the server may do.
        privacy_bits: log2 of the inverse chance that privacy is lost.
        failure_bits: log2 of the inverse chance that the round is lost.

    Raises:
        ConfigError: a rate is out of range, or no k below n - 1 is safe.
    """
    corrupt, missing = _check_counts(n, adversarial, dropout, model)
    limits = (-math.log(2) * (privacy_bits + 1), -math.log(2) * failure_bits)
    k = 2
    while k < n - 1:
        need, can = _thresholds(n, k, corrupt, missing, limits=limits, model=model)
        if need <= can and _log_separated(n, k, corrupt + missing) < limits[0]:
            return k, need
        # Another neighbour raises `can` by at most 1 and never lowers `need`: k up to
        # k + (need - can) - 1 cannot be enough either. Stay even.
        k += max(2, need - can + (need - can) % 2)
    raise ConfigError(
        f"graph: no even number of neighbours below {n - 1} is safe for {n} members, "
        f"{adversarial:.0%} corrupt and {dropout:.0%} dropouts; lower a rate or take "
        "the complete graph"
    )


def _check_counts(
    n: int, adversarial: float, dropout: float, model: ServerModel
) -> tuple[int, int]:
    for name, rate in (("adversarial", adversarial), ("dropout", dropout)):
        if not 0.0 <= rate < 1.0:
            raise ConfigError(f"{name}: {rate} not in [0, 1)")
    if n < 4:
        raise ConfigError(f"graph: {n} members, need at least 4; or the complete graph")
    # Through text: 0.29 means 29/100, not the nearest binary fraction below it.
    corrupt, missing = Fraction(str(adversarial)), Fraction(str(dropout))
    factor = 1 if model is ServerModel.SEMI_HONEST else 2
    if corrupt + factor * missing > _MAX_BAD_SHARE:
        raise ConfigError(
            f"adversarial + {factor} * dropout: {float(corrupt + factor * missing):g} "
            f"not in [0, {float(_MAX_BAD_SHARE)}]"
        )
    return math.floor(corrupt * n), math.floor(missing * n)


def _thresholds(
    n: int,
    k: int,
    corrupt: int,
    missing: int,
    *,
    limits: tuple[float, float],
    model: ServerModel,
) -> tuple[int, int]:
    """Return the smallest t that is private and the largest t that is reliable."""
    log_privacy, log_failure = (limit - math.log(n) for limit in limits)
    max_corrupt = k - _quantile(log_privacy, n, n - corrupt, k)
    need = max_corrupt + 1
    if model is ServerModel.SEMI_MALICIOUS:
        need = (k + max_corrupt) // 2 + 1  # the smallest t with 2 t > k + corrupt
    return max(need, MIN_THRESHOLD), _quantile(log_failure, n, n - missing, k)


def _log_separated(n: int, k: int, removed: int) -> float:
    """Bound the log chance that `removed` random members separate the others.

    They must hold k/2 places in a row twice: a union over the pairs of such gaps.
    """
    if k > removed:
        return -math.inf
    pairs = math.log(n) + math.log(n - k - 1) - math.log(2)
    return pairs + _log_falling(removed, k) - _log_falling(n, k)


def _quantile(log_limit: float, n: int, marked: int, k: int) -> int:
    """Return the smallest r with log P[X <= r] >= log_limit, X marked among k drawn."""
    low = max(0, k - (n - marked))
    high = max(low, math.ceil(Fraction(k * marked, n)))  # at or above the median
    while low < high:
        middle = (low + high) // 2
        if _log_lower_tail(middle, n, marked, k) >= log_limit:
            high = middle
        else:
            low = middle + 1
    return low


def _log_lower_tail(x: int, n: int, marked: int, k: int) -> float:
    """Return log P[X <= x] for x in the support and not above the mean, rounded up."""
    log_term = _log_choose(marked, x) + _log_choose(n - marked, k - x)
    total, ratio = 0.0, 1.0
    while ratio > total * 1e-17:
        total += ratio
        ratio *= x * (n - marked - k + x) / ((marked - x + 1) * (k - x + 1))
        x -= 1
    return log_term - _log_choose(n, k) + math.log(total)


def _log_choose(n: int, k: int) -> float:
    return _log_falling(n, k) - math.lgamma(k + 1)


def _log_falling(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(n - k + 1)
