from inspect import isclass
from types import ModuleType

import pytest
from securesystemslib import exceptions as signing
from tuf.api import exceptions as tuf
from tuf.api import serialization

from fedge.errors import BadSignatureError, ExpiredError, VerificationError
from fedge.release.foreign import OUR_ERROR_BY_FOREIGN, ours, translated


def errors_of(module: ModuleType) -> set[type[Exception]]:
    return {
        value
        for value in vars(module).values()
        if isclass(value) and issubclass(value, Exception)
    }


FOREIGN = errors_of(tuf) | errors_of(signing) | errors_of(serialization)


def instance(kind: type[Exception]) -> Exception:
    if kind is tuf.DownloadHTTPError:
        return tuf.DownloadHTTPError("missing", 404)
    return kind("reason")


def test_every_foreign_error_has_one_of_ours() -> None:
    assert len(FOREIGN) > 15
    assert set(OUR_ERROR_BY_FOREIGN) == FOREIGN


@pytest.mark.parametrize("kind", sorted(FOREIGN, key=str))
def test_each_becomes_exactly_its_own(kind: type[Exception]) -> None:
    refused = pytest.raises(VerificationError, match="release refused")
    with refused as caught, translated():
        raise instance(kind)
    assert type(caught.value) is OUR_ERROR_BY_FOREIGN[kind]
    assert type(caught.value.__cause__) is kind


def test_a_subclass_goes_with_its_base() -> None:
    class NewerError(tuf.ExpiredMetadataError):
        pass

    assert type(ours(NewerError("x"))) is ExpiredError


def test_an_unknown_error_is_still_ours() -> None:
    assert type(ours(KeyError("x"))) is VerificationError


def test_our_own_errors_pass_unchanged() -> None:
    with pytest.raises(BadSignatureError, match="as it was"), translated():
        raise BadSignatureError("as it was")


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError
