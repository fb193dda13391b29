"""A graph from a server: what is refused, and what a loaded one does."""

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from fedge.config.experiment import to_json
from fedge.errors import ConfigError, DataError, FedgeError, VerificationError
from fedge.runtime.graph import METADATA, GraphInfo, GraphKind, load_graph
from fedge.runtime.graph_check import MAX_GRAPH_BYTES, MAX_NODES, check_graph
from tests.fedge.runtime.graphs import file_of, info_of, linear_inputs, linear_step

ADD = helper.make_node("Add", ["params", "params"], ["new_params"])
SUM = helper.make_node("ReduceSum", ["params"], ["loss"], keepdims=0)


def load(model: bytes) -> None:
    load_graph(model, GraphKind.train)


def test_a_sound_graph_is_loaded_and_run() -> None:
    graph = load_graph(linear_step(), GraphKind.train)
    feeds = {
        "x": np.zeros((5, 3), np.float32),
        "y": np.zeros(5, np.float32),
        "params": np.array([1, 2, 4], np.float32),
        "learning_rate": np.array(0.1, np.float32),
    }
    with graph.running() as run:
        loss, params = run(feeds)
    assert loss == 7.0
    assert params.tolist() == [0.5, 1.0, 2.0]
    assert graph.spec.num_trainable == 3


@pytest.mark.parametrize(
    "operator", ["RandomNormal", "Loop", "If", "Scan", "Optional", "StringConcat", "X"]
)
def test_other_operators_are_refused(operator: str) -> None:
    node = helper.make_node(operator, ["params"], ["new_params"])
    with pytest.raises(VerificationError, match=f"operator '{operator}'"):
        load(file_of([SUM, node]))


def test_a_nested_graph_is_refused() -> None:
    inner = helper.make_graph([SUM], "inner", [], [])
    node = helper.make_node("Add", ["params", "params"], ["new_params"], body=inner)
    with pytest.raises(DataError, match="subgraphs"):
        load(file_of([SUM, node]))


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.ml", "x"])
def test_another_domain_is_refused(domain: str) -> None:
    node = helper.make_node("Add", ["params"] * 2, ["new_params"], domain=domain)
    with pytest.raises(VerificationError, match="domain"):
        load(file_of([SUM, node]))
    with pytest.raises(VerificationError, match="domain"):
        load(file_of([SUM, ADD], domain=domain))


def test_functions_are_refused() -> None:
    model = onnx.load_from_string(linear_step())
    opset = helper.make_opsetid("", 20)
    model.functions.append(
        helper.make_function("", "Add", ["a", "b"], ["c"], [], [opset])
    )
    with pytest.raises(VerificationError, match="functions"):
        load(model.SerializeToString())


def test_values_in_another_file_are_refused() -> None:
    model = onnx.load_from_string(linear_step())
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(VerificationError, match="external data"):
        load(model.SerializeToString())


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(VerificationError, match="operations"):
        load(file_of([SUM] + [ADD] * MAX_NODES))


def test_a_large_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(VerificationError, match="bytes, at most"):
        check_graph(b"\0" * (MAX_GRAPH_BYTES + 1), name=METADATA)


@pytest.mark.parametrize("entries", [0, 2])
def test_a_graph_describes_itself_once(entries: int) -> None:
    with pytest.raises(VerificationError, match=f"{entries} entries"):
        load(file_of([SUM, ADD], entries=entries))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "guess"},
        {"shapes": [[3], [4]]},
        {"shapes": [[-3]]},
        {"shapes": [[1 << 40]]},
        {"names": ["a", "a"], "shapes": [[1], [2]], "prunable": [True, True]},
        {"num_trainable": 2},
        {"momentum": "yes"},
        {"more": 1},
    ],
)
def test_a_malformed_description_is_refused(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(to_json(info_of())) | change)
    with pytest.raises(ConfigError):
        load(file_of([SUM, ADD], info=text))


def test_a_graph_of_another_kind_is_refused() -> None:
    with pytest.raises(VerificationError, match="made to train"):
        load_graph(linear_step(), GraphKind.evaluate)


@pytest.mark.parametrize(
    "inputs",
    [
        linear_inputs(("n", 4)),
        linear_inputs((2, 3)),
        linear_inputs(kind=TensorProto.DOUBLE),
        linear_inputs()[:-1],
        [*linear_inputs(), helper.make_tensor_value_info("z", TensorProto.FLOAT, ())],
    ],
)
def test_inputs_are_those_that_are_declared(
    inputs: list[onnx.ValueInfoProto],
) -> None:
    with pytest.raises(VerificationError, match="declared"):
        load(file_of([SUM, ADD], inputs=inputs))


def test_outputs_are_those_that_are_declared() -> None:
    with pytest.raises(VerificationError, match="outputs"):
        load(file_of([SUM, ADD], outputs=["new_params", "loss"]))


def test_a_graph_that_wants_too_much_memory_fails_and_nothing_else() -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 33])
    nodes = [
        helper.make_node("Constant", [], ["shape"], value=shape),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["loss"], keepdims=0),
        ADD,
    ]
    graph = load_graph(file_of(nodes), GraphKind.train)
    feeds = {
        "x": np.zeros((1, 3), np.float32),
        "y": np.zeros(1, np.float32),
        "params": np.zeros(3, np.float32),
        "learning_rate": np.array(0.1, np.float32),
    }
    with graph.running() as run, pytest.raises(VerificationError, match="failed"):
        run(feeds)


@given(cut=st.integers(0, 400), flips=st.lists(st.integers(0, 2**31), max_size=4))
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_errors_of_ours_only(cut: int, flips: list[int]) -> None:
    data = bytearray(linear_step())
    for flip in flips:
        data[flip % len(data)] ^= 1 << (flip % 8)
    damaged = bytes(data[: len(data) - cut % len(data)])
    try:
        load(damaged)
    except FedgeError:
        return
    assert check_graph(damaged, name=METADATA)


def test_what_a_graph_says_survives_the_wire() -> None:
    from fedge.config.experiment import from_json

    info = info_of(masked=True, momentum=True)
    assert from_json(GraphInfo, to_json(info)) == info
    assert {"mask", "velocity", "momentum"} <= info.inputs().keys()
