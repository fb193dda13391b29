from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from omegaconf import OmegaConf
from onnx import helper

import fedge
from fedge.arrays import Float32
from fedge.compress.pack import unpack
from fedge.compress.pipeline import Evaluate, compress
from fedge.config.compression import CompressionConfig, Quantization
from fedge.errors import CompressionError

FOLDER = Path(fedge.__file__).parents[1] / "conf" / "compression"


@pytest.fixture(scope="module")
def agreement(conv_model: bytes, images: Float32) -> Evaluate:
    """Accuracy against the float32 model's own answers, so that it scores 1."""

    def classes(model: bytes) -> list[int]:
        output = ort.InferenceSession(model).run(None, {"input": images})[0]
        result: list[int] = output.argmax(axis=1).tolist()
        return result

    truth = classes(conv_model)
    return lambda model: float(np.mean(np.equal(classes(model), truth)))


def constant_latency(models: Sequence[bytes]) -> list[float]:
    return [0.5] * len(models)


def test_int8_is_chosen_measured_and_packed(
    conv_model: bytes, images: Float32, agreement: Evaluate
) -> None:
    result = compress(
        conv_model, images, config=CompressionConfig(max_accuracy_drop=0.1),
        evaluate=agreement, latency=lambda models: [2.0, 1.0][: len(models)],
    )  # fmt: skip

    floating, int8 = result.report.candidates
    assert unpack(result.artifact, max_bytes=10**6) == result.model
    assert result.report.shipped is int8
    assert (int8.file_bytes, int8.packed_bytes) == (
        len(result.model),
        len(result.artifact),
    )
    assert (floating.accuracy, floating.latency_ms, int8.latency_ms) == (1.0, 2.0, 1.0)
    assert floating.sparsity == pytest.approx(0.5, abs=0.01)
    assert int8.sparsity >= floating.sparsity
    assert result.report.ratio > 5.0


def test_the_same_inputs_give_the_same_artifact(
    conv_model: bytes, images: Float32
) -> None:
    first, second = (
        compress(
            conv_model, images, config=CompressionConfig(),
            evaluate=lambda _: 1.0, latency=constant_latency,
        )
        for _ in range(2)
    )  # fmt: skip
    assert first == second


def test_without_quantization_the_float32_file_is_shipped(
    conv_model: bytes, images: Float32
) -> None:
    result = compress(
        conv_model, images, config=CompressionConfig(quantization=Quantization.none),
        evaluate=lambda _: 1.0, latency=constant_latency,
    )  # fmt: skip
    assert result.model == conv_model
    assert [c.name for c in result.report.candidates] == ["float32"]


def test_an_accuracy_drop_above_the_limit_is_refused_with_all_figures(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(CompressionError) as refusal:
        compress(
            conv_model, images, config=CompressionConfig(max_accuracy_drop=0.01),
            evaluate=lambda m: 0.98 if m == conv_model else 0.96,
            latency=constant_latency,
        )  # fmt: skip
    message = str(refusal.value)
    assert message.startswith("compression.max_accuracy_drop: int8 loses 0.0200")
    assert "at most 0.01" in message
    assert "quantization=none" in message
    assert all(figure in message for figure in ("0.9800", "0.9600", "0.500"))


def test_a_drop_of_exactly_the_limit_passes(conv_model: bytes, images: Float32) -> None:
    result = compress(
        conv_model, images, config=CompressionConfig(max_accuracy_drop=0.01),
        evaluate=lambda m: 0.99 if m == conv_model else 0.98, latency=constant_latency,
    )  # fmt: skip
    assert result.report.chosen == "int8"


def test_an_accuracy_that_is_not_a_number_is_refused(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(CompressionError, match="max_accuracy_drop"):
        compress(
            conv_model, images, config=CompressionConfig(),
            evaluate=lambda _: float("nan"), latency=constant_latency,
        )  # fmt: skip


def test_a_ratio_below_the_limit_is_refused_with_the_remedy(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(CompressionError, match=r"min_ratio: int8 is .* at least 100"):
        compress(
            conv_model, images, config=CompressionConfig(min_ratio=100.0),
            evaluate=lambda _: 1.0, latency=constant_latency,
        )  # fmt: skip


def test_a_model_that_int8_cannot_shrink_is_shipped_as_float32() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["input"], ["output"])],
        "main",
        [helper.make_tensor_value_info("input", 1, ["batch", 3])],
        [helper.make_tensor_value_info("output", 1, ["batch", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10

    result = compress(
        model.SerializeToString(), np.ones((4, 3), np.float32),
        config=CompressionConfig(min_ratio=0.1), evaluate=lambda _: 1.0,
        latency=constant_latency,
    )  # fmt: skip

    assert result.report.chosen == "float32"
    assert onnx.load_model_from_string(result.model) == model


def test_a_latency_function_that_drops_a_model_is_refused(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(ValueError, match="zip"):
        compress(
            conv_model, images, config=CompressionConfig(),
            evaluate=lambda _: 1.0, latency=lambda _: [1.0],
        )  # fmt: skip


def test_the_smallest_good_candidate_is_chosen(
    conv_model: bytes, images: Float32
) -> None:
    def chosen(accuracy: dict[str, float]) -> str:
        def evaluate(model: bytes) -> float:
            if model == conv_model:
                return accuracy["float32"]
            return accuracy["codebook" if b"_codebook" in model else "int8"]

        config = CompressionConfig(quantization=Quantization.smallest)
        result = compress(
            conv_model,
            images,
            config=config,
            evaluate=evaluate,
            latency=constant_latency,
        )
        names = [candidate.name for candidate in result.report.candidates]
        assert names == ["float32", "int8", "codebook"]
        return result.report.chosen

    assert chosen({"float32": 0.99, "int8": 0.99, "codebook": 0.98}) == "codebook"
    assert chosen({"float32": 0.99, "int8": 0.98, "codebook": 0.97}) == "int8"
    assert chosen({"float32": 0.99, "int8": 0.9, "codebook": 0.9}) == "float32"


def test_the_ratio_is_against_the_network_as_it_was_built(
    conv_model: bytes, images: Float32
) -> None:
    result = compress(
        conv_model, images, config=CompressionConfig(),
        evaluate=lambda _: 1.0, latency=constant_latency, dense_bytes=10**6,
    )  # fmt: skip
    assert result.report.ratio == 10**6 / len(result.artifact)


@pytest.mark.parametrize("name", ["int8_pruned", "int8", "none", "small"])
def test_each_yaml_names_every_setting_and_is_accepted(name: str) -> None:
    plain = OmegaConf.load(FOLDER / f"{name}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(CompressionConfig), plain)
    assert set(plain) == set(CompressionConfig.__dataclass_fields__)
    config = OmegaConf.to_object(merged)
    assert (name == "int8_pruned") == (config == CompressionConfig())
