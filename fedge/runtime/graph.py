"""Graphs that train or judge a model with ONNX Runtime alone: form, checks, loading.

A graph is an ONNX file that says of itself what model it is for and which inputs it
takes (`GraphInfo`, JSON in its metadata). The model is fed as the flat vector of its
trainable values and the vector of its buffers; the batch may have any size. Who makes
such files: fedge/export/training.py.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fedge.arrays import AnyArray, ArraySpec, Float32, ModelSpec
from fedge.config import OptimizerName, Task
from fedge.config.experiment import from_json
from fedge.errors import ConfigError, VerificationError
from fedge.runtime.graph_check import check_graph
from fedge.runtime.opening import first_line
from fedge.runtime.session import open_bounded_session, runtime_errors

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, RunOptions

logger = logging.getLogger(__name__)

METADATA = "fedge.graph"
VERSION = 1
MAX_COORDINATES = 1 << 28
MAX_SECONDS = 3600.0  # of one message, whatever the server asks for

_DTYPES = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(bool)": np.dtype(np.bool_),
}

Run = Callable[[Mapping[str, AnyArray]], list[Float32]]
# Dtype and shape of an input; None is the number of examples.
Port = tuple[np.dtype[Any], tuple[int | None, ...]]


class GraphKind(StrEnum):
    """What a graph computes."""

    train = auto()  # one optimizer step
    evaluate = auto()  # the model's outputs


@dataclass(slots=True, kw_only=True)
class GraphInfo:
    """What a graph says of itself.

    Attributes:
        version: of this form.
        kind: what it computes.
        task: what is predicted.
        tokens: whether inputs are int64 tokens; float32 numbers if not.
        input_shape, target_shape: of one example.
        names, shapes, prunable: of the model's arrays, in the order of the vector.
        num_trainable: so many arrays come first and are trained.
        optimizer: what a step is.
        momentum, weight_decay, clip_norm: whether a step takes this setting.
        proximal: whether it takes the proximal term's weight and centre.
        masked: whether it takes a pruning mask.
        batch_norm: whether it changes running statistics.
    """

    version: int = VERSION
    kind: GraphKind
    task: Task
    tokens: bool
    input_shape: list[int]
    target_shape: list[int]
    names: list[str]
    shapes: list[list[int]]
    prunable: list[bool]
    num_trainable: int
    optimizer: OptimizerName = OptimizerName.sgd
    momentum: bool = False
    weight_decay: bool = False
    clip_norm: bool = False
    proximal: bool = False
    masked: bool = False
    batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigError(f"graph: version {self.version}, need {VERSION}")
        if not len(self.names) == len(self.shapes) == len(self.prunable):
            raise ConfigError("graph: names, shapes and prunable differ in length")
        sides = [side for shape in self.shapes for side in shape]
        if not all(0 <= side <= MAX_COORDINATES for side in sides):
            raise ConfigError("graph: a shape is out of range")
        if len(set(self.names)) != len(self.names):
            raise ConfigError("graph: two arrays have one name")
        if not 0 <= self.num_trainable <= len(self.names):
            raise ConfigError(f"graph: num_trainable {self.num_trainable} out of range")
        if self.spec.size > MAX_COORDINATES:
            raise ConfigError(f"graph: more than {MAX_COORDINATES} coordinates")

    @property
    def spec(self) -> ModelSpec:
        """How the model lies in the flat vector."""
        rows = zip(self.names, self.shapes, self.prunable, strict=True)
        return ModelSpec(
            tuple(
                ArraySpec(name, tuple(shape), index < self.num_trainable, prunable)
                for index, (name, shape, prunable) in enumerate(rows)
            )
        )

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the optimizer's vectors, which begin as zeros."""
        if self.optimizer is OptimizerName.adam:
            return ("mean", "square")
        return ("velocity",) if self.momentum else ()

    def scalars(self) -> tuple[str, ...]:
        """Names of the numbers that a step takes."""
        adam = self.optimizer is OptimizerName.adam
        chosen = {
            "learning_rate": True,
            "correction": adam,
            "epsilon": adam,  # as a constant the exporter takes it for 0
            "momentum": self.momentum and not adam,
            "weight_decay": self.weight_decay,
            "clip_norm": self.clip_norm,
            "proximal_mu": self.proximal,
        }
        return tuple(name for name, is_taken in chosen.items() if is_taken)

    @property
    def target_port(self) -> Port:
        """Dtype and shape of the targets."""
        kind = np.float32 if self.task is Task.regression else np.int64
        return np.dtype(kind), (None, *self.target_shape)

    def inputs(self) -> dict[str, Port]:
        """Return what the graph takes, in this order."""
        spec = self.spec
        real, flag = np.dtype(np.float32), np.dtype(np.bool_)
        features = np.dtype(np.int64) if self.tokens else real
        whole = (spec.num_trainable,)
        ports: dict[str, Port] = {
            "x": (features, (None, *self.input_shape)),
            "params": (real, whole),
        }
        if spec.size > spec.num_trainable:
            ports["buffers"] = (real, (spec.size - spec.num_trainable,))
        if self.kind is GraphKind.evaluate:
            return ports
        ports["y"] = self.target_port
        ports |= dict.fromkeys(self.scalars(), (real, ()))
        ports |= dict.fromkeys(self.states, (real, whole))
        if self.proximal:
            ports["start"] = (real, whole)
        if self.masked:
            ports["mask"] = (flag, whole)
        if self.batch_norm:
            ports["frozen"] = (flag, ())
        return ports

    def outputs(self) -> tuple[str, ...]:
        """Return the names of what the graph gives, in this order."""
        if self.kind is GraphKind.evaluate:
            return ("output",)
        buffers = ("buffers",) if self.batch_norm else ()
        return ("loss", *(f"new_{n}" for n in ("params", *self.states, *buffers)))


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph that was checked and is ready to run.

    Attributes:
        info: what it says of itself.
        spec: of its model.
    """

    info: GraphInfo
    spec: ModelSpec
    _session: "InferenceSession"

    @contextmanager
    def running(self, *, seconds: float = MAX_SECONDS) -> Iterator[Run]:
        """Let the graph be run, as often as one likes, for so long in all.

        Raises:
            VerificationError: when run: it failed, the time is over, or an output is
                not float32. Whoever made the graph can choose what the runtime
                complains of, and so write this device's data into its words: they
                must not leave (`saying_nothing`).
        """
        import onnxruntime

        options = onnxruntime.RunOptions()
        timer = threading.Timer(seconds, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            yield partial(self._run, options)
        finally:
            timer.cancel()

    def _run(
        self, options: "RunOptions", feeds: Mapping[str, AnyArray]
    ) -> list[Float32]:
        """Return the outputs, in the order of `info.outputs()`."""
        try:
            outputs: list[Float32] = self._session.run(None, dict(feeds), options)
        except runtime_errors() as exc:
            raise VerificationError(f"graph failed: {first_line(exc)}") from exc
        if any(output.dtype != np.float32 for output in outputs):
            raise VerificationError("the server's graph gives other than float32")
        return outputs


@contextmanager
def saying_nothing(kind: GraphKind) -> Iterator[None]:
    """Let no error's text leave this block: it could hold private data.

    A graph from a server can make an index, a shape or a count out of the examples, and
    the error that follows would name it to the server, in the clear.

    Raises:
        VerificationError: with the same words for whatever went wrong; what it was is
            in this device's own log (DEBUG).
    """
    try:
        yield
    except Exception as exc:  # whatever it says, it is not passed on
        logger.debug("the server's %s graph failed", kind, exc_info=exc)
        raise VerificationError(
            f"the server's {kind} graph failed on this device, took too long, or gave "
            f"values that are not finite or of other shapes (is train.learning_rate "
            f"too high?); this device's own log says more"
        ) from None


def load_graph(model: bytes, kind: GraphKind) -> Graph:
    """Return the graph in an ONNX file that a server sent, ready to run.

    Guarantee: nothing is computed before size, operators, names, types and shapes of
    inputs and outputs were checked; it runs in one thread and bounded memory.

    Args:
        model: the file, unpacked.
        kind: what it must compute.

    Raises:
        VerificationError: something in it is not allowed or not what it says.
        ConfigError: what it says of itself is malformed.
        DataError: not ONNX, or the runtime cannot load it.
    """
    info = from_json(GraphInfo, check_graph(model, name=METADATA))
    if info.kind is not kind:
        raise VerificationError(f"graph: made to {info.kind}, need one to {kind}")
    session = open_bounded_session(model)
    _check_inputs(session.get_inputs(), info.inputs())
    found = tuple(output.name for output in session.get_outputs())
    if found != info.outputs():
        raise VerificationError(f"graph: outputs {_shown(found)}, declared otherwise")
    return Graph(info, info.spec, session)


def _check_inputs(found: Sequence[Any], declared: Mapping[str, Port]) -> None:
    names = [port.name for port in found]
    if sorted(names) != sorted(declared):
        raise VerificationError(f"graph: inputs {_shown(names)}, declared otherwise")
    for port in found:
        dtype, shape = declared[port.name]
        sides = tuple(s if isinstance(s, int) else None for s in port.shape)
        if _DTYPES.get(port.type) != dtype or sides != shape:
            raise VerificationError(
                f"graph: input {port.name!r} is {port.type[:40]} {sides}, declared "
                f"{dtype} {shape}"
            )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:20])
