"""Handlers of release messages: install what was pushed, and run it. No torch."""

from pathlib import Path

from flwr.app import Context, Message

from clients.device import Device
from fedge.config.experiment import ClientTask, from_json
from fedge.data.client import client_examples
from fedge.data.load import load
from fedge.errors import ConfigError, HealthCheckError
from fedge.flower.release_records import bundle_of
from fedge.flower.wire import Description, EvaluateReply, ReleaseReply, task_of
from fedge.release.install import install, installed_model, load_installed
from fedge.runtime.predictor import median_latency_ms
from fedge.runtime.score import score_outputs

_LATENCY_REPEATS = 20


def install_pushed(message: Message, context: Context) -> Message:
    """Verify, test and install the release in the message.

    A release that fails its health check is answered with "rolled_back"; one that is
    not genuine raises, and the server gets an error reply.

    Raises:
        VerificationError: the release is not to be trusted.
        ConfigError: this device takes no releases.
    """
    report = install(_folder(context), bundle_of(message.content))
    reply = ReleaseReply(report.version, str(report.outcome), report.reason)
    return Message(reply.to_content(), reply_to=message)


def evaluate_installed(message: Message, context: Context) -> Message:
    """Run the installed release on the device's own data.

    Raises:
        HealthCheckError: no release is installed.
    """
    device, folder = Device.of(context), _folder(context)
    task = from_json(ClientTask, task_of(message.content))
    data = load(task.data, root=device.data_root, allow=device.allow)
    examples = client_examples(
        data,
        task.partition,
        num_clients=task.num_devices,
        seed=task.seed,
        client_index=device.partition_id,
    )
    installed = installed_model(folder)
    if installed is None:
        raise HealthCheckError("no release is installed on this device")
    predictor = load_installed(folder)
    result = score_outputs(
        predictor.predict(examples.features), examples.targets, data.info.task
    )
    latency_ms = median_latency_ms(
        predictor, examples.features[:1], repeats=_LATENCY_REPEATS
    )
    reply = EvaluateReply(
        loss=result.loss,
        score=result.score,
        num_examples=float(result.num_examples),
        latency_ms=latency_ms,
        version=installed[1].version,
    )
    return Message(reply.to_content(), reply_to=message)


def describe(message: Message, context: Context) -> Message:
    """Say which device this is and which release it runs."""
    device = Device.of(context)
    installed = installed_model(device.folder) if device.folder else None
    version = installed[1].version if installed else 0
    description = Description(device.partition_id, version)
    return Message(description.to_content(), reply_to=message)


def _folder(context: Context) -> Path:
    folder = Device.of(context).folder
    if folder is None:
        raise ConfigError(
            "this device takes no releases: node config device-dir is not set"
        )
    return folder
