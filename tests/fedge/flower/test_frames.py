"""Frames arrive whole and in order, however the socket cuts them."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.flower.frames import Frame, FrameReader, Memory, needs_memory, pack_frame

LIMIT = 16 * 1024
STRUCTURES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("abc\udfff") | st.just(0.5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
# Around the length from which bytes lie in memory instead of the frame.
BLOBS = st.lists(
    st.binary(max_size=50)
    | st.integers(LIMIT - 2, LIMIT + 2).map(lambda size: bytes([size % 251]) * size),
    max_size=4,
)
FRAMES = st.lists(st.tuples(STRUCTURES, BLOBS), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def memory() -> Iterator[Memory]:
    made = Memory.create("fedge-test", start=16)
    yield made
    made.close()


def read_all(reader: FrameReader) -> list[Frame]:
    return list(iter(reader.next, None))


@settings(deadline=None)
@given(frames=FRAMES, data=st.data())
def test_frames_may_be_cut_anywhere(
    memory: Memory, frames: Sequence[tuple[object, list[bytes]]], data: st.DataObject
) -> None:
    memory.rewind()
    stream = b"".join(pack_frame(s, blobs, memory) for s, blobs in frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    reader, found = FrameReader(memory), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[begin:end])
        found += read_all(reader)
    assert [(frame.structure, frame.blobs) for frame in found] == frames
    assert [f.used_memory for f in found] == [needs_memory(b) for _, b in frames]


def test_a_frame_may_come_byte_by_byte(memory: Memory) -> None:
    memory.rewind()
    stream = pack_frame(["x", 1], [b"short", b"l" * 20_000], memory)
    reader = FrameReader(memory)
    for place in range(len(stream) - 1):
        reader.feed(stream[place : place + 1])
        assert reader.next() is None
    reader.feed(stream[-1:])
    frame = reader.next()
    assert frame == Frame(["x", 1], [b"short", b"l" * 20_000], used_memory=True)


@pytest.mark.parametrize(
    ("size", "lies_in_memory"), [(LIMIT, False), (LIMIT + 1, True)]
)
def test_only_long_bytes_lie_in_memory(
    memory: Memory, size: int, *, lies_in_memory: bool
) -> None:
    memory.rewind()
    data = pack_frame([], [bytes(size)], memory)
    assert needs_memory([bytes(size)]) is lies_in_memory
    assert (len(data) < size) is lies_in_memory


def test_memory_keeps_what_is_before_its_start() -> None:
    memory = Memory.create("fedge-test", start=4)
    assert [memory.write(b"abc"), memory.write(b"de")] == [4, 7]
    memory.rewind()
    assert memory.write(b"x") == 4
    assert memory.read(0, 9) == b"\0\0\0\0xbcde"
    memory.close()
