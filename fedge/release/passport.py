"""What is signed together with a model: how to run it, how to check it, its origin.

The passport travels as the `custom` data of one TUF target. TUF's canonical JSON knows
no floating-point numbers, so the passport is one string of ordinary JSON inside it.
Whatever comes back is parsed strictly: unknown or missing names, wrong types, values
out of range and oversized parts are refused.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from fedge.arrays import AnyArray
from fedge.config import DataKind, Quantization, Task
from fedge.config.ranges import (
    check_at_least,
    check_below_one,
    check_more_than,
    check_within,
)
from fedge.errors import ConfigError, VerificationError
from fedge.release.artifact import MAX_UNPACKED_BYTES, digest
from fedge.runtime.packed import PackedArray
from fedge.runtime.preprocess import Normalization

# TUF lets a device download at most 5 MB of targets metadata.
MAX_PASSPORT_BYTES = 4_500_000
MAX_VERSION = 1_000_000_000
MAX_REFERENCE_EXAMPLES = 64
MAX_NAMES = 4096
MAX_DIMENSIONS = 6
_MAX_TEXT = 64
_MAX_COMMAS = 4 * MAX_NAMES  # names, means, deviations, and the rest
_MAX_BYTES = MAX_UNPACKED_BYTES
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a model comes from.

    Attributes:
        run_id: the run that trained it.
        rounds: rounds it was trained, >= 0.
        strategy: name of the federated algorithm.
        secure_aggregation: whether the server saw only sums of updates.
        cohort_floor: fewest devices that any such sum held, >= 0.
        sparsity: share of the prunable weights that are zero, in [0, 1).
        quantization: number format of weights and activations.
        parent_version: the release it replaces; 0 for none.
        config_digest: SHA-256 (hex) of the run's settings.
    """

    run_id: str
    rounds: int
    strategy: str
    secure_aggregation: bool
    cohort_floor: int
    sparsity: float
    quantization: Quantization
    parent_version: int
    config_digest: str

    def __post_init__(self) -> None:
        _check_name("provenance.run_id", self.run_id)
        _check_name("provenance.strategy", self.strategy)
        check_at_least("provenance.rounds", self.rounds, 0)
        check_at_least("provenance.cohort_floor", self.cohort_floor, 0)
        check_below_one("provenance.sparsity", self.sparsity)
        check_within("provenance.parent_version", self.parent_version, 0, MAX_VERSION)
        _check_sha256("provenance.config_digest", self.config_digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """The signed description of one release.

    Guarantee: `Passport.from_custom(passport.to_custom()) == passport`.

    Attributes:
        version: number of the release, 1 to `MAX_VERSION`; a device never goes back.
        model_name: what reports call the model.
        runtime: what runs it.
        task: what is predicted.
        input_kind: the form of one example.
        input_shape: shape of one raw example, without the batch axis.
        output_names: names of the classes or tokens; empty for regression.
        mean, std: from raw values to model inputs; see `Normalization`.
        unpacked_bytes, unpacked_sha256: the ONNX file inside the zstd frame.
        reference_inputs: raw examples, shape (n, *input_shape), 1 <= n <= 64.
        reference_outputs: float32, shape (n, ...), what the publisher's machine made of
            them.
        tolerance: largest difference of an output on a device, >= 0.
        min_top1_agreement: for classes and tokens, share of the largest outputs (along
            the last axis) that must be the signed ones, in [0, 1].
        golden_sha256: digest of the reference outputs (`golden_sha256`) if they are
            promised bit for bit, so that neither tolerance nor agreement is needed;
            empty if they are not.
        max_latency_ms: budget for one example, > 0.
        max_memory_mb: budget of the process that runs it, >= 64.
        provenance: where it comes from.

    Raises:
        ConfigError: a value is out of range or does not fit another one.
    """

    version: int
    model_name: str
    task: Task
    input_kind: DataKind
    input_shape: tuple[int, ...]
    output_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unpacked_bytes: int
    unpacked_sha256: str
    reference_inputs: PackedArray
    reference_outputs: PackedArray
    tolerance: float
    max_latency_ms: float
    max_memory_mb: int
    provenance: Provenance
    runtime: Literal["onnx"] = "onnx"
    min_top1_agreement: float = 0.0
    golden_sha256: str = ""

    def __post_init__(self) -> None:
        check_within("passport.version", self.version, 1, MAX_VERSION)
        _check_name("passport.model_name", self.model_name)
        self._check_shape_and_names()
        check_within("passport.unpacked_bytes", self.unpacked_bytes, 1, _MAX_BYTES)
        _check_sha256("passport.unpacked_sha256", self.unpacked_sha256)
        check_at_least("passport.tolerance", self.tolerance, 0.0)
        agreement = self.min_top1_agreement
        check_within("passport.min_top1_agreement", agreement, 0.0, 1.0)
        check_more_than("passport.max_latency_ms", self.max_latency_ms, 0.0)
        check_at_least("passport.max_memory_mb", self.max_memory_mb, 64)
        self._check_references()

    def _check_shape_and_names(self) -> None:
        sides = self.input_shape
        if not 1 <= len(sides) <= MAX_DIMENSIONS or min(sides) < 1:
            raise ConfigError(f"passport.input_shape: {sides} is not allowed")
        longest = max((len(name) for name in self.output_names), default=0)
        if len(self.output_names) > MAX_NAMES or longest > _MAX_TEXT:
            raise ConfigError(
                f"passport.output_names: {len(self.output_names)} names of up to "
                f"{longest} characters; at most {MAX_NAMES} of {_MAX_TEXT}"
            )
        if len(self.mean) > MAX_NAMES:
            raise ConfigError(f"passport.mean: more than {MAX_NAMES} values")
        Normalization(self.mean, self.std)

    def _check_references(self) -> None:
        inputs, outputs = self.reference_inputs.shape, self.reference_outputs.shape
        if not inputs or inputs[1:] != self.input_shape:
            raise ConfigError(f"passport.reference_inputs: shape {inputs}")
        check_within("number of references", inputs[0], 1, MAX_REFERENCE_EXAMPLES)
        if outputs[:1] != inputs[:1] or math.prod(outputs) == 0:
            raise ConfigError(f"passport.reference_outputs: shape {outputs}")
        if self.reference_outputs.dtype != "float32":
            raise ConfigError("passport.reference_outputs: must be float32")
        if not np.isfinite(self.reference_outputs.unpack()).all():
            raise ConfigError("passport.reference_outputs: must be finite")
        if self.golden_sha256:
            _check_sha256("passport.golden_sha256", self.golden_sha256)
            if self.golden_sha256 != golden_sha256(self.reference_outputs.unpack()):
                raise ConfigError(
                    "passport.golden_sha256: is not the digest of reference_outputs"
                )

    @property
    def normalization(self) -> Normalization:
        """From raw values to model inputs."""
        return Normalization(self.mean, self.std)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything in here, and so over the model as well."""
        return digest(self._to_json().encode())

    def to_custom(self) -> dict[str, str]:
        """Return the `custom` data to sign."""
        return {"passport": self._to_json()}

    def _to_json(self) -> str:
        plain = asdict(self)
        # Younger than the form itself: without a promise the text stays what it was, or
        # a device would take a release that it has for another one of that version.
        for name, absent in _YOUNGER.items():
            if plain[name] == absent:
                del plain[name]
        return json.dumps(plain, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_custom(cls, custom: Mapping[str, object]) -> "Passport":
        """Return the passport in a target's `custom` data.

        Raises:
            VerificationError: not a passport, or one that breaks a rule.
        """
        text = custom.get("passport") if isinstance(custom, Mapping) else None
        if not isinstance(text, str) or len(custom) != 1:
            raise VerificationError("passport: need one text named 'passport'")
        if len(text) > MAX_PASSPORT_BYTES:
            raise VerificationError(
                f"passport: {len(text)} characters, at most {MAX_PASSPORT_BYTES}"
            )
        # Lists of millions of short entries would become millions of objects.
        if text.count(",") > _MAX_COMMAS:
            raise VerificationError(f"passport: more than {_MAX_COMMAS} entries")
        try:
            return _adapter().validate_json(text, strict=True)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])[:_MAX_TEXT]
            raise VerificationError(f"passport: {where}: {first['msg']}") from exc


_YOUNGER: Mapping[str, object] = {"min_top1_agreement": 0.0, "golden_sha256": ""}


def golden_sha256(outputs: AnyArray) -> str:
    """Return SHA-256 (hex) over the outputs' shape and bits.

    Args:
        outputs: float32, any shape.
    """
    head = f"float32 {outputs.shape} ".encode()
    return digest(head + np.ascontiguousarray(outputs, "<f4").tobytes())


@cache
def _adapter() -> TypeAdapter[Passport]:
    strict = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
    strict(PackedArray)
    strict(Provenance)
    return TypeAdapter(strict(Passport))


def _check_name(field: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ConfigError(
            f"{field}: {text[:_MAX_TEXT]!r} must be 1 to {_MAX_TEXT} letters, digits, "
            "blanks, or . _ + -"
        )


def _check_sha256(field: str, text: str) -> None:
    if not _SHA256.fullmatch(text):
        raise ConfigError(f"{field}: must be 64 lower-case hex digits")
