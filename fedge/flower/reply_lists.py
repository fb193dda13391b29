"""Lists of replies that can be emptied when nobody can read them any more.

Flower's `Strategy.start` keeps the replies of a round in a local variable until it has
those of the next one: two rounds' models at a time, which is the most memory that a
simulation of a large model needs. It does not look at them again, so they are let go
of when it asks for the next ones, if nobody else holds the list. The messages in it
stay alive for whoever holds those.
"""

import gc
import sys
import weakref
from collections.abc import Iterable
from types import FrameType

from flwr.app import Message
from flwr.serverapp.strategy import Strategy

# What refers to a list that only its asker holds: a variable of the asker's, our own
# variable, and the argument of `getrefcount`.
_REFERENCES_OF_AN_ASKER = 3


class _Replies(list[Message]):
    """A list that can be referred to weakly."""


class ReplyLists:
    """Makes the lists of one grid, and empties them when they are dead.

    Guarantee: only a list that `Strategy.start` of Flower was given, and that nobody
    else refers to, is emptied, and only when that function asks for more replies.
    """

    def __init__(self) -> None:
        self._given: weakref.ref[_Replies] | None = None

    def make(
        self, replies: Iterable[Message], asker: FrameType | None
    ) -> list[Message]:
        """Return the list to give to the function whose frame `asker` is."""
        made = _Replies(replies)
        if _is_flowers_loop(asker):
            self._given = weakref.ref(made)
        return made

    def let_go(self, asker: FrameType | None) -> None:
        """Empty the last list if `asker` is who was given it and asks for more."""
        given = self._given() if self._given else None
        if given is None or not _is_flowers_loop(asker):
            return
        if sys.getrefcount(given) <= _REFERENCES_OF_AN_ASKER:
            given.clear()
            gc.collect()  # views of a message's records are cycles of references


def _is_flowers_loop(frame: FrameType | None) -> bool:
    return frame is not None and frame.f_code is Strategy.start.__code__
