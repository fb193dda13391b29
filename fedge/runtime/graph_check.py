"""What is looked at in an ONNX graph from a server before the runtime sees it.

A graph is data, but it decides what a device computes. Only arithmetic of the standard
domain passes: no control flow, no random numbers, no functions, nothing that a plugin
could define, no other files, and not many nodes.
"""

from fedge.errors import DataError, VerificationError
from fedge.runtime.onnx_file import Node, read_onnx
from fedge.runtime.protobuf import FieldBudget, fields

MAX_GRAPH_BYTES = 4 << 20  # unpacked; a step of the reference models has 4 to 60 KB
MAX_NODES = 10_000
_MAX_FIELDS = 16 * MAX_NODES  # a node has about ten

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
_STANDARD_DOMAINS = ("", "ai.onnx")

# Field numbers of a model in onnx.proto3.
_OPSET, _METADATA, _TRAINING, _FUNCTIONS = 8, 14, 20, 25
_DOMAIN = 1


def check_graph(model: bytes, *, name: str) -> str:
    """Return the metadata entry called `name` if everything in the file is allowed.

    Args:
        model: an ONNX file's bytes; may come from a stranger.
        name: of the entry that describes the graph.

    Raises:
        VerificationError: it is too large, uses something that is not allowed, refers
            to another file, or does not describe itself exactly once.
        DataError: not ONNX, or it has what `read_onnx` refuses.
    """
    if len(model) > MAX_GRAPH_BYTES:
        raise VerificationError(
            f"graph: {len(model)} bytes, at most {MAX_GRAPH_BYTES} are accepted"
        )
    described = _described(memoryview(model), name.encode())
    found = read_onnx(model, max_fields=_MAX_FIELDS)
    if not found.nodes:
        raise DataError("graph: without operators")
    if len(found.nodes) > MAX_NODES:
        raise VerificationError(f"graph: more than {MAX_NODES} operations")
    for node in found.nodes:
        _check_node(node)
    if len(described) != 1:
        raise VerificationError(f"graph: {len(described)} entries {name!r}, need one")
    return described[0].decode(errors="replace")


def _described(model: memoryview, name: bytes) -> list[bytes]:
    """Return the metadata entries of this name; refuse what a model may not have."""
    found, budget = [], FieldBudget(_MAX_FIELDS)
    for number, _, value in fields(model, budget):
        if not isinstance(value, memoryview):
            continue
        if number in (_TRAINING, _FUNCTIONS):
            raise VerificationError("graph: functions and training info are refused")
        if number == _OPSET:
            parts = {n: v for n, _, v in fields(value, budget)}
            domain = parts.get(_DOMAIN, memoryview(b""))
            if isinstance(domain, memoryview):
                _check_domain(bytes(domain).decode(errors="replace"))
        if number == _METADATA:
            entry = {
                n: bytes(v)
                for n, _, v in fields(value, budget)
                if isinstance(v, memoryview)
            }
            found += [entry.get(2, b"")] if entry.get(1) == name else []
    return found


def _check_node(node: Node) -> None:
    _check_domain(node.domain)
    if node.op_type not in OPERATORS:
        raise VerificationError(f"graph: operator {node.op_type[:40]!r} is not allowed")


def _check_domain(domain: str) -> None:
    if domain not in _STANDARD_DOMAINS:
        raise VerificationError(f"graph: domain {domain[:40]!r} is not allowed")
