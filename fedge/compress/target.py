"""Budgets and speed of the device that a model is meant for.

A latency is measured on this machine, in the runtime that the device uses, and then
translated: times how much slower one core of the device is at matrix products. That is
an estimate, good to a small factor (caches and instruction sets differ); the device's
own health check measures, and rolls back what is too slow there.
"""

import statistics
import time
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fedge.arrays import Float32
from fedge.config.compression import CompressionConfig
from fedge.config.fleet import DeviceKind
from fedge.fleet.profiles import PROFILES, core_flops_per_second

# A model is one of several programs on a device.
_SHARE_OF_MEMORY = 0.25
_LATENCY_MS = 100.0  # what a person perceives as immediate
_SIDE, _REPEATS = 256, 15


def with_budgets(config: CompressionConfig) -> CompressionConfig:
    """Return the settings with the device's budgets where none are set.

    They are a quarter of its memory and 100 ms for one example.

    Raises:
        ConfigError: the device's speed is not known.
    """
    if config.device is None:
        return config
    core_flops_per_second(config.device)
    memory_mb = PROFILES[config.device].memory_bytes * _SHARE_OF_MEMORY / 2**20
    return replace(
        config,
        max_memory_mb=config.max_memory_mb or memory_mb,
        max_latency_ms=config.max_latency_ms or _LATENCY_MS,
    )


def slowdown_of(device: DeviceKind | None) -> float:
    """Return how many times longer the device takes than this machine; None: 1.

    Raises:
        ConfigError: nobody has measured a core of the device.
    """
    if device is None:
        return 1.0
    return _flops_per_second_here() / core_flops_per_second(device)


@cache
def _flops_per_second_here() -> float:
    """Return what one core of this machine does in the runtime's matrix product."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    weight = np.ones((_SIDE, _SIDE), np.float32)
    session = ort.InferenceSession(
        _product(weight), options, providers=["CPUExecutionProvider"]
    )
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        session.run(None, {"input": weight})
        seconds.append(time.perf_counter() - started)
    return 2.0 * _SIDE**3 / statistics.median(seconds)


def _product(weight: Float32) -> bytes:
    shape: list[str | int | None] = ["rows", _SIDE]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "weight"], ["output"])],
        "product",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    result: bytes = model.SerializeToString()
    return result
