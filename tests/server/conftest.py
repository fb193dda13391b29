import pytest


@pytest.fixture(autouse=True)
def _devices_may_train_openly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests in here are about other things than secure aggregation."""
    monkeypatch.setenv("FEDGE_SECAGG", "optional")
