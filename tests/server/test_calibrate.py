"""Int8 from ranges that devices found: as good as from examples, and hard to spoil."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from clients.app import app as client_app
from fedge.arrays import Float32
from fedge.compress.quantize import quantize_int8
from fedge.errors import CompressionError, ConfigError
from fedge.export.onnx import export_onnx
from fedge.flower import LocalGrid
from fedge.flower.calibration_records import (
    CALIBRATE,
    CalibrateReply,
    CalibrateRequest,
)
from fedge.flower.local_grid import UserConfig
from fedge.flower.secure_client import secure_mod
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.ranges import NO_RANGES, Ranges, decode
from fedge.runtime.score import score_outputs
from server.app import connect
from server.calibrate import FILE, calibrate
from server.settings import compose_experiment
from server.setup import Setup, prepare

NUM_DEVICES = 5
POINT = 0.01


def setup_of(*overrides: str) -> Setup:
    """Five devices, each with the examples of about two classes."""
    return prepare(
        compose_experiment(
            [
                "run=quick",
                "model=cnn",
                "model.widths=[8,16]",
                "model.hidden=32",
                f"fleet.num_devices={NUM_DEVICES}",
                f"run.cohort={NUM_DEVICES}",
                "run.min_answers=4",
                "partition=shards",
                "compression=int8",
                "compression.calibration=federated",
                "compression.calibration_examples=64",
                *overrides,
            ]
        )
    )


@dataclass(frozen=True)
class Case:
    """A trained network and what it scores: in float32, and calibrated centrally."""

    model: bytes
    score: Callable[[bytes], float]
    central: float


@pytest.fixture(scope="module")
def case() -> Case:
    torch.set_num_threads(1)
    setup = setup_of("secagg=off")
    info, train, test = setup.data.info, setup.data.train, setup.data.test
    inputs = info.normalization.apply(train.features)
    _fit(setup.model, torch.from_numpy(inputs), torch.tensor(train.targets))
    model = export_onnx(setup.model.eval(), inputs[:2])

    def score(file: bytes) -> float:
        outputs = OnnxPredictor(file, info.normalization).predict(test.features)
        return score_outputs(outputs, test.targets, info.task).score

    return Case(model, score, score(quantize_int8(model, inputs[:256])))


def _fit(net: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    chosen = np.random.default_rng(0).integers(0, len(inputs), (150, 64))
    optimizer = torch.optim.Adam(net.train().parameters(), 3e-3)
    for batch in torch.from_numpy(chosen):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(inputs[batch]), targets[batch])
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()


def grid_of(app: ClientApp = client_app, *, secagg: str = "optional") -> LocalGrid:
    def node_config(index: int) -> UserConfig:
        return {"partition-id": index, "secagg": secagg}

    return LocalGrid(app, num_clients=NUM_DEVICES, node_config=node_config)


def ranges_of(setup: Setup, grid: LocalGrid, case: Case, folder: Path) -> Ranges:
    return calibrate(setup, connect(grid, setup, folder), case.model, folder)


@pytest.fixture(scope="module")
def open_mean(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    """What the devices' ranges are on average, sent in the clear."""
    folder = tmp_path_factory.mktemp("open")
    return ranges_of(setup_of("secagg=off"), grid_of(), case, folder)


