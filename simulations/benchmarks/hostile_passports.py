"""A good passport and hostile ones, for the benchmark of parsers."""

import base64
import json
from collections.abc import Mapping

import numpy as np

from fedge.arrays import Float32
from fedge.config import DataKind, Quantization, Task
from fedge.release.artifact import digest
from fedge.release.passport import Passport, Provenance
from fedge.runtime.packed import PackedArray
from simulations.benchmarks.hostile_files import Maker, good_model


def good_passport(inputs: Float32) -> Passport:
    """Return the passport of `good_model`, for inputs of ones, shape (5, 4)."""
    model = good_model()
    return Passport(
        version=1,
        model_name="hostile",
        task=Task.classification,
        input_kind=DataKind.table,
        input_shape=(4,),
        output_names=("a", "b", "c"),
        mean=(0.0,),
        std=(1.0,),
        unpacked_bytes=len(model),
        unpacked_sha256=digest(model),
        reference_inputs=PackedArray.pack(inputs),
        reference_outputs=PackedArray.pack(np.full((5, 3), 4.0, np.float32)),
        tolerance=0.0,
        max_latency_ms=1000.0,
        max_memory_mb=256,
        provenance=Provenance(
            run_id="run",
            rounds=1,
            strategy="fedavg",
            secure_aggregation=False,
            cohort_floor=1,
            sparsity=0.0,
            quantization=Quantization.none,
            parent_version=0,
            config_digest="0" * 64,
        ),
    )


def passports(good: str) -> Mapping[str, Maker]:
    """Return hostile passports by name, made from a good one's JSON."""

    def changed(**entries: object) -> bytes:
        return json.dumps({**json.loads(good), **entries}).encode()

    claims = {"dtype": "float32", "shape": [1 << 40, 4], "data": "AAAA"}
    many = {"dtype": "uint8", "shape": [0, *[1] * 2_000_000], "data": ""}
    nans = base64.b64encode(np.full((5, 3), np.nan, np.float32).tobytes()).decode()
    return {
        "nothing": lambda: b"",
        "nested": lambda: b"[" * 4_000_000,
        "cut off": lambda: good.encode()[:-20],
        "larger than is accepted": lambda: b" " * 5_000_000,
        "claims 2^40 inputs": lambda: changed(reference_inputs=claims),
        "millions of axes": lambda: changed(reference_inputs=many),
        "millions of names": lambda: changed(output_names=[""] * 1_000_000),
        "millions of means": lambda: changed(mean=[0.5] * 1_000_000),
        "NaN outputs": lambda: changed(
            reference_outputs={"dtype": "float32", "shape": [5, 3], "data": nans}
        ),
        "claims an unpacked size of 2^60": lambda: changed(unpacked_bytes=1 << 60),
    }
