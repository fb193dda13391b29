"""The ServerApp: one object for the simulator, Flower's runtimes and a real fleet."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedge.config import Experiment, SecAggMode
from fedge.config.experiment import from_json, to_json
from fedge.enrolment.folders import ENROLMENT_PUBLIC
from fedge.enrolment.key_files import read_public
from fedge.errors import ConfigError
from fedge.flower import Faults, PlainSum, SecureSum, Telemetry
from fedge.flower.wire import secure_plan, train_reply_layout
from fedge.strategy import Needs
from server.coordinator import Wiring, train
from server.distillation import distilled
from server.events import Observer, current_observer
from server.journal import Journal
from server.model_state import ModelState, prototype
from server.narrow import check_narrowing, fitted
from server.profile import profiled
from server.publish import open_repository, publish
from server.push import push
from server.roster import roster
from server.settings import compose_experiment
from server.setup import Setup, prepare
from server.state_codec import from_bytes
from server.summary import save_model, summarize, to_text, write_atomically

app = ServerApp()

JOURNAL = "journal.sqlite"
ENROLMENT = "enrolment"


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, publish and push one model.

    The run config holds either `settings` (the experiment as JSON, from the simulator)
    or `overrides` (Hydra overrides of `conf/`, from `flwr run`), and `run-dir`.
    """
    experiment = _experiment(context)
    folder = Path(
        str(context.run_config.get("run-dir") or f"outputs/flwr-{context.run_id}")
    )
    coordinate(grid, experiment, folder, current_observer())


def coordinate(
    grid: Grid, experiment: Experiment, folder: Path, observer: Observer
) -> None:
    """Run an experiment over a base grid; leave everything in `folder`.

    Started again with the same settings and folder it goes on where it stopped.

    Raises:
        FedgeError: see `prepare`, `train` and `publish`; what is finished is kept.
    """
    with profiled(experiment.run.profile, folder, observer) as watched:
        _coordinate(grid, experiment, folder, watched)


def _coordinate(
    grid: Grid, experiment: Experiment, folder: Path, observer: Observer
) -> None:
    setup = prepare(experiment)
    check_narrowing(setup)
    folder.mkdir(parents=True, exist_ok=True)
    if experiment.release.enabled:
        open_repository(folder, setup)  # a missing key is told before the training
    wiring = connect(grid, setup, folder)
    journal = Journal.open(folder / JOURNAL, _lasting_settings(experiment))
    try:
        setup, state = train(setup, wiring, journal, observer)
        model_sha256 = _save_models(setup, journal, state, folder)
        release = None
        if experiment.release.enabled:
            sparsity = journal.rounds()[-1].sparsity
            params = distilled(setup, state, journal)
            published = publish(
                setup, params, folder, observer, sparsity=sparsity, wiring=wiring
            )
            observer.stage_started("pushing to the devices")
            release = (published, push(setup, wiring, published))
        summary = summarize(
            setup,
            journal.rounds(),
            wiring.telemetry.snapshot(),
            model_sha256=model_sha256,
            release=release,
        )
        write_atomically(folder / "summary.json", to_text(summary).encode())
    finally:
        journal.close()


def connect(grid: Grid, setup: Setup, folder: Path) -> Wiring:
    """Put the layers on a base grid: sum, then telemetry, then faults."""
    fleet, run = setup.experiment.fleet, setup.experiment.run
    nodes = roster(grid, setup.num_devices)
    below: Grid = grid
    if fleet.drop_probability > 0.0 and not fleet.is_virtual:
        below = Faults(grid, drop_probability=fleet.drop_probability, seed=run.seed)
    telemetry = Telemetry(below)
    summed = setup.strategy.needs is Needs.SUM
    if not summed:
        return Wiring(telemetry, telemetry, nodes)
    secagg = setup.experiment.secagg
    if secagg.mode is SecAggMode.off:
        expect = train_reply_layout(setup.spec.size)
        top: Grid = PlainSum(telemetry, enough=run.cohort, expect=expect)
    else:
        top = SecureSum(
            telemetry,
            secagg,
            enrolment_key=_enrolment_key(folder),
            plan=secure_plan(setup.spec.size),
        )
    return Wiring(top, telemetry, nodes)


def _enrolment_key(folder: Path) -> bytes:
    """Return the public key that certifies devices, if the run has one."""
    file = folder / ENROLMENT / ENROLMENT_PUBLIC
    return read_public(file) if file.exists() else b""


def _experiment(context: Context) -> Experiment:
    settings = context.run_config.get("settings", "")
    if settings:
        return from_json(Experiment, str(settings))
    overrides = context.run_config.get("overrides", "")
    if not isinstance(overrides, str):
        raise ConfigError(f"run config overrides: {overrides!r} must be text")
    return compose_experiment(overrides.split())


def _lasting_settings(experiment: Experiment) -> str:
    """Return what a resumed run must share: not where it is and who watches."""
    settings = from_json(Experiment, to_json(experiment))
    settings.run.resume = ""
    settings.run.profile = False
    settings.data.root = ""
    return to_json(settings)


def _save_models(
    setup: Setup, journal: Journal, state: ModelState, folder: Path
) -> str:
    """Write `last.safetensors` and `best.safetensors`; return the last one's digest."""
    best = journal.best()
    if best is not None:
        best_state = from_bytes(prototype(state), best.state)
        spec = fitted(setup, best_state.shapes).spec
        save_model(folder / "best.safetensors", best_state.params, spec)
    return save_model(folder / "last.safetensors", state.params, setup.spec)
