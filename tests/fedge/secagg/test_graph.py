import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.errors import MisuseError, PeerError
from fedge.secagg.graph import check_degree, graph_seed, neighbourhoods, neighbours
from fedge.secagg.parameters import default_parameters

SEED = graph_seed(beacon=b"beacon", roster_digest=bytes(32))
Graph = tuple[tuple[int, ...], ...]


def is_connected(graph: Graph, alive: set[int]) -> bool:
    """Whether the members in `alive` reach each other through each other."""
    reached, border = set[int](), {min(alive)}
    while border:
        reached |= border
        border = {far for near in border for far in graph[near]} & alive - reached
    return reached == alive


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    n = draw(st.integers(4, 40))
    return n, draw(st.sampled_from([*range(2, n - 1, 2), n - 1]))


@settings(deadline=None, max_examples=60)
@given(size=sizes(), seed=st.binary(min_size=32, max_size=32))
def test_neighbours_are_mutual_distinct_and_k(
    size: tuple[int, int], seed: bytes
) -> None:
    n, k = size
    graph = neighbourhoods(n=n, k=k, seed=seed)
    assert all(len(set(near)) == k for near in graph)
    assert all(near == tuple(sorted(near)) for near in graph)
    assert all(index not in near for index, near in enumerate(graph))
    assert all(index in graph[far] for index, near in enumerate(graph) for far in near)


@settings(deadline=None, max_examples=30)
@given(size=sizes(), seed=st.binary(min_size=32, max_size=32))
def test_one_member_finds_what_all_together_find(
    size: tuple[int, int], seed: bytes
) -> None:
    n, k = size
    alone = tuple(neighbours(index, n=n, k=k, seed=seed) for index in range(n))
    assert alone == neighbourhoods(n=n, k=k, seed=seed)


@settings(deadline=None, max_examples=100)
@given(size=sizes(), seed=st.binary(min_size=32, max_size=32), data=st.data())
def test_fewer_than_k_missing_members_separate_nobody(
    size: tuple[int, int], seed: bytes, data: st.DataObject
) -> None:
    n, k = size
    missing = data.draw(st.sets(st.integers(0, n - 1), max_size=k - 1))
    graph = neighbourhoods(n=n, k=k, seed=seed)
    assert is_connected(graph, set(range(n)) - missing)


def ring_of(graph: Graph) -> list[int]:
    """The order around the ring: of all neighbours, the next one shares the most."""
    ring = [0]
    while len(ring) < len(graph):
        near = set(graph[ring[-1]])
        shared = {far: len(near & set(graph[far])) for far in near - set(ring)}
        ring.append(max(shared, key=lambda far: shared[far]))
    return ring


def test_k_missing_members_in_the_wrong_places_do_separate() -> None:
    # The check above can fail: cut the ring at two places, each two members wide.
    graph = neighbourhoods(n=12, k=4, seed=SEED)
    ring = ring_of(graph)
    missing = {ring[1], ring[2], ring[6], ring[7]}
    assert not is_connected(graph, set(range(12)) - missing)


@pytest.mark.parametrize("n", [129, 300, 1000])
def test_the_default_graph_survives_the_worst_rates(n: int) -> None:
    # 10 % corrupt and 10 % dropped out, the same draw for both: 20 % are removed.
    k, threshold = default_parameters(n)
    graph = neighbourhoods(n=n, k=k, seed=SEED)
    draw = random.Random(n)
    for _ in range(20):
        dropped = set(draw.sample(range(n), n // 10))
        corrupt = set(draw.sample(sorted(set(range(n)) - dropped), n // 10))
        assert is_connected(graph, set(range(n)) - dropped - corrupt)
        assert all(len(set(near) - dropped) >= threshold for near in graph)
        assert all(2 * threshold > k + len(set(near) & corrupt) for near in graph)


def test_the_ring_is_frozen() -> None:
    assert neighbourhoods(n=7, k=2, seed=bytes(32)) == (
        (4, 5),
        (2, 3),
        (1, 4),
        (1, 6),
        (0, 2),
        (0, 6),
        (3, 5),
    )


def test_the_seed_decides_the_ring() -> None:
    rings = {
        neighbourhoods(n=20, k=4, seed=graph_seed(beacon=b, roster_digest=r))
        for b in (b"", b"a")
        for r in (bytes(32), bytes(31) + b"\1")
    }
    assert len(rings) == 4


def test_every_pair_is_equally_likely_to_be_neighbours() -> None:
    n, k, draws = 9, 4, 2000
    counts = [0] * n
    for number in range(draws):
        seed = graph_seed(beacon=number.to_bytes(4, "little"), roster_digest=b"")
        for far in neighbours(0, n=n, k=k, seed=seed):
            counts[far] += 1
    mean = draws * k / (n - 1)
    assert counts[0] == 0
    # Five standard deviations of a binomial count of 2000 draws with p = 1/2.
    assert all(abs(count - mean) < 5 * (draws / 4) ** 0.5 for count in counts[1:])


@pytest.mark.parametrize(
    ("n", "k"), [(2, 1), (0, 0), (5, 0), (5, 3), (5, 5), (6, 6), (7, -2), (7, 5)]
)
def test_a_graph_that_does_not_exist_is_refused(n: int, k: int) -> None:
    with pytest.raises(PeerError, match="graph: "):
        check_degree(n, k)
    with pytest.raises(PeerError, match="graph: "):
        neighbours(0, n=n, k=k, seed=SEED)
    with pytest.raises(PeerError, match="graph: "):
        neighbourhoods(n=n, k=k, seed=SEED)


@pytest.mark.parametrize("index", [-1, 5])
def test_nobody_outside_has_neighbours(index: int) -> None:
    with pytest.raises(MisuseError, match=rf"index {index} not in \[0, 5\)"):
        neighbours(index, n=5, k=4, seed=SEED)
