"""What a runtime must not be given, and what it may."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from fedge.arrays import AnyArray
from fedge.errors import DataError, FedgeError
from fedge.runtime.model_check import check_model
from tests.fedge.runtime.onnx_models import linear_model, linear_proto, model_proto

MEGA = 1 << 20


def whole(name: str, values: Sequence[int]) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def model(*nodes: onnx.NodeProto, constants: Sequence[TensorProto] = ()) -> bytes:
    """A model whose last node makes `y`."""
    return bytes(model_proto(nodes, constants).SerializeToString())


def node(
    op: str, inputs: str, output: str, **settings: int | float | list[int]
) -> onnx.NodeProto:
    made = helper.make_node(op, inputs.split(), [output])
    made.attribute.extend(helper.make_attribute(k, v) for k, v in settings.items())
    return made


def with_input(*sides: int | str) -> onnx.ModelProto:
    proto = linear_proto()
    proto.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(sides))
    )
    return proto


def fixed(*nodes: onnx.NodeProto) -> bytes:
    """A model of an input without open sides; a runtime knows all its shapes."""
    row = numpy_helper.from_array(np.ones((1, 8192), np.float32), "row")
    proto = model_proto(nodes, [row])
    proto.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [8192, 1])
    )
    return bytes(proto.SerializeToString())


SIZES = [whole("s", [MEGA, MEGA]), whole("small", [2, 3])]
GROWING = {
    "a constant of a shape": model(
        node("ConstantOfShape", "s", "c"), node("Add", "x c", "y"), constants=SIZES
    ),
    "an expanded constant": model(
        node("Expand", "small s", "c"), node("Add", "x c", "y"), constants=SIZES
    ),
    "a tiled constant": model(
        node("Tile", "small s", "c"), node("Add", "x c", "y"), constants=SIZES
    ),
    "a tiled input": model(node("Tile", "x s", "y"), constants=SIZES),
    "a range": model(
        node("Range", "a b c", "r"),
        node("Add", "x r", "y"),
        constants=[whole("a", [0]), whole("b", [1 << 40]), whole("c", [1])],
    ),
    "a range in small steps": model(
        node("Range", "a b c", "r"),
        node("Add", "x r", "y"),
        constants=[
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in (("a", 0.0), ("b", 1.0), ("c", 1e-12))
        ],
    ),
    "padding": model(
        node("Pad", "x p", "y"), constants=[whole("p", [0, MEGA, 0, MEGA])]
    ),
    "an outer product": model(
        node("Mul", "a b", "c"),
        node("Add", "x c", "y"),
        constants=[
            numpy_helper.from_array(np.ones((1 << 13, 1), np.float32), "a"),
            numpy_helper.from_array(np.ones((1, 1 << 13), np.float32), "b"),
        ],
    ),
    "many constants of one size": model(
        *(node("ConstantOfShape", "s", f"c{i}") for i in range(100)),
        node("Add", "x c0", "y"),
        constants=[whole("s", [1 << 10, 1 << 10])],
    ),
    "a size computed from a literal": model(
        node("Shape", "x", "n"),
        node("Mul", "n s", "big"),
        node("ConstantOfShape", "big", "c"),
        node("Add", "x c", "y"),
        constants=SIZES,
    ),
    "a size that follows from a fixed shape": fixed(
        node("Mul", "x row", "a"),
        node("Shape", "a", "n"),
        node("ConstantOfShape", "n", "c"),
        node("Add", "x c", "y"),
    ),
    "many of a fixed shape": fixed(
        node("Shape", "x", "n"),
        *(node("ConstantOfShape", "n", f"c{i}") for i in range(600)),
        node("Add", "x c0", "y"),
    ),
    "a size that is data": model(
        node("Cast", "x", "n", to=TensorProto.INT64),
        node("ConstantOfShape", "n", "y"),
    ),
    "an unknown operator of constants": model(
        node("Kronecker", "s s", "c"), node("Add", "x c", "y"), constants=SIZES
    ),
    "a size squared sixty times": model(
        *(node("Mul", f"c{i} c{i}", f"c{i + 1}") for i in range(60)),
        node("Tile", "x c60", "y"),
        constants=[whole("c0", [2, 2])],
    ),
    "a size repeated sixty times": model(
        *(
            helper.make_node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0)
            for i in range(20)
        ),
        node("Pad", "x c20", "y"),
        constants=[whole("c0", [1, 1])],
    ),
    "large pads of a convolution": model(
        node("Conv", "x w", "y", pads=[0, 0, 1 << 20, 1 << 20]),
        constants=[numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w")],
    ),
}


@pytest.mark.parametrize("name", sorted(GROWING))
def test_what_would_grow_while_it_is_loaded_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="model file: "):
        check_model(GROWING[name])


def test_sizes_that_follow_from_the_input_are_accepted() -> None:
    steps = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n width", "shape", axis=0),
        node("Expand", "zero shape", "c"),
        node("Add", "x c", "y"),
    ]
    zero = numpy_helper.from_array(np.zeros(1, np.float32), "zero")
    check_model(model(*steps, constants=[whole("width", [64]), zero]))


def damaged(change: str) -> onnx.ModelProto:
    proto = linear_proto()
    weights = proto.graph.initializer[0]
    match change:
        case "huge":
            weights.dims[0] = 1 << 40
        case "negative":
            weights.dims[0] = -4
        case "short":
            weights.raw_data = weights.raw_data[:-1]
        case "text":
            weights.data_type = TensorProto.STRING
        case "twice":
            weights.float_data.extend([0.0] * 12)
    return proto


@pytest.mark.parametrize("change", ["huge", "negative", "short", "text", "twice"])
def test_a_tensor_that_is_not_what_it_says_is_refused(change: str) -> None:
    with pytest.raises(DataError, match="'w'"):
        check_model(damaged(change).SerializeToString())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(dtype: type, value: float) -> None:
    weights: AnyArray = np.ones((700, 500), dtype)
    weights[-1, -1] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        check_model(linear_proto(weights).SerializeToString())


def test_not_a_number_in_a_list_or_a_setting_is_refused() -> None:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, np.nan])
    with pytest.raises(DataError, match="NaN"):
        check_model(model(node("Mul", "x w", "y"), constants=[tensor]))
    with pytest.raises(DataError, match=r"Elu\.alpha is NaN"):
        check_model(model(node("Elu", "x", "y", alpha=np.nan)))


def test_minus_infinity_in_a_mask_is_accepted() -> None:
    mask = numpy_helper.from_array(np.array([0.0, -np.inf], np.float32), "m")
    check_model(model(node("Add", "x m", "y"), constants=[mask]))


@pytest.mark.parametrize("sides", [(1 << 40,), (1 << 12, 1 << 12), (1,) * 17])
def test_inputs_of_absurd_shapes_are_refused(sides: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at most"):
        check_model(with_input(*sides).SerializeToString())


def test_operators_of_unknown_libraries_are_refused() -> None:
    with pytest.raises(DataError, match="library 'evil'"):
        check_model(model(helper.make_node("Add", ["x", "x"], ["y"], domain="evil")))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Add", "x b", "y"), node("Neg", "x", "b")],
        [node("Neg", "x", "y"), node("Abs", "x", "y")],
    ],
)
def test_values_are_made_once_and_before_they_are_used(
    nodes: list[onnx.NodeProto],
) -> None:
    with pytest.raises(DataError, match="made"):
        check_model(model(*nodes))


def test_a_list_of_small_numbers_counts_as_what_it_becomes() -> None:
    values: AnyArray = np.zeros(1_000_001, np.int64)
    tensor = helper.make_tensor("w", TensorProto.INT64, values.shape, values)
    with pytest.raises(DataError, match="export them as raw bytes"):
        check_model(model(node("Mul", "x w", "y"), constants=[tensor]))


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=40), at=st.integers(0, 150), cut=st.integers(0, 40))
def test_rubbish_in_a_model_is_never_another_error(
    data: bytes, at: int, cut: int
) -> None:
    whole_model = linear_model()
    with suppress(FedgeError):
        check_model(whole_model[:at] + data + whole_model[at + cut :])


def test_operators_of_an_old_version_are_refused() -> None:
    proto = linear_proto()
    proto.opset_import[0].version = 10
    with pytest.raises(DataError, match="opset 11 or later"):
        check_model(proto.SerializeToString())


def test_settings_that_are_given_twice_are_refused() -> None:
    small, large = (numpy_helper.from_array(np.zeros(n, np.int64)) for n in (1, 3))
    node = helper.make_node("Constant", [], ["c"], value=small)
    node.attribute.append(helper.make_attribute("value", large))
    with pytest.raises(DataError, match="twice"):
        check_model(_with(node))
    node = helper.make_node("Constant", [], ["c"], value=small)
    node.attribute[0].ints.extend([1, 2])
    with pytest.raises(DataError, match="several values"):
        check_model(_with(node))


def test_a_size_that_is_divided_by_a_fraction_is_refused() -> None:
    values = {"a": np.float32(50), "b": np.float32(1e-6), "one": np.ones(1, np.float32)}
    nodes = [
        *(
            helper.make_node(
                "Constant", [], [name], value=numpy_helper.from_array(np.array(value))
            )
            for name, value in values.items()
        ),
        helper.make_node("Div", ["a", "b"], ["q"]),
        helper.make_node("Cast", ["q"], ["size"], to=onnx.TensorProto.INT64),
        helper.make_node("Expand", ["one", "size"], ["c"]),
    ]
    with pytest.raises(DataError):
        check_model(_with(*nodes))


def _with(*nodes: onnx.NodeProto) -> bytes:
    """A model in which a value "c" is made by these operators."""
    graph = helper.make_graph(
        [*nodes, helper.make_node("Relu", ["x"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(model.SerializeToString())
