import logging
import random
from collections.abc import Iterable

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedge.errors import TransportError
from fedge.flower import GridLayer, LocalGrid
from fedge.flower.wire import Description
from server.roster import roster


def described(places: dict[int, object]) -> ClientApp:
    """Devices that say these places; an exception is raised."""
    app = ClientApp()

    @app.query("describe")
    def describe(message: Message, context: Context) -> Message:
        place = places[context.node_id]
        if isinstance(place, Exception):
            raise place
        assert isinstance(place, int)
        content = Description(place, version=0).to_content()
        return Message(content, reply_to=message)

    return app


class Shuffled(GridLayer):
    """A fleet that is no LocalGrid; its nodes are listed and answer in any order."""

    def __init__(self, places: dict[int, object], *, late: int = 0) -> None:
        super().__init__(LocalGrid(described(places), num_clients=len(places)))
        self.late = late

    def get_node_ids(self) -> Iterable[int]:
        nodes = list(self.inner.get_node_ids())
        self.late -= 1
        random.Random(3).shuffle(nodes)
        return nodes[:1] if self.late >= 0 else nodes


def test_nodes_are_ordered_by_their_devices_places() -> None:
    grid = Shuffled({2: 3, 3: 0, 4: 2, 5: 1})
    assert roster(grid, 4) == [3, 5, 4, 2]


def test_a_local_grid_is_in_order_already() -> None:
    grid = LocalGrid(ClientApp(), num_clients=3)
    assert list(roster(grid, 3)) == [2, 3, 4]
    assert list(roster(grid, 2)) == [2, 3]
    with pytest.raises(TransportError, match="the grid has 3 of 4 devices"):
        roster(grid, 4)


def test_a_place_that_is_taken_is_not_given_twice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        nodes = roster(Shuffled({2: 0, 3: 1, 4: 1, 5: 2}), 3)
    assert [nodes[0], nodes[2]] == [2, 5]
    assert nodes[1] in (3, 4)
    assert "partition-id 1 is taken" in caplog.text


def test_a_device_outside_of_the_fleet_is_not_asked_for() -> None:
    assert roster(Shuffled({2: 1, 3: 99, 4: 0}), 2) == [4, 2]


def test_a_place_that_nobody_has_is_told() -> None:
    with pytest.raises(TransportError, match=r"1 of 3 devices.*partition-id 1"):
        roster(Shuffled({2: 0, 3: 0, 4: 2}), 3)


@pytest.mark.parametrize("answer", [RuntimeError("broken"), -1, 2**70])
def test_a_device_that_does_not_say_who_it_is_is_missing(answer: object) -> None:
    with pytest.raises(TransportError, match=r"1 of 2 devices.*partition-id 1"):
        roster(Shuffled({2: 0, 3: answer}), 2)


def test_devices_that_connect_late_are_waited_for() -> None:
    assert roster(Shuffled({2: 1, 3: 0}, late=1), 2, wait_seconds=0.5) == [3, 2]


def test_too_few_devices_are_told() -> None:
    with pytest.raises(TransportError, match=r"2 of 3 devices.*connected within 0 s"):
        roster(Shuffled({2: 0, 3: 1}), 3, wait_seconds=0.05)


def test_an_empty_grid_is_told() -> None:
    class Nobody(Shuffled):
        def get_node_ids(self) -> Iterable[int]:
            return []

    with pytest.raises(TransportError, match="0 of 1 devices"):
        roster(Nobody({2: 0}), 1, wait_seconds=0.0)
