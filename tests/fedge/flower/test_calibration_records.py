from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import RecordDict

from fedge.arrays import AnyArray
from fedge.errors import PeerError
from fedge.flower.calibration_records import CalibrateReply, CalibrateRequest
from fedge.flower.entries import ARRAYS, CONFIG
from fedge.flower.records import array_of

REQUEST = CalibrateRequest(b"a graph", '{"seed":0}', 3, 64, 0.5)
PLACES = np.array([[-0.4, 0.0, -0.5], [0.1, 0.0, 0.5]], np.float32)
REPLY = CalibrateReply(PLACES, 12.0)


def read(content: RecordDict) -> CalibrateReply:
    return CalibrateReply.from_content(content, num_tensors=3, scale=0.5)


def test_a_request_comes_back() -> None:
    assert CalibrateRequest.from_content(REQUEST.to_content()) == REQUEST


def test_a_reply_comes_back() -> None:
    found = read(REPLY.to_content())
    assert np.array_equal(found.places, PLACES)
    assert found.num_examples == 12.0
    found.check_order()


@pytest.mark.parametrize(
    "changes",
    [
        {"num_tensors": 0},
        {"num_tensors": 1 << 40},
        {"num_examples": 0},
        {"num_examples": -1},
        {"scale": 0.0},
        {"scale": 1.5},
        {"scale": float("nan")},
    ],
)
def test_a_request_that_asks_too_much_is_refused(
    changes: Mapping[str, int | float],
) -> None:
    content = replace(REQUEST, **changes).to_content()  # type: ignore[arg-type]
    with pytest.raises(PeerError):
        CalibrateRequest.from_content(content)


@pytest.mark.parametrize(
    "graph", [np.zeros(3, np.float32), np.zeros((3, 3), np.uint8), None]
)
def test_a_request_without_a_graph_is_refused(graph: AnyArray | None) -> None:
    content = REQUEST.to_content()
    arrays = content.array_records[ARRAYS]
    del arrays["graph"]
    if graph is not None:
        arrays["graph"] = array_of(graph)
    with pytest.raises(PeerError, match="'graph'"):
        CalibrateRequest.from_content(content)


def test_a_request_without_settings_is_refused() -> None:
    content = REQUEST.to_content()
    del content[CONFIG]
    with pytest.raises(PeerError, match="config record"):
        CalibrateRequest.from_content(content)


@pytest.mark.parametrize(
    "places",
    [
        PLACES * np.float32(np.nan),
        PLACES + np.float32(np.inf),
        PLACES * np.float32(1.1),
        PLACES[:, :2],
        PLACES[:1],
        PLACES.astype(np.float64),
    ],
)
def test_a_reply_that_is_no_ranges_is_refused(places: AnyArray) -> None:
    content = replace(REPLY, places=places).to_content()
    with pytest.raises(PeerError, match="'ranges'"):
        read(content)


def test_an_inverted_range_is_found() -> None:
    with pytest.raises(PeerError, match="range 0 is inverted"):
        replace(REPLY, places=PLACES[::-1]).check_order()
