"""From the final model to a signed release: export, compress, check, sign.

Killed anywhere and run again, it publishes the same release once: what it makes is a
function of the model and the settings (unless they choose by what was measured: the
fastest form, or a budget of time or memory), and publishing what is published already
does nothing.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fedge.arrays import AnyArray, Float32
from fedge.compress.exact import computes_exactly
from fedge.compress.judge import Judge
from fedge.compress.pipeline import Compressed, compress
from fedge.compress.plan import FLOAT32, needs_ranges
from fedge.compress.target import with_budgets
from fedge.config import Calibration, DataKind, Quantization, SecAggMode, Task
from fedge.config.experiment import to_json
from fedge.errors import ConfigError, MisuseError
from fedge.export.onnx import export_onnx
from fedge.export.parity import check_parity
from fedge.models.vector import set_params
from fedge.release.bundle import ReleaseBundle
from fedge.release.keys import KeyRing
from fedge.release.passport import Passport, Provenance, golden_sha256
from fedge.release.repository import ReleaseRepository
from fedge.runtime.packed import PackedArray
from fedge.runtime.predictor import OnnxPredictor
from fedge.runtime.ranges import Ranges
from fedge.seeding import Purpose, generator
from server.calibrate import calibrate
from server.coordinator import Wiring
from server.events import Observer
from server.setup import Setup

_PARITY_EXAMPLES = 64
# Whose outputs' last axis is what one of is chosen from.
_WITH_CLASSES = (Task.classification, Task.next_token)


@dataclass(frozen=True, slots=True)
class Published:
    """A release that is ready to be pushed.

    Attributes:
        compressed: what is shipped and all candidates.
        passport: what was signed about it.
        bundle: what a device needs to verify and install it.
    """

    compressed: Compressed
    passport: Passport
    bundle: ReleaseBundle


def publish(
    setup: Setup,
    params: Float32,
    folder: Path,
    observer: Observer,
    *,
    sparsity: float,
    wiring: Wiring | None = None,
) -> Published:
    """Make and sign the release of a model.

    Args:
        setup: the run.
        params: the whole model, float32, shape (d,).
        folder: of the run; keys are in `keys/`, the repository in `releases/`.
        observer: is told what goes on.
        sparsity: share of the prunable weights that are zero.
        wiring: how to reach the devices, for `compression.calibration=federated`.

    Raises:
        CompressionError: export, parity, calibration, accuracy or size missed its gate;
            nothing was published.
        ConfigError: a signing key is missing.
        MisuseError: the devices are needed, and there is no wiring.
    """
    observer.stage_started("exporting to ONNX")
    fp32_model = _export(setup, params)
    calibration = _calibration(setup, wiring, fp32_model, folder, observer)
    observer.stage_started("compressing and checking the gates")
    compressed = _compress(setup, fp32_model, calibration)
    observer.stage_started("signing the release")
    repository = open_repository(folder, setup)
    passport = _passport(setup, compressed, repository.latest(), sparsity)
    repository.publish(compressed.artifact, passport, now=datetime.now(UTC))
    repository.refresh(datetime.now(UTC))
    return Published(compressed, passport, repository.bundle())


def open_repository(folder: Path, setup: Setup) -> ReleaseRepository:
    """Return the run's release repository; its keys must exist.

    Raises:
        ConfigError: no keys, or a key is missing.
    """
    try:
        keys = KeyRing.load(folder / "keys")
    except ConfigError as exc:
        raise ConfigError(
            f"release.enabled: needs signing keys in {folder / 'keys'} ({exc}); "
            f"create them there, or set release=none"
        ) from exc
    return ReleaseRepository.open(
        folder / "releases",
        keys,
        expiry_days=setup.experiment.release.expiry_days,
        now=datetime.now(UTC),
    )


def _export(setup: Setup, params: Float32) -> bytes:
    set_params(setup.model, setup.spec, params)
    raw = setup.data.test.features[:_PARITY_EXAMPLES]
    inputs = setup.data.info.normalization.apply(raw)
    model = export_onnx(setup.model, inputs[:2])
    check_parity(setup.model, model, inputs)
    return model


def _calibration(
    setup: Setup,
    wiring: Wiring | None,
    fp32_model: bytes,
    folder: Path,
    observer: Observer,
) -> AnyArray | Ranges:
    """Return examples of the coordinator's, or ranges that the devices found."""
    config = setup.experiment.compression
    is_central = config.calibration is Calibration.central
    if is_central or not needs_ranges(config.quantization):
        normalization = setup.data.info.normalization
        return normalization.apply(_calibration_examples(setup))
    if wiring is None:
        raise MisuseError("publish: calibration=federated needs a wiring")
    observer.stage_started("calibrating on the devices")
    return calibrate(setup, wiring, fp32_model, folder)


