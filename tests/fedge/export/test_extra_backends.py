"""LiteRT, ExecuTorch and OpenVINO for real: `make test-backends`."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import fedge
from fedge.arrays import AnyArray, Float32, Int64
from fedge.backends import export_model, exporter_of
from fedge.errors import DataError, FedgeError
from fedge.export.exporter import Precision, export_checked
from fedge.export.parity import Limits, as_they_are
from fedge.runtime.backends import Runtime, open_predictor
from fedge.runtime.preprocess import Normalization

EXTRAS = ("litert", "executorch", "openvino")
PACKAGES = ("litert_torch", "executorch", "openvino")
missing = [name for name in PACKAGES if find_spec(name) is None]

pytestmark = [
    pytest.mark.backends,
    pytest.mark.skipif(
        bool(missing), reason=f"no {', '.join(missing)}: make test-backends"
    ),
    pytest.mark.filterwarnings("ignore"),  # of other people's imports
]

NUM_TRAIN = 1400
PLAIN = Normalization((0.0,), (1.0,))
TOKENS = np.random.default_rng(2).integers(0, 20, (64, 12))
SEQUENCE = np.random.default_rng(3).normal(size=(64, 6, 16)).astype(np.float32)
# An untrained network decides by a hair; its errors are what tells.
UNTRAINED = Limits(max_error=0.25, min_agreement=0.0)
CASES = [(n, p) for n in EXTRAS for p in exporter_of(n).precisions]


@pytest.fixture(scope="module")
def digits() -> tuple[Float32, Int64]:
    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 1, 8, 8) / 16).astype(np.float32), labels


@pytest.fixture(scope="module")
def convolutional(digits: tuple[Float32, Int64]) -> nn.Module:
    """Four epochs on digits, in the memory layout that training uses."""
    inputs, targets = (torch.from_numpy(values) for values in digits)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stub
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    order = torch.Generator().manual_seed(0)
    for _ in range(4):
        for batch in torch.randperm(NUM_TRAIN, generator=order).reshape(-1, 56):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs[batch]), targets[batch])
            torch.autograd.backward(loss)
            optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def attention() -> nn.Module:
    torch.manual_seed(4)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(96, 4))


@pytest.fixture(scope="module")
def exported(
    convolutional: nn.Module, digits: tuple[Float32, Int64]
) -> Callable[[str, Precision], bytes]:
    """Exports of the convolutional network, each made once."""
    made: dict[tuple[str, Precision], bytes] = {}

    def export(name: str, precision: Precision) -> bytes:
        if (name, precision) not in made:
            result = export_model(
                convolutional, digits[0][:128], to=name, precision=precision
            )
            made[name, precision] = result.model
        return made[name, precision]

    return export


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_accuracy_on_digits_is_that_of_the_network(
    name: str,
    precision: Precision,
    convolutional: nn.Module,
    digits: tuple[Float32, Int64],
    exported: Callable[[str, Precision], bytes],
) -> None:
    images, labels = digits[0][NUM_TRAIN:], digits[1][NUM_TRAIN:]
    with torch.no_grad():
        before = convolutional(torch.from_numpy(images)).numpy()
    predictor = exporter_of(name).open(exported(name, precision), PLAIN)
    accuracies = [
        (outputs.argmax(axis=1) == labels).mean()
        for outputs in (before, predictor.predict(images))
    ]
    assert accuracies[0] > 0.9
    assert accuracies[1] >= accuracies[0] - 0.02  # 8 of 397 images


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_int8_files_are_smaller(
    name: str, precision: Precision, exported: Callable[[str, Precision], bytes]
) -> None:
    whole = len(exported(name, Precision.float32))
    assert (len(exported(name, precision)) < whole) is (
        precision is not Precision.float32
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("litert", Precision.float32),
        ("litert", Precision.int8),
        ("litert", Precision.int8_dynamic),
        ("executorch", Precision.float32),
        ("openvino", Precision.float32),
    ],
)
@pytest.mark.parametrize("kind", ["recurrent", "attention"])
def test_recurrent_networks_and_attention_compute_the_same(
    name: str, precision: Precision, kind: str, request: pytest.FixtureRequest
) -> None:
    network = request.getfixturevalue(kind)
    inputs: AnyArray = TOKENS if kind == "recurrent" else SEQUENCE
    limits = None if precision is Precision.float32 else UNTRAINED

    result = export_checked(
        exporter_of(name), network, inputs, precision=precision, limits=limits
    )

    assert result.parity.max_abs_error > 0.0 or precision is Precision.float32
    predictor = exporter_of(name).open(result.model, as_they_are(inputs))
    assert predictor.predict(inputs[:3]).dtype == np.float32


@pytest.mark.parametrize("name", EXTRAS)
def test_the_same_network_gives_the_same_bytes_quietly(
    name: str,
    convolutional: nn.Module,
    digits: tuple[Float32, Int64],
    exported: Callable[[str, Precision], bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = exported(name, Precision.int8)
    capfd.readouterr()
    again = exporter_of(name).export(convolutional, digits[0][:128], Precision.int8)
    assert again == first
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", EXTRAS)
def test_the_network_is_left_as_it_was(
    name: str, convolutional: nn.Module, exported: Callable[[str, Precision], bytes]
) -> None:
    before = {k: v.clone() for k, v in convolutional.state_dict().items()}
    exported(name, Precision.float32)
    state = convolutional.state_dict()
    assert all(torch.equal(before[k], v) for k, v in state.items())
    weight = convolutional.get_parameter("3.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("runtime", EXTRAS)
def test_the_normalization_is_applied_and_the_shape_checked(
    runtime: str,
    digits: tuple[Float32, Int64],
    exported: Callable[[str, Precision], bytes],
) -> None:
    model, images = exported(runtime, Precision.float32), digits[0][:5]
    plain = open_predictor(Runtime(runtime), model, PLAIN, threads=2)
    scaled = open_predictor(Runtime(runtime), model, Normalization((1.0,), (2.0,)))
    expected = plain.predict(images)
    np.testing.assert_allclose(scaled.predict(images * 2 + 1), expected, atol=1e-4)
    first = plain.predict(images[:1])
    plain.predict(images[1:2])
    np.testing.assert_allclose(first, expected[:1], atol=1e-5)  # not written over
    with pytest.raises(ValueError, match="the model failed on inputs of shape"):
        plain.predict(np.zeros((2, 1, 9, 9), np.float32))


@pytest.mark.parametrize("runtime", EXTRAS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_refused(
    runtime: str, share: float, exported: Callable[[str, Precision], bytes]
) -> None:
    model = exported(runtime, Precision.int8)
    with pytest.raises(DataError, match="model file"):
        open_predictor(Runtime(runtime), model[: int(share * len(model))], PLAIN)


# Not ExecuTorch: some damaged programs end the process (see its module).
@pytest.mark.parametrize("runtime", ["litert", "openvino"])
@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_runs_or_is_refused_by_our_own_error(
    runtime: str, seed: int, exported: Callable[[str, Precision], bytes]
) -> None:
    damaged = bytearray(exported(runtime, Precision.int8))
    rng = np.random.default_rng(seed)
    for at in rng.integers(8, len(damaged), 30):
        damaged[at] = rng.integers(256)
    try:
        predictor = open_predictor(Runtime(runtime), bytes(damaged), PLAIN)
        outputs = predictor.predict(np.zeros((1, 1, 8, 8), np.float32))
    except (FedgeError, ValueError):
        return
    assert outputs.shape[0] == 1


class TwoInputs(nn.Module):
    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return one + other


def test_a_litert_model_with_two_inputs_is_refused() -> None:
    import litert_torch

    example = torch.ones(1, 3)
    model = litert_torch.convert(TwoInputs().eval(), (example, example))
    with pytest.raises(DataError, match="2 inputs and 1 outputs"):
        open_predictor(Runtime.litert, bytes(model.model_content()), PLAIN)


def test_an_executorch_program_with_two_inputs_is_refused() -> None:
    from executorch.exir import to_edge_transform_and_lower

    example = torch.ones(1, 3)
    program = torch.export.export(TwoInputs(), (example, example))
    model = to_edge_transform_and_lower(program).to_executorch().buffer
    with pytest.raises(DataError, match="2 inputs and 1 outputs"):
        open_predictor(Runtime.executorch, bytes(model), PLAIN)


@pytest.mark.parametrize("runtime", EXTRAS)
def test_a_runtime_writes_nothing_at_home(
    runtime: str, tmp_path: Path, exported: Callable[[str, Precision], bytes]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "model").write_bytes(exported(runtime, Precision.float32))
    code = (
        "import numpy, sys; from pathlib import Path;"
        "from fedge.runtime.backends import Runtime, open_predictor;"
        "from fedge.runtime.preprocess import Normalization;"
        "plain = Normalization((0.0,), (1.0,));"
        "model = open_predictor(Runtime(sys.argv[1]), Path(sys.argv[2]), plain);"
        "print(model.predict(numpy.zeros((1, 1, 8, 8))).shape);"
        "heavy = {'torch', 'onnx'} & set(sys.modules);"
        "assert not heavy or sys.argv[1] == 'executorch', heavy"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith("XDG_")}
    ended = subprocess.run(
        [sys.executable, "-c", code, runtime, str(tmp_path / "model")],
        env=kept
        | {"HOME": str(home), "PYTHONPATH": str(Path(fedge.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "(1, 10)\n", ended.stderr
    assert list(home.rglob("*")) == []
