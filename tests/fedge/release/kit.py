"""Small real releases for the tests: a 4-to-3 linear model, keys, a repository."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tuf.api.metadata import (  # type: ignore[attr-defined]  # no __all__
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from fedge.arrays import Float32
from fedge.compress.pack import pack
from fedge.config import DataKind, Quantization, Task
from fedge.release.bundle import ReleaseBundle
from fedge.release.disk import Disk
from fedge.release.keys import KeyRing
from fedge.release.passport import Passport, Provenance
from fedge.release.repository import ReleaseRepository
from fedge.release.trust import TrustStore
from fedge.runtime.packed import PackedArray

# Far from the real date: only the time that is given may decide.
NOW = datetime(2031, 5, 1, 12, 0, tzinfo=UTC)
INPUTS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
MEAN, STD = (1.0,), (2.0,)
T = TypeVar("T", Root, Targets, Snapshot, Timestamp)


def weights(version: int) -> Float32:
    rng = np.random.default_rng(version)
    return rng.normal(size=(4, 3)).astype(np.float32)


def onnx_model(
    nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto]
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(initializers),
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(model.SerializeToString())


def linear_model(matrix: Float32) -> bytes:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return onnx_model([node], [numpy_helper.from_array(matrix, "w")])


def expected_outputs(matrix: Float32) -> Float32:
    normalized = (INPUTS - np.float32(MEAN[0])) / np.float32(STD[0])
    return np.asarray(normalized @ matrix, np.float32)


def passport_for(model: bytes, version: int, outputs: Float32) -> Passport:
    return Passport(
        version=version,
        model_name="linear",
        task=Task.classification,
        input_kind=DataKind.table,
        input_shape=(4,),
        output_names=("one", "two", "three"),
        mean=MEAN,
        std=STD,
        unpacked_bytes=len(model),
        unpacked_sha256=hashlib.sha256(model).hexdigest(),
        reference_inputs=PackedArray.pack(INPUTS),
        reference_outputs=PackedArray.pack(outputs),
        tolerance=1e-4,  # float32 sums of four products in another order
        max_latency_ms=1000.0,
        max_memory_mb=512,
        provenance=Provenance(
            run_id="run-1",
            rounds=3,
            strategy="FedAvg",
            secure_aggregation=True,
            cohort_floor=5,
            sparsity=0.6,
            quantization=Quantization.int8,
            parent_version=version - 1,
            config_digest="0" * 64,
        ),
    )


def release(version: int) -> tuple[bytes, Passport]:
    """The artifact and passport of a healthy release."""
    matrix = weights(version)
    model = linear_model(matrix)
    return pack(model, level=3), passport_for(model, version, expected_outputs(matrix))


def release_of(model: bytes, version: int) -> tuple[bytes, Passport]:
    """Any model, signed with the outputs of the healthy one of that version."""
    outputs = expected_outputs(weights(version))
    return pack(model, level=3), passport_for(model, version, outputs)


def with_references(passport: Passport, num_examples: int) -> Passport:
    """The passport with its first reference examples only."""
    outputs = passport.reference_outputs.unpack()
    return replace(
        passport,
        reference_inputs=PackedArray.pack(INPUTS[:num_examples]),
        reference_outputs=PackedArray.pack(outputs[:num_examples]),
    )


def repository(folder: Path, keys: KeyRing) -> ReleaseRepository:
    return ReleaseRepository.open(folder, keys, expiry_days=30.0, now=NOW)


def published(folder: Path, keys: KeyRing, version: int) -> ReleaseRepository:
    """A repository with the healthy release `version`, published now."""
    opened = repository(folder, keys)
    opened.publish(*release(version), now=NOW)
    return opened


def device(folder: Path, root: bytes, *, disk: Disk | None = None) -> TrustStore:
    store = TrustStore(folder / "trust", disk=disk)
    store.provision(root)
    return store


def with_metadata(bundle: ReleaseBundle, **files: bytes) -> ReleaseBundle:
    """The bundle with some metadata files replaced; `_` stands for a dot."""
    named = {name.replace("_", "."): data for name, data in files.items()}
    return ReleaseBundle({**bundle.metadata, **named}, bundle.targets)


def with_artifact(bundle: ReleaseBundle, artifact: bytes) -> ReleaseBundle:
    return ReleaseBundle(bundle.metadata, {"model.onnx.zst": artifact})


def forged_bundle(
    keys: KeyRing,
    artifact: bytes,
    custom: object,
    *,
    version: int = 50,
    targets_version: int = 50,
    delegations: Delegations | None = None,
) -> ReleaseBundle:
    """What somebody with every online key can sign, past all checks of `publish`."""
    target = TargetFile.from_data("model.onnx.zst", artifact, ["sha256"])
    target.unrecognized_fields["custom"] = custom
    files = {} if delegations else {"model.onnx.zst": target}
    life = NOW + timedelta(days=30)
    targets = Targets(
        version=targets_version, expires=life, targets=files, delegations=delegations
    )
    targets_data = signed(targets, keys)
    meta = MetaFile.from_data(targets_version, targets_data, ["sha256"])
    snapshot = Snapshot(version=version, expires=life, meta={"targets.json": meta})
    snapshot_data = signed(snapshot, keys)
    meta = MetaFile.from_data(version, snapshot_data, ["sha256"])
    timestamp = Timestamp(version=version, expires=life, snapshot_meta=meta)
    files_by_name = {
        "timestamp.json": signed(timestamp, keys),
        f"{version}.snapshot.json": snapshot_data,
        f"{targets_version}.targets.json": targets_data,
    }
    return ReleaseBundle(files_by_name, {"model.onnx.zst": artifact})


def signed(payload: T, keys: KeyRing) -> bytes:
    metadata = Metadata(payload)
    for signer in keys.of_role(payload.type):
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))
