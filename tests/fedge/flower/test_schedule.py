"""Each client is given out once, to whom it belongs if that one asks."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedge.flower.schedule import CHUNK_SECONDS, Schedule

WORKERS = 3
HOMES = st.lists(st.none() | st.integers(0, WORKERS - 1), max_size=200)
COSTS = st.none() | st.floats(0.0, 10.0)


def schedule_of(
    homes: Sequence[int | None], cost: float | None = None, workers: int = WORKERS
) -> Schedule:
    return Schedule(homes, num_workers=workers, client_seconds=cost)


def take_all(schedule: Schedule, askers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Let these workers ask in turn until nothing is left."""
    taken = []
    while schedule:
        for worker in askers:
            taken.append((worker, schedule.take(worker)))
    return taken


@given(HOMES, COSTS, st.permutations(range(WORKERS)))
def test_each_client_is_given_out_once(
    homes: list[int | None], cost: float | None, askers: list[int]
) -> None:
    schedule = schedule_of(homes, cost)
    taken = take_all(schedule, askers)
    assert sorted(n for _, chunk in taken for n in chunk) == list(range(len(homes)))
    assert all(schedule.take(worker) == [] for worker in range(WORKERS))


@given(HOMES, COSTS, st.integers(0, WORKERS - 1))
def test_one_worker_alone_gets_everything(
    homes: list[int | None], cost: float | None, worker: int
) -> None:
    taken = take_all(schedule_of(homes, cost), [worker])
    assert all(chunk for _, chunk in taken)
    assert sorted(n for _, chunk in taken for n in chunk) == list(range(len(homes)))


@given(HOMES, st.data())
def test_what_is_given_back_is_given_out_again(
    homes: list[int | None], data: st.DataObject
) -> None:
    schedule = schedule_of(homes, 0.001)
    first = schedule.take(0)
    back = data.draw(
        st.lists(st.sampled_from(first), unique=True) if first else st.just([])
    )
    schedule.give_back(back)
    again = [n for _, chunk in take_all(schedule, range(WORKERS)) for n in chunk]
    assert sorted([*first, *again]) == sorted([*range(len(homes)), *back])


def test_who_must_be_alone_comes_first_and_alone() -> None:
    schedule = schedule_of([None] * 20, 0.001)
    chunk = schedule.take(0)
    schedule.give_back(chunk[:3], alone=True)
    assert [schedule.take(worker) for worker in (0, 1, 2)] == [[n] for n in chunk[:3]]
    assert len(schedule.take(0)) > 1 or not schedule


def test_clients_go_home_before_anywhere_else() -> None:
    schedule = schedule_of([0, 1, None, 0, 1, None, 0, 1], 0.001, workers=2)
    assert schedule.take(1)[:3] == [1, 4, 7]
    assert schedule.take(0)[:3] == [0, 3, 6]


def test_an_idle_worker_takes_from_the_end_of_the_busiest() -> None:
    schedule = schedule_of([0] * 3 + [1] * 10, CHUNK_SECONDS / 4)
    assert schedule.take(2) == [9, 10, 11, 12]
    assert schedule.take(1)[0] == 3


@pytest.mark.parametrize(
    ("cost", "size"),
    [
        (CHUNK_SECONDS / 10, 10),
        (CHUNK_SECONDS * 3, 1),
        (10 * CHUNK_SECONDS, 1),
        (1e-9, 64),
        (0.0, 64),
        (None, 64),
    ],
)
def test_a_chunk_takes_about_the_same_time_whatever_clients_cost(
    cost: float | None, size: int
) -> None:
    assert len(schedule_of([None] * 10_000, cost).take(0)) == size


def test_few_clients_of_unknown_cost_are_shared_out() -> None:
    schedule = schedule_of([None] * 24, None, workers=2)
    assert [len(chunk) for _, chunk in take_all(schedule, [0, 1])] == [3] * 8


def test_cheap_clients_are_one_chunk_for_each_worker() -> None:
    schedule = schedule_of([None] * 21, 1e-5)
    assert [len(schedule.take(worker)) for worker in range(3)] == [7, 7, 7]


def test_towards_the_end_chunks_get_smaller() -> None:
    schedule = schedule_of([None] * 100, CHUNK_SECONDS / 20, workers=2)
    sizes = [len(chunk) for _, chunk in take_all(schedule, [0, 1]) if chunk]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (20, 1)


def test_costs_are_learned_and_smoothed() -> None:
    schedule = schedule_of([None] * 1000)
    schedule.note(10, 1.0)
    assert schedule.client_seconds == pytest.approx(0.1)
    schedule.note(1, 0.3)
    assert schedule.client_seconds == pytest.approx(0.2)
