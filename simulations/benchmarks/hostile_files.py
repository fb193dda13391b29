"""Bytes that somebody hostile would hand to a parser of models: small, and expensive.

Each is a function that makes the bytes, so that a list of them costs nothing.
"""

import struct
from collections.abc import Callable, Mapping

import numpy as np
import zstandard
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fedge.arrays import AnyArray
from fedge.compress.delta import make_delta
from fedge.compress.pack import pack

Maker = Callable[[], bytes]

_GIGA, _MEGA = 1 << 30, 1 << 20


def good_model() -> bytes:
    """Return a model that nobody should refuse: float32 (n, 4) to (n, 3)."""
    weights = np.ones((4, 3), np.float32)
    return _model(_op("MatMul", "x w", "y"), w=weights)


def _op(kind: str, inputs: str, output: str) -> NodeProto:
    return helper.make_node(kind, inputs.split(), [output])


def _model(*nodes: NodeProto, **constants: AnyArray) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(made.SerializeToString())


def _sides(*sides: int) -> AnyArray:
    return np.array(sides, np.int64)


def _with_weights(change: Callable[[TensorProto], object]) -> bytes:
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    change(weights)
    graph = helper.make_graph(
        [_op("MatMul", "x w", "y")],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    return bytes(helper.make_model(graph, ir_version=8).SerializeToString())


def _claims_huge(weights: TensorProto) -> None:
    weights.dims[0] = 1 << 40


def _points_elsewhere(weights: TensorProto) -> None:
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")


def _loop() -> bytes:
    sides = [1]
    number = helper.make_tensor_value_info
    body = helper.make_graph(
        [_op("Identity", "c", "c_out"), _op("ConstantOfShape", "s", "v_out")],
        "body",
        [number("i", TensorProto.INT64, []), number("c", TensorProto.BOOL, [])],
        [number("c_out", TensorProto.BOOL, []), number("v_out", 1, sides)],
        [numpy_helper.from_array(_sides(_MEGA), "s")],
    )
    loop = helper.make_node("Loop", ["turns", "go"], ["y"], body=body)
    return _model(loop, turns=np.array(1 << 40), go=np.array(True))


def _fixed_shape() -> bytes:
    """The shape of an input without open sides, which a runtime knows when it loads."""
    graph = helper.make_graph(
        [
            _op("Mul", "x w", "a"),
            _op("Shape", "a", "s"),
            _op("ConstantOfShape", "s", "c"),
            _op("Add", "x c", "y"),
        ],
        "hostile",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1 << 14, 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((1, 1 << 14), np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return bytes(made.SerializeToString())


def _squares() -> bytes:
    """A size that doubles its digits with every operator."""
    nodes = [_op("Mul", f"c{i} c{i}", f"c{i + 1}") for i in range(60)]
    return _model(*nodes, _op("Tile", "x c60", "y"), c0=_sides(2, 2))


def _chain(kind: str, count: int) -> bytes:
    """A constant that each of many operators makes a thousand times larger."""
    nodes = [_op(kind, f"c{i} s", f"c{i + 1}") for i in range(count)]
    end = _op("Add", f"x c{count}", "y")
    return _model(*nodes, end, c0=np.ones(1, np.float32), s=_sides(1000))


def _field(number: int, payload: bytes) -> bytes:
    size, varint = len(payload), b""
    while True:
        varint += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 & 0x7F | 2]) + varint + payload


def _nested() -> bytes:
    graph = b""
    for _ in range(10_000):  # graph <- attribute <- operator <- graph
        graph = _field(1, _field(5, _field(6, graph)))
    return _field(7, graph)


def _small_numbers() -> bytes:
    """20 MB of one-byte numbers, each of which becomes eight bytes."""
    count = 20_000_000
    tensor = b"\x08" + b"\x80\xda\xc4\x09" + b"\x10\x07" + _field(7, bytes(count))
    return _field(7, _field(5, tensor) + _field(1, _field(4, b"Neg")))


def _nan(value: float) -> AnyArray:
    weights = np.ones((4, 3), np.float32)
    weights[3, 2] = value
    return weights


def onnx_files() -> Mapping[str, Maker]:
    """Return hostile ONNX files by name."""
    outer = np.ones((1 << 14, 1), np.float32)
    matmul = _op("MatMul", "x w", "y")
    make, end = _op("ConstantOfShape", "s", "c"), _op("Add", "x c", "y")
    cuts = {
        f"cut off after {1 << power} bytes": _cut(power)
        for power in range(len(good_model()).bit_length())
    }
    return {
        **cuts,
        "nothing": lambda: b"",
        "rubbish": lambda: np.random.default_rng(0).bytes(_MEGA),
        "zeros": lambda: bytes(16 * _MEGA),
        "followed by rubbish": lambda: good_model() + b"\x07rubbish",
        "twice in one file": lambda: good_model() + good_model(),
        "weights claim 2^40 rows": lambda: _with_weights(_claims_huge),
        "weights in another file": lambda: _with_weights(_points_elsewhere),
        "NaN weights": lambda: _model(matmul, w=_nan(np.nan)),
        "infinite weights": lambda: _model(matmul, w=_nan(np.inf)),
        "ConstantOfShape 2^40": lambda: _model(make, end, s=_sides(_MEGA, _MEGA)),
        "ConstantOfShape 2^28": lambda: _model(make, end, s=_sides(1 << 28)),
        "Expand to 2^28": lambda: _model(
            _op("Expand", "a s", "c"), end, a=np.ones(1, np.float32), s=_sides(1 << 28)
        ),
        "Tile in a chain": lambda: _chain("Tile", 5),
        "outer product": lambda: _model(
            _op("MatMul", "a b", "c"), end, a=outer, b=outer.reshape(1, -1)
        ),
        "Range to 2^40": lambda: _model(
            _op("Range", "a b d", "c"),
            end,
            a=np.array(0),
            b=np.array(1 << 40),
            d=np.array(1),
        ),
        "a fixed shape, folded": _fixed_shape,
        "a size squared 60 times": _squares,
        "Loop of 2^40 turns": _loop,
        "nested 30 000 deep": _nested,
        "two million empty operators": lambda: _field(7, b"\x0a\x00" * 2_000_000),
        "20 MB of small numbers": _small_numbers,
        "larger than is accepted": lambda: bytes((1 << 28) + 1),
    }


def trial_files() -> Mapping[str, Maker]:
    """Return models that only a trial run finds out, by name: they grow with the input.

    The health check runs them in a limited child process.
    """
    steps = [_op("Sub", "x x", "v0")]
    for i in range(40):
        made = helper.make_node("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0)
        steps.append(made)
    total = helper.make_node("ReduceSum", ["v40"], ["c"], keepdims=0)
    doubling = _model(*steps, total, _op("Add", "x c", "y"))
    return {"doubles its input 40 times": lambda: doubling}


def _cut(power: int) -> Maker:
    return lambda: good_model()[: 1 << power]


def _zeros(num_bytes: int) -> bytes:
    """Return a zstd frame of that many zeros, which states its size."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=num_bytes)
    parts = [compressor.compress(bytes(_MEGA)) for _ in range(num_bytes // _MEGA)]
    return b"".join([*parts, compressor.flush()])


def _unstated() -> bytes:
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    parts = [compressor.compress(bytes(_MEGA)) for _ in range(1024)]
    return b"".join([*parts, compressor.flush()])


def _understated() -> bytes:
    """A frame that states a megabyte and holds a gigabyte."""
    frame = bytearray(_zeros(_GIGA))
    at = frame.index(struct.pack("<I", _GIGA))
    frame[at : at + 4] = struct.pack("<I", _MEGA)
    return bytes(frame)


def packed_files() -> Mapping[str, Maker]:
    """Return hostile packed models by name."""
    good = pack(good_model() * 100, level=3)
    cuts = {
        f"cut off after {1 << power} bytes": _part(good, power)
        for power in range(len(good).bit_length())
    }
    return {
        **cuts,
        "nothing": lambda: b"",
        "rubbish": lambda: np.random.default_rng(0).bytes(_MEGA),
        "bomb of 1 GiB": lambda: _zeros(_GIGA),
        "bomb of 200 MiB": lambda: _zeros(200 * _MEGA),
        "bomb that states no size": _unstated,
        "bomb that states another size": _understated,
        "followed by rubbish": lambda: good + b"rubbish",
        "two frames": lambda: good + good,
    }


def _part(data: bytes, power: int) -> Maker:
    return lambda: data[: 1 << power]


def delta_files(base: bytes) -> Mapping[str, Maker]:
    """Return hostile deltas by name, for a device that has `base`."""
    good = make_delta(base, bytes(reversed(base)), level=3)
    head = good[:73]
    return {
        **{
            f"cut off after {1 << power} bytes": _part(good, power)
            for power in range(len(good).bit_length())
        },
        "rubbish": lambda: np.random.default_rng(0).bytes(_MEGA),
        "difference is a bomb": lambda: head + _zeros(_GIGA),
        "whole file is a bomb": lambda: b"FEDGE-D1f" + head[9:] + _zeros(200 * _MEGA),
        "followed by rubbish": lambda: good + b"rubbish",
    }


def array_files() -> Mapping[str, Maker]:
    """Return hostile numpy payloads of a Flower array by name."""

    def header(text: str, payload: bytes = b"") -> bytes:
        line = text.encode() + b" \n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + payload

    def of(shape: str, descr: str = "<f4") -> str:
        return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"

    return {
        "nothing": lambda: b"",
        "claims 2^40 values": lambda: header(of("(1099511627776,)"), bytes(64)),
        "objects": lambda: header(of("(4,)", "|O"), bytes(64)),
        "a header of 60 kB": lambda: header(" " * 60_000),
        "many axes": lambda: header(of("(" + "1, " * 1000 + ")"), bytes(4)),
        "too few values": lambda: header(of("(4,)"), bytes(15)),
    }


def metadata_files() -> Mapping[str, Maker]:
    """Return hostile release metadata by name."""
    return {
        "nothing": lambda: b"",
        "nested": lambda: b"[" * 4_000_000,
        "millions of objects": lambda: b"[" + b"{}," * 1_600_000 + b"{}]",
        "larger than is accepted": lambda: b" " * 5_000_001,
    }
