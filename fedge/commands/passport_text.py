"""A model's passport for people: what was signed about it. No signature is checked."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from fedge.errors import DataError, FedgeError
from fedge.release.passport import Passport

_MAX_BYTES = 64 << 20


def read_passport(path: Path) -> Passport | None:
    """Return the passport beside a model file, or in the file itself; None: none.

    What lies beside a model and is no passport is passed over.

    Raises:
        DataError: the file itself should be one, and is none, or damaged.
    """
    is_asked_for = path.suffix == ".json"
    place = path if is_asked_for else path.with_name("passport.json")
    if not place.is_file():
        return None
    try:
        if place.stat().st_size > _MAX_BYTES:
            raise DataError(f"{place}: more than {_MAX_BYTES} bytes")
        return Passport.from_custom(json.loads(place.read_bytes()))
    except (OSError, ValueError, RecursionError, FedgeError) as exc:
        if not is_asked_for:
            return None
        raise DataError(f"{place}: not a passport, or damaged ({exc})") from exc


def passport_lines(passport: Passport, model: bytes | None) -> Iterator[str]:
    """Yield what the passport says, and whether it is that of `model`."""
    origin = passport.provenance
    yield f"passport: release {passport.version} of {passport.model_name}"
    if model is not None:
        sha256 = hashlib.sha256(model).hexdigest()
        fits = sha256 == passport.unpacked_sha256
        yield f"  of this file: {'yes' if fits else 'NO, of another one'}"
    yield "  (its signature is checked by the device that installs it, not here)"
    shape = ", ".join(map(str, passport.input_shape))
    yield f"  {passport.task} from {passport.input_kind} of shape ({shape})"
    yield (
        f"  trained {origin.rounds} rounds with {origin.strategy}, run {origin.run_id}"
    )
    secured = "secure aggregation" if origin.secure_aggregation else "open sums"
    yield f"  {secured} over at least {origin.cohort_floor} devices"
    yield f"  {origin.quantization}, {origin.sparsity:.0%} of the weights pruned"
    yield (
        f"  budgets: {passport.max_latency_ms:g} ms, {passport.max_memory_mb} MB; "
        f"{passport.reference_inputs.shape[0]} reference examples"
    )
