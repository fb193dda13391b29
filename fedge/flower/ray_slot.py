"""The pool's side of one actor on a Ray cluster, and what that actor has to do."""

from dataclasses import dataclass, field

from fedge.flower.ray_cluster import Call, Handle, Place


@dataclass(slots=True)
class Slot:
    """One actor, seen from here. Clients go by their number in the present job.

    Attributes:
        number: its place in the pool.
        place: where it runs.
        actor: None if it is gone for good.
        call: what it was asked and has not answered.
        given: clients that it has not answered for, and their nodes.
        is_ready: whether it has started.
        knows_job: whether it was told the present job.
        deaths: in the present job.
    """

    number: int
    place: Place
    actor: Handle | None
    call: Call | None
    given: dict[int, int] = field(default_factory=dict)
    is_ready: bool = False
    knows_job: bool = False
    deaths: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether it can be asked for something."""
        return self.actor is not None and self.is_ready and self.call is None
