"""One request to a pool of workers: what was asked, and what has been answered."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict

from fedge.errors import PeerError
from fedge.flower.codec import Blobs, Buffer, Plain, decode_content, encode_content
from fedge.flower.frames import Memory, pack_frame
from fedge.flower.partial import Accumulator, Reduction, make_partial
from fedge.flower.schedule import Schedule


@dataclass(slots=True)
class Job:
    """One request.

    Attributes:
        messages: to different clients.
        reduction: how replies are added up in the workers, if at all.
        schedule: who is still to be computed.
        frame: what a worker is told first.
        content_of, kind_of: for each message, which of the frame's contents and kinds.
        answers: replies that were not yielded yet, by number.
        seen: numbers of the replies that came by themselves.
        added: numbers of the replies that are in some worker's sum.
        total: what workers have handed over; None without a reduction.
        refused: sums that could not be added to it, with their nodes.
        num_bytes: payload of the replies in these sums.
    """

    messages: list[Message]
    reduction: Reduction | None
    schedule: Schedule
    frame: bytes
    content_of: list[int]
    kind_of: list[int]
    answers: dict[int, Message] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    added: set[int] = field(default_factory=set)
    total: Accumulator | None = field(init=False)
    refused: list[tuple[Sequence[int], RecordDict]] = field(default_factory=list)
    num_bytes: int = 0
    next_number: int = 0
    num_done: int = 0
    unexplained_deaths: int = 0

    def __post_init__(self) -> None:
        self.total = self.reduction.start() if self.reduction else None

    @property
    def is_done(self) -> bool:
        """Whether every client was computed."""
        return self.num_done == len(self.messages)

    def extend(
        self, messages: Sequence[Message], contents: Sequence[int], kinds: Sequence[int]
    ) -> range:
        """Take more messages, with their contents and kinds; return their numbers."""
        first = len(self.messages)
        self.messages += messages
        self.content_of += contents
        self.kind_of += kinds
        return range(first, len(self.messages))

    def answer(self, number: int, reply: Message) -> None:
        """Note a reply."""
        self.answers[number] = reply
        self.seen.add(number)
        self.num_done += 1

    def add(self, numbers: Sequence[int]) -> None:
        """Note that these replies are in a worker's sum."""
        self.added.update(numbers)
        self.num_done += len(numbers)

    def take_back(self, numbers: Iterable[int]) -> None:
        """Note that a sum with these replies is lost."""
        gone = self.added.intersection(numbers)
        self.added -= gone
        self.num_done -= len(gone)

    def add_partial(
        self, structure: Plain, blobs: Sequence[Buffer], nodes: Sequence[int]
    ) -> None:
        """Add a worker's sum."""
        assert self.total is not None
        content = decode_content(structure, blobs)
        try:
            self.total.merge(content, nodes)
        except PeerError:  # whoever asked for it decides what becomes of it
            self.refused.append((nodes, content))

    def partials(self) -> Iterator[Message]:
        """Yield the sums that were handed over: one, unless some do not fit."""
        sums = [] if self.total is None else self.total.contents()
        for nodes, content in (*sums, *self.refused):
            first = next(m for m in self.messages if m.metadata.dst_node_id == nodes[0])
            reply = Message(RecordDict(), reply_to=first)
            yield make_partial(reply, content, nodes, num_bytes=self.num_bytes)
            self.num_bytes = 0  # of all of them; told once

    def ready(self) -> Iterator[Message]:
        """Yield the replies whose turn it is."""
        while self.next_number in self.answers or self.next_number in self.added:
            reply = self.answers.pop(self.next_number, None)
            self.next_number += 1
            if reply is not None:
                yield reply

    def rest(self) -> Iterator[Message]:
        """Yield the replies that are there although earlier ones are missing."""
        yield from (self.answers.pop(number) for number in sorted(self.answers))


@dataclass(frozen=True, slots=True)
class Described:
    """What the messages of a request have in common, to be told once.

    Attributes:
        structure: contents, kinds and reduction, as a worker is told.
        blobs: its bytes.
        content_of, kind_of: for each message, which of these.
    """

    structure: Plain
    blobs: list[bytes]
    content_of: list[int]
    kind_of: list[int]


def make_job(
    messages: Sequence[Message],
    reduction: Reduction | None,
    schedule: Schedule,
    memory: Memory,
) -> Job:
    """Return the job of a request; its contents are written into `memory`, once."""
    told = describe(messages, reduction)
    frame = pack_frame(told.structure, told.blobs, memory)
    return Job(
        list(messages), reduction, schedule, frame, told.content_of, told.kind_of
    )


def describe(messages: Sequence[Message], reduction: Reduction | None) -> Described:
    """Return what a request's messages have in common."""
    blobs, contents, kinds = Blobs(), _Numbered(), _Numbered()
    content_of, kind_of = [], []
    for message in messages:
        content, kind = message.content, _kind_of(message)
        content_of.append(contents.number_of(id(content), content))
        kind_of.append(kinds.number_of(kind, kind))
    structure: Plain = [
        "job",
        [encode_content(content, blobs) for content in contents.items],
        kinds.items,
        [reduction.kind, reduction.to_json()] if reduction else None,
    ]
    return Described(structure, blobs.items, content_of, kind_of)


class _Numbered:
    """Things by number; the same thing has one number."""

    def __init__(self) -> None:
        self.items: list[Plain] = []
        self._number_by_key: dict[object, int] = {}

    def number_of(self, key: object, item: Plain) -> int:
        number = self._number_by_key.setdefault(key, len(self.items))
        if number == len(self.items):
            self.items.append(item)
        return number


def _kind_of(message: Message) -> tuple[object, ...]:
    """Return what the messages of a broadcast have in common."""
    m = message.metadata
    return (
        m.run_id,
        m.src_node_id,
        m.group_id,
        m.ttl,
        m.message_type,
        m.src_task_id,
        m.dst_task_id,
    )
