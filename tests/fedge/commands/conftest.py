from pathlib import Path

import pytest

from tests.fedge.commands.kit import enroll_device, fedge


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an enrolment key in owner/ and devices 1 to 3 in d1/ to d3/."""
    assert fedge("enroll", "create-key", tmp_path / "owner") == 0
    for uid in (1, 2, 3):
        assert enroll_device(tmp_path, uid) == 0
    return tmp_path
