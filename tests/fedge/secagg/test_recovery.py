import numpy as np
import pytest

from fedge.errors import RoundAbortedError
from fedge.secagg.recovery import recover
from fedge.secagg.shamir import split

SECRET = bytes(range(32))
THRESHOLD, HOLDERS = 13, 19


def shares_of(*wrong: int) -> dict[int, bytes]:
    values = split(SECRET, num_shares=HOLDERS, threshold=THRESHOLD)
    shares = {x + 1: value for x, value in enumerate(values)}
    rng = np.random.default_rng(0)
    return shares | {x: rng.bytes(32) + b"\0" for x in wrong}


def is_right(secret: bytes) -> bool:
    return secret == SECRET


def test_good_shares_give_the_secret_and_accuse_nobody() -> None:
    found = recover(shares_of(), threshold=THRESHOLD, is_right=is_right)
    assert (found.secret, found.wrong) == (SECRET, frozenset())
    assert SECRET.hex() not in repr(found)
    assert repr(SECRET) not in repr(found)


@pytest.mark.parametrize("liar", range(1, HOLDERS + 1))
def test_one_wrong_share_never_prevents_it(liar: int) -> None:
    shares = shares_of(liar)
    found = recover(shares, threshold=THRESHOLD, is_right=is_right)
    assert found.secret == SECRET
    # Wrong shares beyond those that were needed are not looked at.
    assert found.wrong == ({liar} if liar <= THRESHOLD else set())


def test_suspects_are_tried_last() -> None:
    shares = shares_of(1, 2, 3)
    found = recover(shares, threshold=THRESHOLD, is_right=is_right, suspects=[1, 2, 3])
    assert (found.secret, found.wrong) == (SECRET, frozenset())


def test_too_few_shares_abort() -> None:
    few = dict(list(shares_of().items())[: THRESHOLD - 1])
    with pytest.raises(RoundAbortedError, match="12 shares of its secret, need 13"):
        recover(few, threshold=THRESHOLD, is_right=is_right)


def test_shares_of_something_else_abort() -> None:
    with pytest.raises(RoundAbortedError, match="do not fit what it announced"):
        recover(shares_of(), threshold=THRESHOLD, is_right=lambda _: False)


def test_shares_that_are_no_field_elements_are_passed_over() -> None:
    shares = shares_of() | {4: b"\xff" * 33}
    found = recover(shares, threshold=THRESHOLD, is_right=is_right)
    assert found.secret == SECRET
    assert found.wrong == {4}
