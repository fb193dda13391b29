"""A simulated network's own check of what it carries: CRC-32 of each reply.

A real fleet has this and more: TLS, and Flower's content hashes. In a simulation
messages are handed over as objects and nothing would notice a bit that was turned on
the way, so whoever lets bits be turned puts these two in:

    grid = Checksums(Faults(LocalGrid(with_mod(client_app, checksum_mod), ...), ...))

It finds damage and not attacks: anybody can compute a CRC.
"""

import zlib
from collections.abc import Iterable, Iterator

from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp.typing import ClientAppCallable
from flwr.common.constant import ErrorCode

from fedge.flower.layer import GridLayer, stream_replies
from fedge.flower.partial import Reduction
from fedge.flower.records import private_copy

_RECORD, _ENTRY = "fedge.checksum", "crc32"


def checksum_mod(
    message: Message, context: Context, call_next: ClientAppCallable
) -> Message:
    """Add its checksum to what leaves the device; to be the outermost mod."""
    reply = call_next(message, context)
    if reply.has_content():
        reply.content[_RECORD] = ConfigRecord({_ENTRY: checksum(reply.content)})
    return reply


class Checksums(GridLayer):
    """Turns every reply whose checksum does not fit into an error reply.

    Guarantee: a reply that passes is what was sent, if at most 32 consecutive bits of
    one array or byte string were changed; of other damage one in 2^32 passes.
    """

    def stream(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
        reduction: Reduction | None = None,
    ) -> Iterator[Message]:
        """Yield the replies as they arrive, checked; none is added up before."""
        for reply in stream_replies(self.inner, messages, timeout=timeout):
            yield reply if reply.has_error() else _checked(reply)


def checksum(content: RecordDict) -> int:
    """Return the CRC-32 of a content: its values, names, types and their order."""
    crc = 0
    for part in _parts(content):
        crc = zlib.crc32(part, crc)
    return crc


def _parts(content: RecordDict) -> Iterator[bytes]:
    for key, record in content.items():
        yield f"{type(record).__name__} {key!r}".encode()
        if isinstance(record, ArrayRecord):
            for name, array in record.items():
                yield repr((name, array.dtype, array.shape, array.stype)).encode()
                yield array.data
        else:
            yield repr(list(record.items())).encode()


def _checked(reply: Message) -> Message:
    content = private_copy(reply.content)
    record = content.pop(_RECORD, None)
    found = record.get(_ENTRY) if isinstance(record, ConfigRecord) else None
    if found == checksum(content):
        return make_message(reply.metadata, content)
    reason = "no checksum" if found is None else "damaged on the way (checksum)"
    error = Error(ErrorCode.NODE_UNAVAILABLE, f"reply: {reason}")
    return make_message(reply.metadata, error=error)
