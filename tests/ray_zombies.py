"""Ends what Ray leaves of its processes in ours; not a test."""

import psutil  # type: ignore[import-untyped]

_SECONDS = 5.0


def reap_zombies() -> None:
    """Wait for the child processes that have ended; Ray does not.

    Raises:
        AssertionError: one of Ray's processes has not ended.
    """
    for child in psutil.Process().children(recursive=True):
        name = child.name()
        if child.status() == psutil.STATUS_ZOMBIE:
            child.wait(_SECONDS)
        assert "ray" not in name or not child.is_running(), name
