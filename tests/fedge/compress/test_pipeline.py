from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from omegaconf import OmegaConf
from onnx import helper
from torch import nn

import fedge
from fedge.arrays import AnyArray, Float32
from fedge.compress.pack import unpack
from fedge.compress.pipeline import Evaluate, compress
from fedge.compress.plan import build
from fedge.config.compression import CompressionConfig, Quantization
from fedge.errors import CompressionError
from fedge.export.onnx import export_onnx

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
            name = "int4" if b"_int4" in model else "int8"
            return accuracy["codebook" if b"_codebook" in model else name]

        config = CompressionConfig(quantization=Quantization.smallest)
        result = compress(
            conv_model,
            images,
            config=config,
            evaluate=evaluate,
            latency=constant_latency,
        )
        names = [candidate.name for candidate in result.report.candidates]
        assert names == ["float32", "int8", "int4", "codebook"]
        return result.report.chosen

    def of(int8: float, int4: float, codebook: float) -> dict[str, float]:
        return {"float32": 0.99, "int8": int8, "int4": int4, "codebook": codebook}

    assert chosen(of(0.99, 0.98, 0.97)) == "int4"
    assert chosen(of(0.99, 0.97, 0.98)) == "codebook"
    assert chosen(of(0.98, 0.97, 0.97)) == "int8"
    assert chosen(of(0.9, 0.9, 0.9)) == "float32"


def test_the_fastest_good_candidate_is_chosen(
    conv_model: bytes, images: Float32
) -> None:
    config = CompressionConfig(quantization=Quantization.fastest)
    result = compress(
        conv_model, images, config=config,
        evaluate=lambda _: 1.0, latency=lambda _: [0.5, 0.2, 0.1, 0.3],
    )  # fmt: skip
    assert result.report.chosen == "int4"


def test_the_most_accurate_candidate_within_the_budgets_is_chosen(
    conv_model: bytes, images: Float32
) -> None:
    config = CompressionConfig(
        quantization=Quantization.most_accurate, max_kilobytes=12.0, max_memory_mb=80.0
    )
    result = compress(
        conv_model, images, config=config,
        evaluate=lambda m: 0.99 if b"_int4" in m else 0.995, latency=constant_latency,
        memory=lambda m: 100.0 if b"_codebook" in m else 70.0,
    )  # fmt: skip
    floating, int8, int4, codebook = result.report.candidates
    assert result.report.chosen == ("int8" if not int8.exceeded else "int4")
    assert floating.exceeded[0].startswith("compression.max_kilobytes")
    assert codebook.exceeded == ("compression.max_memory_mb: 100, at most 80",)
    assert not int4.exceeded


def test_budgets_that_nothing_meets_are_refused_with_every_reason(
    conv_model: bytes, images: Float32
) -> None:
    config = CompressionConfig(max_latency_ms=0.1)
    with pytest.raises(CompressionError, match="within the budgets") as refusal:
        compress(
            conv_model, images, config=config,
            evaluate=lambda _: 1.0, latency=constant_latency,
        )  # fmt: skip
    message = str(refusal.value)
    assert "float32: compression.max_latency_ms: 0.5, at most 0.1" in message
    assert "int8: compression.max_latency_ms: 0.5, at most 0.1" in message


def test_a_budget_that_was_not_measured_is_not_met(
    conv_model: bytes, images: Float32
) -> None:
    with pytest.raises(CompressionError, match="max_memory_mb: could not be measured"):
        compress(
            conv_model, images, config=CompressionConfig(max_memory_mb=10.0),
            evaluate=lambda _: 1.0, latency=constant_latency,
        )  # fmt: skip


def test_a_recurrent_network_has_a_dynamic_candidate(
    recurrent_model: bytes, tokens: AnyArray
) -> None:
    names = build(recurrent_model, tokens, Quantization.smallest).keys()
    assert list(names) == ["float32", "int8", "int4", "codebook"]  # a GRU has none
    lstm = export_onnx(Lstm(), np.zeros((2, 9, 5), np.float32))
    inputs = np.random.default_rng(0).normal(size=(8, 9, 5)).astype(np.float32)
    models = build(lstm, inputs, Quantization.smallest)
    assert list(models) == ["float32", "int8", "dynamic", "int4", "codebook"]
    expected, found = (
        ort.InferenceSession(models[name]).run(None, {"input": inputs})[0]
        for name in ("float32", "dynamic")
    )
    assert 0.0 < np.abs(found - expected).max() < 0.02
    assert len(models["dynamic"]) < 0.5 * len(lstm)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(5, 64, batch_first=True)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(inputs)[0]
        return result


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