def _compress(
    setup: Setup, fp32_model: bytes, calibration: AnyArray | Ranges
) -> Compressed:
    data, experiment = setup.data, setup.experiment
    judge = Judge(
        data.test.features,
        data.test.targets,
        data.info.task,
        data.info.normalization,
        device=experiment.compression.device,
        memory_limit_mb=experiment.release.max_memory_mb,
    )
    return compress(
        fp32_model,
        calibration,
        config=with_budgets(experiment.compression),
        evaluate=judge.score,
        latency=judge.latencies_ms,
        memory=judge.memory_mb,
        dense_bytes=setup.initial_params.nbytes,
    )


def _calibration_examples(setup: Setup) -> AnyArray:
    """Return training examples of the coordinator's own copy, drawn from the seed."""
    wanted = setup.experiment.compression.calibration_examples
    rng = generator(setup.experiment.run.seed, Purpose.MODEL, 1)
    return setup.data.train.draw(wanted, rng).features


def _passport(
    setup: Setup, compressed: Compressed, latest: Passport | None, sparsity: float
) -> Passport:
    """Describe the release: the next version, unless it is published already."""
    info, config = setup.data.info, setup.experiment.release
    raw = setup.data.test.features[: config.reference_examples]
    outputs = OnnxPredictor(compressed.model, info.normalization).predict(raw)
    agreement = config.min_top1_agreement
    budgets = with_budgets(setup.experiment.compression)
    passport = Passport(
        version=1,
        model_name=f"{info.name}-{_model_name(setup)}",
        task=info.task,
        input_kind=info.kind,
        input_shape=info.input_shape,
        # A vocabulary is not a list of names that a person would look up.
        output_names=() if info.kind is DataKind.text else info.output_names,
        mean=info.normalization.mean,
        std=info.normalization.std,
        unpacked_bytes=len(compressed.model),
        unpacked_sha256=hashlib.sha256(compressed.model).hexdigest(),
        reference_inputs=PackedArray.pack(raw),
        reference_outputs=PackedArray.pack(outputs),
        tolerance=config.tolerance,
        min_top1_agreement=agreement if info.task in _WITH_CLASSES else 0.0,
        golden_sha256=golden_sha256(outputs) if _is_exact(compressed) else "",
        max_latency_ms=_least(config.max_latency_ms, budgets.max_latency_ms),
        max_memory_mb=max(64, int(_least(config.max_memory_mb, budgets.max_memory_mb))),
        provenance=_provenance(setup, compressed, sparsity),
    )
    if latest is None:
        return passport
    same = replace(
        passport,
        version=latest.version,
        provenance=replace(
            passport.provenance, parent_version=latest.provenance.parent_version
        ),
    )
    if same == latest:
        return latest
    return replace(
        passport,
        version=latest.version + 1,
        provenance=replace(passport.provenance, parent_version=latest.version),
    )


def _is_exact(compressed: Compressed) -> bool:
    """Return whether the shipped model promises its outputs bit for bit."""
    return compressed.report.chosen == "int8" and computes_exactly(compressed.model)


def _least(limit: float, budget: float) -> float:
    """Return the smaller of a limit and a budget; a budget of 0 is none."""
    return min(limit, budget) if budget > 0.0 else limit


def _provenance(setup: Setup, compressed: Compressed, sparsity: float) -> Provenance:
    run = setup.experiment.run
    secagg = setup.experiment.secagg
    secured = secagg.mode is not SecAggMode.off
    settings = to_json(setup.experiment)
    digest = hashlib.sha256(settings.encode()).hexdigest()
    return Provenance(
        run_id=digest[:16],
        rounds=run.rounds,
        strategy=str(setup.experiment.strategy["_target_"]),
        secure_aggregation=secured,
        cohort_floor=(
            max(run.min_answers, secagg.min_cohort) if secured else run.min_answers
        ),
        sparsity=sparsity,
        quantization=_quantization(compressed.report.chosen),
        parent_version=0,
        config_digest=digest,
    )


def _quantization(chosen: str) -> Quantization:
    return Quantization.none if chosen == FLOAT32 else Quantization(chosen)


def _model_name(setup: Setup) -> str:
    model = setup.experiment.model
    return model.builder.replace(":", ".") if model.builder else str(model.name)
