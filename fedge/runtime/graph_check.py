"""What is looked at in an ONNX graph from a server before the runtime sees it.

A graph is data, but it decides what a device computes. Only arithmetic of the standard
domain passes: no control flow, no random numbers, no functions, nothing that a plugin
could define, no other files, and not many nodes.
"""

from dataclasses import dataclass

from fedge.errors import VerificationError
from fedge.runtime.external_data import check_single_file
from fedge.runtime.protobuf import fields

MAX_GRAPH_BYTES = 4 << 20  # unpacked; a step of the reference models has 4 to 60 KB
MAX_NODES = 10_000

# What training steps of feed-forward, convolutional, recurrent and attention networks
# are made of, and their forward passes.
_OPERATORS = """
Abs Add And AveragePool BatchNormalization Cast Ceil Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos CumSum Div Elu Equal Erf Exp Expand Flatten
Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Greater
GreaterOrEqual HardSigmoid HardSwish Identity LSTM LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax MatMul Max MaxPool Mean Min Mod Mul Neg Not Or PRelu Pad
Pow Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
ReduceSumSquare Relu Reshape ScatterElements ScatterND Selu Shape Sigmoid Sign Sin
Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Trilu
Unsqueeze Where Xor
"""
OPERATORS = frozenset(_OPERATORS.split())
_STANDARD_DOMAINS = frozenset((b"", b"ai.onnx"))

# Field numbers of onnx.proto3.
_GRAPH, _OPSET, _METADATA, _TRAINING, _FUNCTIONS = 7, 8, 14, 20, 25
_NODE, _OPERATOR, _ATTRIBUTE, _DOMAIN = 1, 4, 5, 7
_SUBGRAPHS = (6, 11)


@dataclass(slots=True)
class _Found:
    num_nodes: int = 0


def check_graph(model: bytes, *, name: str) -> str:
    """Return the metadata entry called `name` if everything in the file is allowed.

    Args:
        model: an ONNX file's bytes; may come from a stranger.
        name: of the entry that describes the graph.

    Raises:
        VerificationError: it is too large, uses something that is not allowed, refers
            to another file, or does not describe itself exactly once.
        DataError: not ONNX.
    """
    if len(model) > MAX_GRAPH_BYTES:
        raise VerificationError(
            f"graph: {len(model)} bytes, at most {MAX_GRAPH_BYTES} are accepted"
        )
    check_single_file(model)
    described, found = [], _Found()
    for number, value in fields(memoryview(model)):
        if not isinstance(value, memoryview):
            continue
        if number in (_TRAINING, _FUNCTIONS):
            raise VerificationError("graph: functions and training info are refused")
        if number == _OPSET:
            _check_domains(value, field=1)
        elif number == _GRAPH:
            _check_nodes(value, found)
        elif number == _METADATA:
            key, text = _entry(value)
            described += [text] if key == name.encode() else []
    if len(described) != 1:
        raise VerificationError(f"graph: {len(described)} entries {name!r}, need one")
    return described[0].decode(errors="replace")


def _check_nodes(graph: memoryview, found: _Found) -> None:
    for number, node in fields(graph):
        if number != _NODE or not isinstance(node, memoryview):
            continue
        found.num_nodes += 1
        if found.num_nodes > MAX_NODES:
            raise VerificationError(f"graph: more than {MAX_NODES} operations")
        _check_domains(node, field=_DOMAIN)
        for part, value in fields(node):
            if not isinstance(value, memoryview):
                continue
            if part == _OPERATOR:
                _check_operator(bytes(value).decode(errors="replace"))
            elif part == _ATTRIBUTE:
                _check_attribute(value)


def _check_operator(name: str) -> None:
    if name not in OPERATORS:
        raise VerificationError(f"graph: operator {name[:40]!r} is not allowed")


def _check_attribute(attribute: memoryview) -> None:
    if any(number in _SUBGRAPHS for number, _ in fields(attribute)):
        raise VerificationError("graph: nested graphs are not allowed")


def _check_domains(message: memoryview, *, field: int) -> None:
    for number, value in fields(message):
        if number == field and isinstance(value, memoryview):
            domain = bytes(value)
            if domain not in _STANDARD_DOMAINS:
                raise VerificationError(f"graph: domain {domain[:40]!r} is not allowed")


def _entry(message: memoryview) -> tuple[bytes, bytes]:
    parts = {n: bytes(v) for n, v in fields(message) if isinstance(v, memoryview)}
    return parts.get(1, b""), parts.get(2, b"")
