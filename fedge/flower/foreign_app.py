"""Around the ClientApp of somebody else: its randomness, and its first tracebacks.

Apps draw from the global generators of Python, numpy and PyTorch. In the process of a
worker what a client finds there depends on who ran before it; with a seed each client
finds what is its own, whichever worker runs it.
"""

import hashlib
import logging
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedge.flower.batching import together, together_of

logger = logging.getLogger(__name__)


class ForeignApp(ClientApp):
    """Runs another ClientApp; what that does is not changed.

    Guarantee: with a seed, equal messages to a client draw equal numbers, whatever the
    number of workers; a message without a group id (a round) counts as equal if its
    content is.

    Args:
        app: the app.
        seed: of the global generators; None leaves them alone.
    """

    def __init__(self, app: ClientApp, *, seed: int | None = None) -> None:
        super().__init__()
        self._app = app
        self._seed = seed
        self._seen: set[tuple[str, str, int]] = set()
        if (function := together_of(app)) is not None:
            together(self)(function)

    def __call__(self, message: Message, context: Context) -> Message:
        """Run the app for one client, and tell of each kind of failure once."""
        try:
            if self._seed is None:
                return self._app(message, context)
            with global_seed(_seed_of(self._seed, message, context)):
                return self._app(message, context)
        except Exception as exc:
            self._tell_once(exc)
            raise

    def _tell_once(self, exc: Exception) -> None:
        """Log a failure's traceback unless one from the same line was logged."""
        *_, (frame, line) = traceback.walk_tb(exc.__traceback__)
        kind = (type(exc).__name__, frame.f_code.co_filename, line)
        if kind not in self._seen:
            self._seen.add(kind)
            logger.warning("a client failed", exc_info=exc)


def seed_globally(seed: int) -> None:
    """Seed the global generators of Python, numpy and, if it is loaded, PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # the one that foreign code uses
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators for a block, and put them back as they were."""
    torch = sys.modules.get("torch")
    pythons, numpys = random.getstate(), np.random.get_state()
    torchs = torch.get_rng_state() if torch is not None else None
    try:
        seed_globally(seed)
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)
        if torch is not None:
            torch.set_rng_state(torchs)


def _seed_of(seed: int, message: Message, context: Context) -> int:
    """Return a client's own seed for a message, in [0, 2**63)."""
    metadata, digest = message.metadata, hashlib.blake2b(digest_size=8)
    place = context.node_config.get("partition-id", metadata.dst_node_id)
    what = [seed, place, metadata.message_type, metadata.group_id]
    digest.update(repr(what).encode())
    if not metadata.group_id:
        for key, record in message.content.items():
            digest.update(key.encode())
            if isinstance(record, ArrayRecord):
                for array in record.values():
                    digest.update(array.data)
            else:
                digest.update(repr(dict(record)).encode())
    return int.from_bytes(digest.digest()) >> 1
