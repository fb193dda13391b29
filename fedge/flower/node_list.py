"""A Grid that only lists nodes, and the identity that Flower's messages need.

Enough to ask a Flower strategy how it would configure a round, without sending.
"""

from collections.abc import Iterable, Sequence
from typing import NoReturn

from flwr.app import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedge.errors import MisuseError


def claim_task_identity(run_id: int) -> None:
    """Make this process a run's server task; only a task can make messages."""
    TaskIdentity.task_id = 1
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID


def ensure_task_identity() -> None:
    """Claim an identity unless a runtime has already given this process one."""
    try:
        _ = TaskIdentity.task_id
    except RuntimeError:
        claim_task_identity(run_id=1)


def _refuse() -> NoReturn:
    raise MisuseError("this grid only lists nodes; it sends nothing")


class NodeList(Grid):
    """Lists nodes and refuses everything else."""

    def __init__(self, node_ids: Sequence[int]) -> None:
        self._node_ids = node_ids

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes."""
        return self._node_ids

    def set_run(self, run: Run) -> None:
        """Refuse: raise MisuseError."""
        _refuse()

    @property
    def run(self) -> Run:
        """Refuse: raise MisuseError."""
        _refuse()

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Refuse: raise MisuseError."""
        _refuse()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refuse: raise MisuseError."""
        _refuse()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refuse: raise MisuseError."""
        _refuse()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Refuse: raise MisuseError."""
        _refuse()
