from pathlib import Path

import pytest

from fedge.release.keys import KeyRing


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder: Path = tmp_path_factory.mktemp("keys") / "ring"
    return KeyRing.create(folder, root_keys=3, root_threshold=2)


@pytest.fixture(scope="session")
def stranger_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder: Path = tmp_path_factory.mktemp("stranger") / "ring"
    return KeyRing.create(folder, root_keys=3, root_threshold=2)
