"""Handler of calibration messages: ranges of this device's activations. No torch.

The graph comes from the server unsigned, so it is treated as any stranger's: checked,
then run in a child process under limits that this device sets. What leaves the device
is one clipped range per tensor, and how many examples they are of. What the graph makes
a range of is the server's choice: an open answer can say as much about some examples as
it has numbers. A device whose owner allows no open training answers under masks only,
and an owner may name the only graphs that the device runs (node config `train-graphs`).
"""

import hashlib
import logging
import math
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message

from clients.device import Device
from fedge.arrays import AnyArray, Float32
from fedge.config.experiment import ClientTask, from_json
from fedge.data.client import client_examples
from fedge.data.load import load
from fedge.errors import PeerError
from fedge.flower.calibration_records import CalibrateReply, CalibrateRequest
from fedge.runtime.model_check import check_model
from fedge.runtime.packed import MAX_PACKED_BYTES, PackedArray
from fedge.runtime.preprocess import Normalization
from fedge.runtime.ranges import encode
from fedge.runtime.selftest import Job
from fedge.runtime.trial import run_trial
from fedge.seeding import Purpose, generator

logger = logging.getLogger(__name__)

# What a device grants an unsigned graph; a network that fits it trained within more.
MEMORY_MB = 1024
TIMEOUT_SECONDS = 120.0
_BATCH_SIZE = 32
_CALIBRATION = 2  # Purpose.MODEL: 0 and 1 are the coordinator's


def calibrate(message: Message, context: Context) -> Message:
    """Run the graph on some of the device's own data and reply with the ranges.

    Guarantee: the reply depends on the message and the device's data alone; it holds
    at most two numbers per tensor, whatever the graph computes.

    Raises:
        PeerError: the request is malformed, or the graph fails or gives no ranges.
        VerificationError: the graph is none of those that the owner allows.
        DataError, VerificationError: the graph is refused by `check_model`.
    """
    request, device = CalibrateRequest.from_content(message.content), Device.of(context)
    device.check_allowed(hashlib.sha256(request.graph).hexdigest())
    check_model(request.graph)
    raw, normalization = _examples(request, device)
    try:
        places = _places(_outputs(request, raw, normalization), request)
    except Exception as exc:  # its words could hold private data
        logger.debug("calibration failed", exc_info=exc)
        raise PeerError(
            "calibration: the server's graph cannot be run on this device, takes too "
            "long, or gives no ranges; this device's own log says more"
        ) from None
    reply = CalibrateReply(places, float(len(raw)))
    return Message(reply.to_content(), reply_to=message)


def _examples(
    request: CalibrateRequest, device: Device
) -> tuple[AnyArray, Normalization]:
    """Return some of the device's raw examples, the same ones each time."""
    task = from_json(ClientTask, request.task)
    data = load(task.data, root=device.data_root, allow=device.allow)
    own = client_examples(
        data,
        task.partition,
        num_clients=task.num_devices,
        seed=task.seed,
        client_index=device.partition_id,
    )
    if min(request.num_examples, len(own)) == 0:
        raise PeerError("calibration: this device has no examples")
    rng = generator(task.seed, Purpose.MODEL, _CALIBRATION, device.partition_id)
    return own.draw(request.num_examples, rng).features, data.info.normalization


def _outputs(
    request: CalibrateRequest, raw: AnyArray, normalization: Normalization
) -> AnyArray:
    """Return what the graph gives for each batch, shape (batches, 2k)."""
    per_trial = max(1, MAX_PACKED_BYTES // max(raw[:1].nbytes, 1))
    if per_trial > _BATCH_SIZE:
        per_trial -= per_trial % _BATCH_SIZE
    end = time.monotonic() + TIMEOUT_SECONDS  # of all trials together
    with tempfile.TemporaryDirectory(prefix="fedge.") as folder:
        path = Path(folder, "graph.onnx")
        path.write_bytes(request.graph)
        parts = [
            _trial(path, raw[start : start + per_trial], normalization, end)
            for start in range(0, len(raw), per_trial)
        ]
    widths = {part.shape[1:] for part in parts}
    if widths != {(2 * request.num_tensors,)}:
        raise PeerError(
            f"calibration: the graph does not give {2 * request.num_tensors} numbers "
            f"per batch"
        )
    return np.concatenate(parts)


def _trial(
    path: Path, raw: AnyArray, normalization: Normalization, end: float
) -> AnyArray:
    seconds = max(1.0, end - time.monotonic())
    job = Job(
        model=str(path),
        inputs=PackedArray.pack(raw),
        mean=normalization.mean,
        std=normalization.std,
        repeats=1,
        memory_mb=MEMORY_MB,
        cpu_seconds=math.ceil(seconds),
        batch_size=_BATCH_SIZE,
    )
    return run_trial(job, timeout_seconds=seconds).outputs.unpack()


def _places(outputs: AnyArray, request: CalibrateRequest) -> Float32:
    least, largest = np.split(outputs.astype(np.float64), 2, axis=1)
    places = encode(least.min(axis=0), largest.max(axis=0))
    return places * np.float32(request.scale)
