"""Settings as JSON: what was written is read back, and nothing else is let in."""

import json
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedge.config import (
    DataConfig,
    Experiment,
    ModelConfig,
    PartitionConfig,
    RunConfig,
    TrainConfig,
)
from fedge.config.experiment import MAX_JSON_BYTES, ClientTask, from_json, to_json
from fedge.errors import ConfigError

TASK = ClientTask(
    seed=1,
    num_devices=3,
    data=DataConfig(),
    partition=PartitionConfig(),
    model=ModelConfig(),
    train=TrainConfig(),
)
GROUPS = [field.name for field in fields(Experiment) if field.name != "strategy"]
PLAIN_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=10),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def changed(path: str, value: object) -> str:
    """Return the default experiment as JSON with one value replaced."""
    plain: Any = json.loads(to_json(Experiment()))
    *parents, name = path.split(".")
    place = plain
    for parent in parents:
        place = place[parent]
    place[name] = value
    return json.dumps(plain)


def refusal(text: str, cls: type = Experiment) -> str:
    with pytest.raises(ConfigError) as caught:
        from_json(cls, text)
    return str(caught.value)


@given(
    strategy=st.dictionaries(st.text("abc_", max_size=5), PLAIN_VALUES, max_size=4),
    name=st.text(st.characters(codec="utf-8"), max_size=10),
    widths=st.lists(st.integers(1, 2**14), min_size=1, max_size=4),
    seed=st.integers(0, 2**63 - 1),
    learning_rate=st.floats(5e-324, 1e308),
)
@settings(deadline=None, max_examples=50)
def test_what_was_written_is_read_back(
    strategy: dict[str, Any],
    name: str,
    widths: list[int],
    seed: int,
    learning_rate: float,
) -> None:
    experiment = Experiment(
        strategy=strategy,
        data=DataConfig(name=name),
        model=ModelConfig(widths=widths),
        run=RunConfig(seed=seed),
        train=TrainConfig(learning_rate=learning_rate),
    )
    text = to_json(experiment)
    assert from_json(Experiment, text) == experiment
    assert to_json(from_json(Experiment, text)) == text


def test_a_task_is_read_back() -> None:
    assert from_json(ClientTask, to_json(TASK)) == TASK


def test_equal_settings_are_written_alike() -> None:
    one = Experiment(strategy={"b": 1, "a": 2})
    assert to_json(one) == to_json(Experiment(strategy={"a": 2, "b": 1}))
    assert " " not in to_json(one)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_json_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(ConfigError, match="cannot be written as JSON"):
        to_json(Experiment(strategy={"x": value}))


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", '"x"', "3", "{}x", "{'a':1}", '{"run":{},}', "\ud800"],
)
def test_what_is_not_an_object_of_json_is_refused(text: str) -> None:
    assert refusal(text).startswith("settings: I")  # "Invalid JSON", "Input should be"


def test_settings_that_are_too_long_are_refused_before_they_are_parsed() -> None:
    says = refusal("{" * (MAX_JSON_BYTES + 1))
    assert says == f"settings: {MAX_JSON_BYTES + 1} bytes, at most {MAX_JSON_BYTES}"


def test_the_length_is_counted_in_bytes() -> None:
    text = json.dumps({"data": {"name": "€" * 30_000}}, ensure_ascii=False)
    assert len(text) < MAX_JSON_BYTES
    assert "at most" in refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 60_000,
        '{"strategy":{"a":' + "[" * 20_000 + "]" * 20_000 + "}}",
        '{"strategy":' + '{"a":' * 9_000 + "1" + "}" * 9_000 + "}",
    ],
)
def test_deep_nesting_is_refused(text: str) -> None:
    assert "recursion limit" in refusal(text)


@pytest.mark.parametrize("digits", [400, 4_000, 60_000])
def test_a_huge_number_is_refused(digits: int) -> None:
    refusal('{"run":{"seed":' + "9" * digits + "}}")
    refusal('{"train":{"epochs":' + "9" * digits + "}}")


@pytest.mark.parametrize("path", ["hack", *(f"{group}.hack" for group in GROUPS)])
def test_an_unknown_name_is_refused_at_every_level(path: str) -> None:
    assert refusal(changed(path, 1)) == f"settings: {path}: no such setting"


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", [None, [], "x", 3, True])
def test_a_group_is_an_object(group: str, value: object) -> None:
    assert refusal(changed(group, value)).startswith(f"settings: {group}: Input")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("run.rounds", True),
        ("run.rounds", 3.0),
        ("run.rounds", 3.5),
        ("run.rounds", "3"),
        ("run.rounds", None),
        ("run.evaluate_on_devices", 1),
        ("run.evaluate_on_devices", "true"),
        ("run.allow", "os"),
        ("run.allow", [1]),
        ("train.learning_rate", True),
        ("train.learning_rate", "0.1"),
        ("train.optimizer", "SGD"),
        ("train.optimizer", 1),
        ("data.name", 3),
        ("data.loader", None),
        ("model.widths", "8"),
        ("model.widths", [True]),
        ("model.widths", [1.0]),
        ("model.widths", ["8"]),
        ("model.widths", [[8]]),
        ("strategy", []),
    ],
)
def test_a_wrong_type_is_refused_and_not_converted(path: str, value: object) -> None:
    says = refusal(changed(path, value))
    assert says.startswith(f"settings: {path}")
    assert "Input should be" in says


def test_a_message_shows_a_wrong_value_but_never_a_long_one() -> None:
    assert refusal(changed("run.rounds", "3")).endswith("got '3'")
    assert len(refusal(changed("run.rounds", "x" * 10_000))) < 200


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    "path",
    ["run.rounds", "train.learning_rate", "train.final_factor", "model.dropout",
     "release.tolerance", "compression.min_ratio", "strategy.tau"],
)  # fmt: skip
def test_numbers_that_are_not_finite_are_refused(path: str, literal: str) -> None:
    refusal(changed(path, "@").replace('"@"', literal))


@pytest.mark.parametrize(
    "text",
    [
        '{"run":{"rounds":3},"run":{"rounds":4}}',
        '{"run":{"rounds":3,"rounds":3}}',
        '{"run":{"rounds":3,"round\\u0073":4}}',
        '{"strategy":{"a":[{"b":1,"b":2}]}}',
    ],
)
def test_a_name_given_twice_is_refused(text: str) -> None:
    assert "is given twice" in refusal(text)


def test_a_value_out_of_range_is_refused_with_its_own_message() -> None:
    says = refusal(changed("run.seed", -1))
    assert says == "settings: run.seed: -1 must be at least 0"


@pytest.mark.parametrize("name", ["seed", "num_devices", "data", "model", "train"])
def test_a_task_must_be_complete(name: str) -> None:
    plain = json.loads(to_json(TASK))
    del plain[name]
    assert refusal(json.dumps(plain), ClientTask) == f"settings: {name}: Field required"


@pytest.mark.parametrize(
    ("name", "value"), [("seed", -1), ("num_devices", 0), ("num_devices", True)]
)
def test_a_task_checks_its_numbers(name: str, value: object) -> None:
    plain = json.loads(to_json(TASK)) | {name: value}
    assert refusal(json.dumps(plain), ClientTask).startswith(f"settings: {name}: ")


def test_a_task_is_no_experiment() -> None:
    assert refusal(to_json(TASK)).endswith("no such setting")
    refusal(to_json(Experiment()), ClientTask)
