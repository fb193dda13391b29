from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fedge.errors import DataError, VerificationError
from fedge.runtime.onnx_file import read_onnx
from fedge.runtime.protobuf import MAX_FIELDS
from tests.fedge.runtime.onnx_models import (
    WEIGHTS,
    external_tensor,
    linear_model,
    linear_proto,
    model_proto,
)

EXTERNAL = external_tensor("w", "other.bin")
CONSTANT = helper.make_node("Constant", [], ["w"], value=EXTERNAL)
PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])


def in_a_subgraph() -> onnx.ModelProto:
    branch = helper.make_graph([CONSTANT, PRODUCT], "branch", [], [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    return model_proto([node])


def in_a_function() -> onnx.ModelProto:
    model = linear_proto()
    model.functions.add(name="f", domain="d").node.append(CONSTANT)
    return model


def in_a_sparse_tensor() -> onnx.ModelProto:
    model = linear_proto()
    model.graph.sparse_initializer.add().values.CopyFrom(EXTERNAL)
    return model


def in_a_list_of_tensors() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    node.attribute.add(name="many").tensors.append(EXTERNAL)
    return model_proto([node])


def in_training_information() -> onnx.ModelProto:
    model = linear_proto()
    model.training_info.add().algorithm.initializer.append(EXTERNAL)
    return model


def with_a_location_but_no_flag() -> onnx.ModelProto:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.external_data.add(key="location", value="other.bin")
    return model_proto([PRODUCT], [tensor])


@pytest.mark.parametrize(
    "model",
    [
        model_proto([PRODUCT], [EXTERNAL]),
        model_proto([CONSTANT, PRODUCT]),
        with_a_location_but_no_flag(),
    ],
)
def test_onnx_file_is_found_wherever_it_hides(model: onnx.ModelProto) -> None:
    with pytest.raises(VerificationError, match="external data"):
        read_onnx(model.SerializeToString())


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (in_a_subgraph(), "subgraphs"),
        (in_a_function(), "functions"),
        (in_a_sparse_tensor(), "sparse tensors"),
        (in_a_list_of_tensors(), "lists of tensors"),
        (in_training_information(), "training steps"),
    ],
)
def test_what_could_hide_a_tensor_is_refused_whole(
    model: onnx.ModelProto, what: str
) -> None:
    with pytest.raises(DataError, match=what):
        read_onnx(model.SerializeToString())


def test_what_is_read_is_what_was_written() -> None:
    found = read_onnx(linear_model())
    assert [node.op_type for node in found.nodes] == ["MatMul"]
    assert found.nodes[0].inputs == ("x", "w")
    assert found.outputs == ("y",)
    (weights,) = found.tensors
    assert (weights.name, weights.dims, weights.dtype) == ("w", (4, 3), 1)
    assert weights.raw is not None
    assert bytes(weights.raw) == WEIGHTS.tobytes()


def test_a_field_that_is_there_twice_is_refused() -> None:
    # Protobuf would merge the two graphs, and take the last of two types.
    with pytest.raises(DataError, match="there twice"):
        read_onnx(linear_model() + linear_model())


def test_a_model_in_one_file_passes() -> None:
    read_onnx(linear_model())


def test_a_model_that_says_it_is_not_external_passes() -> None:
    tensor = numpy_helper.from_array(WEIGHTS, "w")
    tensor.data_location = TensorProto.DEFAULT
    read_onnx(model_proto([PRODUCT], [tensor]).SerializeToString())


def test_large_weights_are_stepped_over() -> None:
    weights = np.zeros((1000, 1000), np.float32)
    read_onnx(linear_proto(weights).SerializeToString())


@pytest.mark.parametrize("data", [b"rubbish", b"\x0b", b"\x0a\x05ab", b"\xff" * 11])
def test_what_is_no_protobuf_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="not ONNX"):
        read_onnx(data)


def test_every_cut_is_refused_or_ends_between_two_fields() -> None:
    model = linear_model()
    refused = 0
    for size in range(len(model)):
        try:
            read_onnx(model[:size])
        except DataError:
            refused += 1
    assert refused > len(model) / 2


def field(number: int, payload: bytes) -> bytes:
    """One length-delimited field, its size as a varint of three bytes."""
    size = len(payload)
    varint = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    return bytes([number << 3 | 2]) + varint + payload


def test_deep_nesting_is_refused() -> None:
    graph = b""
    for _ in range(1000):  # graph <- attribute <- node <- graph
        graph = field(1, field(5, field(6, graph)))
    with pytest.raises(DataError, match="subgraphs"):
        read_onnx(field(7, graph))


def test_a_file_of_many_empty_operators_is_refused() -> None:
    nodes = b"\x0a\x00" * (MAX_FIELDS + 1)
    with pytest.raises(DataError, match="more than 16384 fields"):
        read_onnx(field(7, nodes))


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200), at=st.integers(0, 150))
def test_rubbish_never_raises_anything_else(data: bytes, at: int) -> None:
    model = linear_model()
    with suppress(DataError, VerificationError):
        read_onnx(model[:at] + data + model[at:])
