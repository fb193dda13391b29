import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.arrays import AnyArray
from fedge.errors import ConfigError, VerificationError
from fedge.release.passport import MAX_PASSPORT_BYTES, Passport, golden_sha256
from fedge.runtime.packed import PackedArray
from tests.fedge.release import kit

PASSPORT = kit.release(1)[1]
PLAIN = json.loads(PASSPORT.to_custom()["passport"])


def custom_with(**changes: object) -> dict[str, str]:
    return {"passport": json.dumps({**PLAIN, **changes})}


def custom_with_origin(**changes: object) -> dict[str, str]:
    return custom_with(provenance={**PLAIN["provenance"], **changes})


@settings(max_examples=25, deadline=None)
@given(
    version=st.integers(1, 10**9),
    tolerance=st.floats(0, 1e6),
    mean=st.floats(-1e30, 1e30),
    sparsity=st.floats(0, 1, exclude_max=True),
)
def test_a_passport_comes_back_as_it_was_signed(
    version: int, tolerance: float, mean: float, sparsity: float
) -> None:
    origin = replace(PASSPORT.provenance, sparsity=sparsity)
    passport = replace(
        PASSPORT, version=version, tolerance=tolerance, mean=(mean,), provenance=origin
    )
    assert Passport.from_custom(passport.to_custom()) == passport


def test_signed_data_holds_no_floating_point_number() -> None:
    # TUF's canonical JSON has none; a text may hold anything.
    assert [type(value) for value in PASSPORT.to_custom().values()] == [str]


def test_other_content_has_another_digest() -> None:
    assert PASSPORT.digest == kit.release(1)[1].digest
    assert PASSPORT.digest != replace(PASSPORT, tolerance=0.5).digest


def test_a_passport_from_before_golden_outputs_stays_what_it_was() -> None:
    # Its digest is in the devices' records: another one would be another release.
    assert "golden_sha256" not in PLAIN
    old = Passport.from_custom(custom_with())
    assert (old.golden_sha256, old.min_top1_agreement) == ("", 0.0)
    assert old.to_custom() == PASSPORT.to_custom()


def test_golden_outputs_come_back() -> None:
    outputs = PASSPORT.reference_outputs.unpack()
    golden = replace(PASSPORT, golden_sha256=golden_sha256(outputs))
    assert Passport.from_custom(golden.to_custom()) == golden
    assert golden.digest != PASSPORT.digest


def test_the_golden_digest_is_that_of_the_reference_outputs() -> None:
    with pytest.raises(VerificationError, match="is not the digest of"):
        Passport.from_custom(custom_with(golden_sha256="0" * 64))


def test_reference_examples_come_back() -> None:
    assert np.array_equal(PASSPORT.reference_inputs.unpack(), kit.INPUTS)


@pytest.mark.parametrize(
    ("custom", "what"),
    [
        (custom_with(surprise=1), "surprise: Unexpected keyword"),
        (custom_with_origin(surprise=1), "provenance.surprise: Unexpected"),
        (custom_with(version="1"), "version: Input should be a valid integer"),
        (custom_with(version=True), "version: Input should be a valid integer"),
        (custom_with(version=0), "version: 0 not in"),
        (custom_with(version=10**10), "not in"),
        (custom_with(runtime="pickle"), "runtime"),
        (custom_with(task="magic"), "task"),
        (custom_with(model_name="../x"), "model_name"),
        (custom_with(model_name=""), "model_name"),
        (custom_with(input_shape=[]), "input_shape"),
        (custom_with(input_shape=[5]), "reference_inputs"),
        (custom_with(input_shape=[0]), "input_shape"),
        (custom_with(output_names=["x"] * 5000), "output_names"),
        (custom_with(output_names=["x" * 65]), "output_names"),
        (custom_with(mean=[1.0, 2.0]), "2 means but 1 deviations"),
        (custom_with(std=[0.0]), "deviations finite and > 0"),
        (custom_with(std=[float("nan")]), "finite"),
        (custom_with(unpacked_bytes=2**40), "unpacked_bytes"),
        (custom_with(unpacked_sha256="A" * 64), "unpacked_sha256"),
        (custom_with(tolerance=-1.0), "tolerance"),
        (custom_with(tolerance=float("inf")), "tolerance"),
        (custom_with(max_latency_ms=0), "max_latency_ms"),
        (custom_with(max_memory_mb=1), "max_memory_mb"),
        (custom_with_origin(sparsity=1.0), "sparsity"),
        (custom_with_origin(rounds=-1), "rounds"),
        (custom_with_origin(parent_version=-1), "parent_version"),
        (custom_with_origin(config_digest=""), "config_digest"),
        (custom_with_origin(secure_aggregation="yes"), "secure_aggregation"),
        (custom_with_origin(quantization="int2"), "quantization"),
        ({"passport": "{}"}, "version"),
        ({"passport": "[" * 100_000}, "passport"),
        ({"passport": " " * (MAX_PASSPORT_BYTES + 1)}, "at most"),
        ({"passport": "{}", "more": 1}, "need one text"),
        ({}, "need one text"),
        ("passport", "need one text"),
    ],
)
def test_a_passport_that_breaks_a_rule_is_refused(
    custom: Mapping[str, object], what: str
) -> None:
    with pytest.raises(VerificationError, match=what):
        Passport.from_custom(custom)


def test_a_missing_field_is_refused() -> None:
    plain = {name: value for name, value in PLAIN.items() if name != "tolerance"}
    with pytest.raises(VerificationError, match="tolerance: Field required"):
        Passport.from_custom({"passport": json.dumps(plain)})


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        (np.ones((4, 3), np.float32), "reference_outputs: shape"),
        (np.ones((5, 0), np.float32), "reference_outputs: shape"),
        (np.ones((5, 3), np.float64), "must be float32"),
        (np.full((5, 3), np.nan, np.float32), "must be finite"),
    ],
)
def test_reference_outputs_must_fit(outputs: AnyArray, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        replace(PASSPORT, reference_outputs=PackedArray.pack(outputs))


def test_too_many_reference_examples_are_refused() -> None:
    inputs = PackedArray.pack(np.ones((65, 4), np.float32))
    outputs = PackedArray.pack(np.ones((65, 3), np.float32))
    with pytest.raises(ConfigError, match=r"65 not in \[1, 64\]"):
        replace(PASSPORT, reference_inputs=inputs, reference_outputs=outputs)


@settings(max_examples=40, deadline=None)
@given(text=st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        Passport.from_custom({"passport": text})
