"""One device in a process of its own: what it answers, how fast, and in what memory.

    python -m simulations.benchmarks.torch_free_client FOLDER {torch,onnx} REPEATS

`FOLDER` holds the data and the messages that `torch_free` wrote. The onnx client runs
as if PyTorch and the onnx package were not installed: importing them fails. Prints one
JSON object.
"""

import importlib.abc
import json
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from flwr.app import RecordDict

    from fedge.data.dataset import FederatedData
    from fedge.flower import LocalGrid

DATA, MESSAGES = "digits.npz", ("train", "evaluate")
LOADER = "simulations.benchmarks.torch_free_client:load_saved"
_REFUSED = ("torch", "onnx")


class Refuse(importlib.abc.MetaPathFinder):
    """Fails to find packages, as if they were not installed."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Raise ModuleNotFoundError for a refused package."""
        if fullname.partition(".")[0] in _REFUSED:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return None


def save_data(folder: Path) -> None:
    """Write the digits where `load_saved` finds them: a device has no scikit-learn."""
    from fedge.data.digits import load_digits

    data = load_digits()
    norm = data.info.normalization
    np.savez(
        folder / DATA,
        train_features=data.train.features,
        train_targets=data.train.targets,
        test_features=data.test.features,
        test_targets=data.test.targets,
        mean=norm.mean,
        std=norm.std,
    )


def load_saved(root: Path | None) -> "FederatedData":
    """Return the digits that were saved in a folder (a loader of `data.loader`)."""
    from fedge.config import DataKind, Task
    from fedge.data.dataset import NOBODY, DataInfo, Examples, FederatedData
    from fedge.errors import DataError
    from fedge.runtime.preprocess import Normalization

    if root is None:
        raise DataError("saved digits: there is no folder")
    with np.load(root / DATA) as saved:
        arrays = dict(saved)
    info = DataInfo(
        name="digits",
        kind=DataKind.image,
        task=Task.classification,
        input_shape=(1, 8, 8),
        num_outputs=10,
        output_names=tuple("0123456789"),
        normalization=Normalization(
            tuple(arrays["mean"].tolist()), tuple(arrays["std"].tolist())
        ),
    )
    train, test = (
        Examples(arrays[f"{part}_features"], arrays[f"{part}_targets"])
        for part in ("train", "test")
    )
    return FederatedData(info, train, test, NOBODY)


def write_message(content: "RecordDict", folder: Path, name: str) -> None:
    """Write a message's content into files of a folder."""
    from fedge.flower.codec import Blobs, encode_content, to_text

    blobs = Blobs()
    (folder / f"{name}.json").write_bytes(to_text(encode_content(content, blobs)))
    for number, blob in enumerate(blobs.items):
        (folder / f"{name}.{number}.bin").write_bytes(blob)


def read_message(folder: Path, name: str) -> "RecordDict":
    """Return what `write_message` wrote."""
    from fedge.flower.codec import decode_content, from_text

    count = len(list(folder.glob(f"{name}.*.bin")))
    blobs = [(folder / f"{name}.{i}.bin").read_bytes() for i in range(count)]
    return decode_content(from_text((folder / f"{name}.json").read_bytes()), blobs)


def main(folder: Path, backend: str, repeats: int) -> None:
    """Answer the messages; print what it took."""
    if backend == "onnx":
        sys.meta_path.insert(0, Refuse())
    from clients.app import app
    from fedge.flower import LocalGrid

    config: dict[str, bool | int | float | str] = {
        "data-root": str(folder),
        "allow": "simulations",
        "secagg": "optional",
        "train-backend": backend,
    }
    with LocalGrid(app, num_clients=1, workers=0, node_config=lambda _: config) as grid:
        found = _measured(grid, folder, repeats)
    loaded = set(_REFUSED) & set(sys.modules)
    if backend == "onnx" and loaded:
        raise RuntimeError(f"the client without PyTorch has loaded {loaded}")
    print(json.dumps(found))


def _measured(grid: "LocalGrid", folder: Path, repeats: int) -> dict[str, float]:
    """Ask for training, evaluation, and training again, to see how long it takes."""
    from fedge.flower.wire import EvaluateReply, TrainReply
    from fedge.runtime.limits import peak_memory_mb

    train, evaluate = (read_message(folder, name) for name in MESSAGES)
    first, first_seconds = _ask(grid, train, "train")
    judged = EvaluateReply.from_content(_ask(grid, evaluate, "evaluate")[0])
    peak_mb = peak_memory_mb()
    seconds = [_ask(grid, train, "train")[1] for _ in range(repeats)]
    (size,) = first.array_records["arrays"]["delta"].shape
    reply = TrainReply.from_content(first, size=size)
    return {
        "peak_mb": peak_mb,
        "first_seconds": first_seconds,
        "train_seconds": min(seconds),  # what else runs here only adds
        "loss": reply.loss,
        "delta_norm": float(np.linalg.norm(reply.delta)),
        "score": judged.score,
    }


def _ask(
    grid: "LocalGrid", content: "RecordDict", kind: str
) -> tuple["RecordDict", float]:
    """Return the device's answer and how many seconds it took."""
    from flwr.app import Message

    from fedge.flower.records import content_of_reply

    message = Message(content, min(grid.get_node_ids()), kind)
    started = time.perf_counter()
    (reply,) = grid.send_and_receive([message])
    return content_of_reply(reply), time.perf_counter() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
