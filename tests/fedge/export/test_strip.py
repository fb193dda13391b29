import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from fedge.export.strip import strip


@pytest.fixture(scope="module")
def chatty_model() -> bytes:
    """If(flag) x + 1 else x, with a remark in every place that can hold one."""
    one = numpy_helper.from_array(np.ones(1, np.float32), "one")
    one.doc_string = "secret path"
    branches = []
    for op, inputs in (("Add", ["x", "one"]), ("Identity", ["x"])):
        node = helper.make_node(op, inputs, [f"{op}_y"], doc_string="secret path")
        entry = node.metadata_props.add()
        entry.key, entry.value = "secret key", "secret path"
        value = helper.make_tensor_value_info(f"{op}_y", onnx.TensorProto.FLOAT, None)
        branches.append(
            helper.make_graph([node], op, [], [value], doc_string="secret path")
        )
    graph = helper.make_graph(
        [helper.make_node("If", ["flag"], ["y"], then_branch=branches[0],
                          else_branch=branches[1])],
        "main",
        [helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1], "secret")],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        initializer=[one],
        value_info=[helper.make_tensor_value_info("secret", 1, [1])],
    )  # fmt: skip
    model = helper.make_model(
        graph, doc_string="secret", opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    result: bytes = model.SerializeToString()
    return result


def test_no_remark_survives_at_any_depth(chatty_model: bytes) -> None:
    assert b"secret" in chatty_model
    assert b"secret" not in strip(chatty_model)


@pytest.mark.parametrize("flag", [True, False])
def test_the_stripped_model_computes_the_same(chatty_model: bytes, flag: bool) -> None:
    feeds = {"flag": np.array(flag), "x": np.array([2.0], np.float32)}

    outputs = [
        ort.InferenceSession(model).run(None, feeds)[0]
        for model in (chatty_model, strip(chatty_model))
    ]

    assert outputs[0] == outputs[1] == (3.0 if flag else 2.0)


def test_stripping_twice_changes_nothing_more(chatty_model: bytes) -> None:
    once = strip(chatty_model)
    assert strip(once) == once
