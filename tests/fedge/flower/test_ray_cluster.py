"""Where actors go, and what is said without Ray; nothing is started here."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.errors import ConfigError
from fedge.flower.ray_cluster import RayCluster, spread

MANY = 10**6


def sizes(nodes: list[dict[str, float]], workers: int, gpus: float) -> list[int]:
    named = [(f"node {i}", resources) for i, resources in enumerate(nodes)]
    return [place.workers for place in spread(named, workers, gpus)]


def test_each_node_has_an_actor_with_a_worker_for_each_cpu() -> None:
    assert sizes([{"CPU": 4.0}, {"CPU": 0.0}, {}, {"CPU": 2.0}], MANY, 0.0) == [4, 2]


def test_few_workers_are_spread_evenly() -> None:
    assert sizes([{"CPU": 4.0}, {"CPU": 4.0}, {"CPU": 1.0}], 6, 0.0) == [3, 2, 1]


@pytest.mark.parametrize(
    ("share", "wanted"), [(1.0, [1, 1]), (0.5, [2, 2]), (0.3, [3, 3]), (0.1, [8, 8])]
)
def test_each_gpu_has_an_actor_with_as_many_workers_as_share_it(
    share: float, wanted: list[int]
) -> None:
    assert sizes([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 4.0}], MANY, share) == wanted


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 1.0]),
)
def test_no_node_gives_more_than_it_has(
    given: list[tuple[int, int]], workers: int, share: float
) -> None:
    nodes = [(str(i), {"CPU": c, "GPU": g}) for i, (c, g) in enumerate(given)]
    places = spread(nodes, workers, share)
    assert sum(place.workers for place in places) <= workers
    for name, resources in nodes:
        here = [place for place in places if place.node == name]
        assert sum(place.workers for place in here) <= resources["CPU"]
        assert sum(place.gpus for place in here) <= resources["GPU"] + 1e-6
        assert all(place.gpus <= 1.0 + 1e-6 for place in here)


def test_without_ray_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'fedge\[ray\]'"):
        RayCluster("")
