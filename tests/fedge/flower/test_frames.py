"""Frames arrive whole and in order, however the socket cuts them."""

import gc
import os
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.flower.frames import Frame, FrameReader, Memory, pack_frame

LIMIT, LARGE = 16 * 1024, 1 << 20
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
    assert [f.used_memory for f in found] == [
        memory.lent_bytes(blobs) > 0 for _, blobs in frames
    ]


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
    assert memory.lent_bytes([bytes(size)]) == size * lies_in_memory
    assert (len(data) < size) is lies_in_memory


def test_memory_keeps_what_is_before_its_start() -> None:
    memory = Memory.create("fedge-test", start=4)
    assert [memory.write(b"abc"), memory.write(b"de")] == [4, 7]
    memory.rewind()
    assert memory.write(b"x") == 4
    assert memory.read(0, 9) == b"\0\0\0\0xbcde"
    memory.close()


def test_large_bytes_that_are_given_away_live_as_long_as_their_reader_wants() -> None:
    memory = Memory(os.memfd_create("fedge-test"), gives=True)
    sent = [b"short", b"l" * 20_000, b"first" * LARGE, b"second" * LARGE]
    reader = FrameReader(memory)
    reader.feed(pack_frame(["x"], sent, memory))
    (frame,) = read_all(reader)
    memory.rewind()
    memory.write(b"!" * 20_000)  # the next frame, over what was lent
    held = frame.blobs[3]
    del frame
    gc.collect()
    assert memory_of(memory) < 2 * len(held)  # the first one is gone
    memory.close()
    assert bytes(held) == b"second" * LARGE


def memory_of(memory: Memory) -> int:
    return os.fstat(memory.fd).st_blocks * 512


def test_what_nobody_holds_takes_no_memory() -> None:
    memory = Memory(os.memfd_create("fedge-test"), gives=True)
    for _ in range(20):
        reader = FrameReader(memory)
        reader.feed(pack_frame(["x"], [bytes(LARGE)], memory))
        assert len(read_all(reader)) == 1
    gc.collect()
    assert memory_of(memory) < LARGE
    memory.close()


def test_of_very_many_that_are_held_the_later_ones_are_copied() -> None:
    memory = Memory(os.memfd_create("fedge-test"), gives=True)
    begin = memory.put(b"x" * LARGE)
    held = [memory.take(begin, 1) for _ in range(10_000)]
    other = memory.put(b"y" * LARGE)
    copy = memory.take(other, LARGE)
    assert memory_of(memory) < 2 * LARGE  # the copy's pages are free already
    assert bytes(copy) == b"y" * LARGE
    held.clear()
    gc.collect()
    again = memory.take(memory.put(b"z" * LARGE), LARGE)  # there is room again
    assert bytes(again) == b"z" * LARGE
    assert memory_of(memory) >= LARGE
    memory.close()
