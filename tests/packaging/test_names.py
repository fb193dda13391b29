"""Common names such as `server` are ours, and not some other package's."""

import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "name", ["fedge", "strategies", "server", "clients", "simulations"]
)
def test_a_package_is_the_one_of_this_repository(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(REPOSITORY / name / "__init__.py")


@pytest.mark.parametrize("folder", ["tests", "conf"])
def test_a_folder_without_code_is_no_package(folder: str) -> None:
    assert list((REPOSITORY / folder).rglob("__init__.py")) == []
