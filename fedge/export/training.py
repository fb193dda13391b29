"""A network's training step, and its outputs, as ONNX graphs for devices without torch.

A graph holds no weights: model, optimizer state and running statistics are inputs and
outputs, so one file of some kilobytes serves a whole run and every device, with any
batch size. Not in here: whether the graph does what PyTorch does
(fedge/train/graphs.py), and running it (fedge/runtime/training.py).

Source: torch.func.grad_and_value; make_fx traces the gradient into the graph.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedge.config.experiment import to_json
from fedge.errors import CompressionError, FedgeError
from fedge.export.decompositions import decompositions
from fedge.export.quiet import quiet_exporter
from fedge.export.step import Loss, ModelOutputs, check_traceable, make_step, open_twin
from fedge.export.strip import strip
from fedge.runtime.graph import METADATA, GraphInfo
from fedge.runtime.graph_check import check_graph

_MAX_TRACED = 4_000  # operations; the exporter takes about 10 ms for each
_FIRST_BATCH = 7


def training_graph(model: nn.Module, info: GraphInfo, loss: Loss) -> bytes:
    """Return one optimizer step of the network as an ONNX file.

    Guarantee: equal networks and infos give equal bytes, whatever the weights; the
    network is left as it was; the file passes the checks of a device and names no path,
    source line or stack trace.

    Args:
        model: the network.
        info: what the step is to take.
        loss: the mean loss of a batch.

    Raises:
        CompressionError: the network is outside the limits; the message says why.
    """
    check_traceable(model)
    examples = _examples(info)
    step = make_step(open_twin(model), info, loss)
    with _tracing():
        try:
            traced = make_fx(
                torch.func.functionalize(step),
                decomposition_table=decompositions(),
                tracing_mode="symbolic",
            )(*examples)
        except FedgeError:
            raise
        except Exception as exc:
            raise _refusal(model, exc) from exc
    _check_traced(traced)
    return _exported(traced.eval(), info, examples, model)


def evaluation_graph(model: nn.Module, info: GraphInfo) -> bytes:
    """Return the network's outputs, in evaluation mode, as an ONNX file.

    Guarantees and errors: as `training_graph`.
    """
    return _exported(ModelOutputs(model, info).eval(), info, _examples(info), model)


def _examples(info: GraphInfo) -> tuple[Tensor, ...]:
    """Return inputs for tracing; the batch has a size that nothing else has."""
    ports = info.inputs()
    sides = {side for _, shape in ports.values() for side in shape}
    sides |= {side for shape in info.shapes for side in shape}
    batch = next(
        n for n in range(_FIRST_BATCH, _FIRST_BATCH + len(sides) + 1) if n not in sides
    )
    return tuple(
        torch.zeros(
            [batch if side is None else side for side in shape],
            dtype=getattr(torch, dtype.name),
        )
        for dtype, shape in ports.values()
    )


def _check_traced(traced: GraphModule) -> None:
    called = [node for node in traced.graph.nodes if node.op == "call_function"]
    if len(called) > _MAX_TRACED:
        raise CompressionError(
            f"a training step has {len(called)} operations, at most {_MAX_TRACED}; use "
            f"shorter sequences or fewer layers"
        )
    for node in called:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise CompressionError(
                f"{node.target}: a training graph has no random numbers"
            )
        if "batch_norm" in str(node.target):
            raise CompressionError(
                "batch normalization outside of torch.nn.BatchNorm layers is exported "
                "wrongly; use those layers"
            )


def _exported(
    module: nn.Module, info: GraphInfo, examples: Sequence[Tensor], model: nn.Module
) -> bytes:
    ports = info.inputs()
    batch = torch.export.Dim("batch", min=1)
    dynamic = tuple(
        {0: batch} if None in shape else None for _, shape in ports.values()
    )
    with _tracing():
        try:
            program = torch.onnx.export(
                module,
                tuple(examples),
                dynamo=True,
                optimize=True,
                dynamic_shapes=dynamic,
                input_names=list(ports),
                output_names=list(info.outputs()),
                external_data=False,
                verbose=False,
            )
        except Exception as exc:
            raise _refusal(model, exc) from exc
    if program is None:
        raise CompressionError(f"{type(model).__name__}: the exporter returned none")
    described = _described(strip(program.model_proto.SerializeToString()), info)
    check_graph(described, name=METADATA)
    return described


def _described(model: bytes, info: GraphInfo) -> bytes:
    parsed = onnx.load_model_from_string(model)
    parsed.metadata_props.add(key=METADATA, value=to_json(info))
    result: bytes = parsed.SerializeToString(deterministic=True)
    return result


def _refusal(model: nn.Module, exc: Exception) -> CompressionError:
    reason = str(exc).strip().partition("\n")[0][:200]
    return CompressionError(
        f"{type(model).__name__} cannot be made a graph: {type(exc).__name__}: {reason}"
    )


@contextmanager
def _tracing() -> Iterator[None]:
    """Keep PyTorch from fusing what must be seen, and from talking about it."""
    with warnings.catch_warnings(), torch.no_grad(), quiet_exporter():
        warnings.filterwarnings("ignore", "TF32 acceleration", UserWarning)
        warnings.filterwarnings("ignore", "# The axis name", UserWarning)
        with (
            torch.backends.mkldnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
        ):
            yield