@pytest.fixture(scope="module")
def good(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Ranges:
    """What comes out if all devices say that they are fine."""
    folder = tmp_path_factory.mktemp("good")
    return ranges_of(setup_of("secagg=off"), grid_of(answering(fine)), case, folder)


def test_means_of_skewed_devices_are_as_good_as_central_examples(
    case: Case, open_mean: Ranges
) -> None:
    assert case.central > 0.9
    score = case.score(quantize_int8(case.model, open_mean))
    assert score >= case.central - POINT


def test_extremes_of_skewed_devices_are_as_good_as_central_examples(
    case: Case, open_mean: Ranges, tmp_path: Path
) -> None:
    setup = setup_of("secagg=off", "compression.range_statistic=extremes")
    ranges = ranges_of(setup, grid_of(), case, tmp_path)
    assert (ranges.low <= open_mean.low).all()
    assert (ranges.high >= open_mean.high).all()
    score = case.score(quantize_int8(case.model, ranges))
    assert score >= case.central - POINT


def test_under_secure_aggregation_the_mean_is_the_same(
    case: Case, open_mean: Ranges, tmp_path: Path
) -> None:
    setup = setup_of("secagg=semi_honest")
    wiring = connect(grid_of(secagg="required"), setup, tmp_path)
    plan = wiring.grid.plan  # type: ignore[attr-defined]  # a SecureSum
    ranges = calibrate(setup, wiring, case.model, tmp_path)
    assert wiring.grid.plan is plan  # type: ignore[attr-defined]
    # 16 bits over 24 octaves, less what a device of few examples weighs.
    assert np.allclose(ranges.low, open_mean.low, rtol=0.01, atol=0.001)
    assert np.allclose(ranges.high, open_mean.high, rtol=0.01, atol=0.001)
    score = case.score(quantize_int8(case.model, ranges))
    assert score >= case.central - POINT


def test_a_device_that_trains_under_masks_only_sends_no_ranges_openly(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CompressionError, match=r"fewer than 4 devices .*=central"):
        ranges_of(setup_of("secagg=off"), grid_of(secagg="required"), case, tmp_path)
    assert "trains under secure aggregation only" in caplog.text
    assert not (tmp_path / FILE).exists()


def test_extremes_do_not_go_with_secure_aggregation() -> None:
    with pytest.raises(ConfigError, match="extremes needs every device's own ranges"):
        setup_of("secagg=semi_honest", "compression.range_statistic=extremes")


def test_calibrating_again_asks_nobody(case: Case, tmp_path: Path) -> None:
    setup = setup_of("secagg=off")
    first = ranges_of(setup, grid_of(answering(fine)), case, tmp_path)
    nobody = grid_of(answering(broken=NUM_DEVICES))
    again = ranges_of(setup, nobody, case, tmp_path)
    assert quantize_int8(case.model, again) == quantize_int8(case.model, first)


def test_a_network_without_an_int8_layer_asks_nobody(tmp_path: Path) -> None:
    states = export_onnx(_Gru().eval(), np.zeros((2, 5, 8), np.float32))
    setup = setup_of("secagg=off")
    nobody = connect(grid_of(answering(broken=NUM_DEVICES)), setup, tmp_path)
    assert calibrate(setup, nobody, states, tmp_path) is NO_RANGES


class _Gru(torch.nn.GRU):
    def __init__(self) -> None:
        super().__init__(8, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Return all states."""
        states: torch.Tensor = super().forward(x)[0]
        return states


def test_a_damaged_record_is_made_again(case: Case, tmp_path: Path) -> None:
    setup = setup_of("secagg=off")
    first = ranges_of(setup, grid_of(answering(fine)), case, tmp_path)
    plain = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    plain["ranges"]["output"] = [1.0, float("nan")]
    (tmp_path / FILE).write_text(json.dumps(plain), encoding="utf-8")
    again = ranges_of(setup, grid_of(answering(fine)), case, tmp_path)
    assert np.array_equal(again.high, first.high)


Answer = Callable[[int], CalibrateReply]


def fine(num_tensors: int) -> CalibrateReply:
    places = np.tile(np.array([[-0.4], [0.5]], np.float32), (1, num_tensors))
    return CalibrateReply(places, 10.0)


def spoiled(change: Callable[[Float32], Float32], num_examples: float = 10.0) -> Answer:
    return lambda count: CalibrateReply(change(fine(count).places), num_examples)


HOSTILE = {
    "not a number": spoiled(lambda places: places * np.float32(np.nan)),
    "infinite": spoiled(lambda places: places * np.float32(np.inf)),
    "inverted": spoiled(lambda places: np.ascontiguousarray(places[::-1])),
    "too large": spoiled(lambda places: places * np.float32(1e6)),
    "too few": spoiled(lambda places: np.ascontiguousarray(places[:, :-1])),
    "one too many": spoiled(lambda p: np.concatenate([p, p[:, :1]], axis=1)),
    "of another type": spoiled(lambda places: places.astype(np.float64)),
    "of no examples": spoiled(lambda places: places, 0.0),
    "of too many examples": spoiled(lambda places: places, 2.0**40),
}


def answering(
    hostile: Answer | None = None,
    *,
    broken: int = 1,
    mods: Sequence[Mod] = (),
    change: Callable[[RecordDict], None] = lambda content: None,
) -> ClientApp:
    """Devices that answer well, but the first ones as given, or with an error."""
    app = ClientApp(mods=list(mods))

    @app.train("calibrate")
    def say(message: Message, context: Context) -> Message:
        request = CalibrateRequest.from_content(message.content)
        place = int(context.node_config["partition-id"])
        if place >= broken:
            return Message(fine(request.num_tensors).to_content(), reply_to=message)
        if hostile is None:
            raise RuntimeError("broken")
        content = hostile(request.num_tensors).to_content()
        change(content)
        return Message(content, reply_to=message)

    return app


def test_a_device_that_drops_out_of_a_masked_sum_is_not_waited_for(
    case: Case, good: Ranges, tmp_path: Path
) -> None:
    def node_config(index: int) -> UserConfig:
        return {"partition-id": index, "secagg-min-cohort": 4}

    setup = setup_of("secagg=semi_honest", "secagg.min_cohort=4")
    app = answering(broken=1, mods=[secure_mod])
    grid = LocalGrid(app, num_clients=NUM_DEVICES, node_config=node_config)
    found = ranges_of(setup, grid, case, tmp_path)
    assert np.allclose(found.high, good.high, rtol=0.02)


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_reply_is_left_out(
    case: Case, good: Ranges, tmp_path: Path, name: str
) -> None:
    setup = setup_of("secagg=off")
    found = ranges_of(setup, grid_of(answering(HOSTILE[name])), case, tmp_path)
    assert np.array_equal(found.low, good.low)
    assert np.array_equal(found.high, good.high)


def test_arrays_of_other_names_are_left_out(case: Case, tmp_path: Path) -> None:
    def rename(content: RecordDict) -> None:
        arrays = content.array_records["arrays"]
        arrays["weights"] = arrays.pop("ranges")

    app = answering(fine, change=rename)
    ranges_of(setup_of("secagg=off"), grid_of(app), case, tmp_path)
    everybody = answering(fine, broken=NUM_DEVICES, change=rename)
    (tmp_path / FILE).unlink()
    with pytest.raises(CompressionError, match="fewer than 4 devices"):
        ranges_of(setup_of("secagg=off"), grid_of(everybody), case, tmp_path)


def test_too_few_answers_publish_nothing(case: Case, tmp_path: Path) -> None:
    one, two = (grid_of(answering(broken=count)) for count in (1, 2))
    setup = setup_of("secagg=off")
    assert ranges_of(setup, one, case, tmp_path).high.min() > 0
    (tmp_path / FILE).unlink()
    with pytest.raises(CompressionError, match=r"fewer than 4 .* in 3 tries"):
        ranges_of(setup, two, case, tmp_path)


def test_claiming_many_examples_makes_no_device_heavier(
    case: Case, tmp_path: Path
) -> None:
    heavy = spoiled(lambda places: places * np.float32(2.0), 2.0**29)
    ranges = ranges_of(
        setup_of("secagg=off"), grid_of(answering(heavy)), case, tmp_path
    )
    # It counts as 64 examples, which is what was asked for.
    mean = (64 * 1.0 + 4 * 10 * 0.5) / (64 + 4 * 10)
    assert ranges.high == pytest.approx(decode(np.full(len(ranges.names), mean)))


def test_the_message_is_a_training_message() -> None:
    assert CALIBRATE.startswith("train.")
