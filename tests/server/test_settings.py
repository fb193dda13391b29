"""Every file of `conf/` fills its dataclass, and mistakes are told helpfully."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedge.config import Experiment, OptimizerName
from fedge.config.experiment import from_json, to_json
from fedge.errors import ConfigError
from server.settings import (
    CONF,
    ROOT_CONFIG,
    compose_experiment,
    expand_sweep,
    experiment_of,
    open_strategy,
    register_schema,
)
from server.strategy import make_strategy

FILES = sorted(p for p in CONF.glob("*/*.yaml") if p.parent.name != "hydra")


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_experiment(overrides)
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDGE_DATA_ROOT", raising=False)
    monkeypatch.delenv("FEDGE_FLEET_TRACE", raising=False)


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_file_fills_its_dataclass(path: Path) -> None:
    group = path.parent.name
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(ROOT_CONFIG, overrides=[f"{group}={path.stem}"])
        experiment = experiment_of(composed)
    assert from_json(Experiment, to_json(experiment)) == experiment
    written = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(written, dict)
    assert {name: composed[group][name] for name in written} == written


@pytest.mark.parametrize(
    "path", sorted(CONF.glob("strategy/fed*.yaml")), ids=lambda path: path.stem
)
def test_every_strategy_file_makes_a_strategy_with_its_own_defaults(path: Path) -> None:
    strategy = compose_experiment([f"strategy={path.stem}"]).strategy
    made, default = (
        make_strategy(strategy),
        make_strategy({"_target_": strategy["_target_"]}),
    )
    assert made == default


def test_the_defaults_of_the_command_line_compose() -> None:
    experiment = compose_experiment([])
    assert experiment.strategy == {"_target_": "strategies.fedavg.FedAvg"}
    assert type(experiment.model.widths) is list
    assert experiment.train.optimizer is OptimizerName.sgd


def test_overrides_are_taken_and_lists_stay_lists() -> None:
    experiment = compose_experiment(
        ["model=mlp", "model.widths=[8,4]", "run.allow=[mine]", "run.rounds=3"]
    )
    assert experiment.model.widths == [8, 4]
    assert (experiment.run.allow, experiment.run.rounds) == (["mine"], 3)


def test_data_in_files_takes_its_root_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    choice = ["data=uci_har", "model=cnn1d"]
    assert "data.root: empty" in refusal(*choice)
    monkeypatch.setenv("FEDGE_DATA_ROOT", "/data")
    assert compose_experiment(choice).data.root == "/data"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("run.ronds=3", ["run.ronds: no such setting", "did you mean run.rounds?",
                         "run.cohort, "]),
        ("+run.ronds=3", ["run.ronds: no such setting"]),
        ("++run.ronds=3", ["run.ronds: no such setting"]),
        ("rounds=3", ["rounds: no such setting", "There are: compression, data"]),
        ("stratgy=fedavg", ["stratgy: no such setting", "did you mean strategy?"]),
        ("strategy=fedavgg", ["strategy: 'fedavgg' is none of fedadagrad, ",
                              "did you mean strategy=fedavg?"]),
        ("strategy=../run/demo", ["strategy: '../run/demo' is none of"]),
        ("model=", ["model: '' is none of cnn, "]),
        ("run={rounds: 3}", ["run: {'rounds': 3} is none of demo, long, quick"]),
        ("run.rounds=abc", ["run.rounds: Value 'abc'", "Integer"]),
        ("run.rounds=3.5", ["run.rounds: Value '3.5'", "Integer"]),
        ("run.rounds=true", ["run.rounds: Value 'True'", "Integer"]),
        ("run.rounds=null", ["run.rounds: ", "not Optional"]),
        ("run.rounds=0", ["run.rounds: 0 must be at least 1"]),
        ("train.learning_rate=nan", ["train.learning_rate: nan"]),
        ("train.optimizer=sgdd", ["train.optimizer: Invalid value 'sgdd'",
                                  "[sgd, adam]"]),
        ("model.widths=[a]", ["model.widths[0]: Value 'a'"]),
        ("model.widths=3", ["model.widths: "]),
        ("run.seed=9223372036854775808", ["run.seed: "]),
        ("run.allow=[a b]", ["run.allow: 'a b' is not a package name"]),
        ("run.rounds=${oc.env:FEDGE_NO_SUCH}", ["run.rounds: ", "FEDGE_NO_SUCH"]),
        ("run.rounds=1,2", ["run.rounds: 'run.rounds=1,2' names several values",
                            "add -m"]),
        ("model=cnn,mlp", ["model: 'model=cnn,mlp' names several values", "add -m"]),
        ("strategy.tau=1,2", ["strategy.tau: ", "add -m"]),
        ("~run.rounds", ["run.rounds: a setting cannot be removed"]),
        ("~run", ["run: a setting cannot be removed"]),
        ("garbage", ["'garbage': not of the form NAME=VALUE"]),
        ("", ["'': not of the form NAME=VALUE"]),
        ("a=b=c", ["'a=b=c': not of the form NAME=VALUE"]),
        ("run.rounds==3", ["'run.rounds==3': not of the form NAME=VALUE"]),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_setting_value_and_a_way_out(
    override: str, says: list[str]
) -> None:
    message = refusal(override)
    assert all(part in message for part in says), message


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["run.cohort=30"], "run.cohort: 30 is more than fleet.num_devices: 20"),
        (["run.min_answers=11"], "run.min_answers: 11 not in [1, 10] (run.cohort)"),
        (["release.root_threshold=4"], "release.root_threshold: 4 not in [1, 3]"),
        (["partition=natural"], "partition.kind: natural, but data=digits"),
        (["strategy=fedadam", "strategy.tau=-1"], "strategy.tau: -1 must be more"),
        (["strategy=fedadam", "strategy.learning_rate=x"], "'x' is not a number"),
        (["strategy=fedadam", "strategy.learning_rat=1"],
         "did you mean strategy.learning_rate?"),
        (["strategy.lr=1"], "strategy.lr: strategies.fedavg.FedAvg takes nothing"),
        (["strategy._target_=os.system"], "run.allow"),
        (["strategy._target_=strategies.fedavg.FedAvgg"], "cannot find"),
        (["~strategy._target_"], "strategy._target_: None is not a name"),
        (["strategy.a.b=3"], "strategy.a: must be a plain value"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(
    overrides: list[str], says: str
) -> None:
    assert says in refusal(*overrides)


def test_all_contradictions_are_told_at_once() -> None:
    lines = refusal("data=diabetes", "train.augment=flip").split("\n")
    assert [line.partition(":")[0] for line in lines] == [
        "partition.kind",
        "model.name",
        "train.augment",
    ]


def test_an_argument_of_the_strategy_may_be_set_removed_or_added() -> None:
    changed = compose_experiment(
        ["strategy=fedadam", "strategy.beta_1=0.5", "~strategy.tau"]
    )
    assert changed.strategy["beta_1"] == 0.5
    assert "tau" not in changed.strategy
    added = compose_experiment(["strategy=flower", "strategy.fraction_train=0.5"])
    assert added.strategy["fraction_train"] == 0.5


def test_only_the_strategy_is_opened() -> None:
    given = [
        "strategy.x=1",
        "strategy=fedavg",
        "run.x=1",
        "++strategy.y=1",
        "strategyx.y=1",
    ]
    opened = ["++strategy.x=1", *given[1:]]
    assert open_strategy(given) == opened
    assert open_strategy(opened) == opened


@pytest.mark.parametrize(
    ("overrides", "combinations"),
    [
        ([], [[]]),
        (["a=1"], [["a=1"]]),
        (["a=1,2", "b=3"], [["a=1", "b=3"], ["a=2", "b=3"]]),
        (["a=1,2", "b=x,y"],
         [["a=1", "b=x"], ["a=1", "b=y"], ["a=2", "b=x"], ["a=2", "b=y"]]),
        (["a=choice(1,2)"], [["a=1"], ["a=2"]]),
        (["a=[1,2],[3]"], [["a=[1,2]"], ["a=[3]"]]),
        (["a=[1,2]"], [["a=[1,2]"]]),
        (["a='b,c'"], [["a='b,c'"]]),
        (["++strategy.x=1,2"], [["++strategy.x=1"], ["++strategy.x=2"]]),
        (["a=range(5,1000000000)"], [["a=5"]]),
        (["run=glob(*,exclude=[d*,l*])"], [["run=quick"]]),
    ],
)  # fmt: skip
def test_a_sweep_is_expanded(
    overrides: list[str], combinations: list[list[str]]
) -> None:
    assert expand_sweep(overrides) == combinations


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("run.seed=interval(0,1)", "run.seed: nothing to sweep"),
        ("run.seed=glob(*)", "run.seed: nothing to sweep"),
        ("strategy=glob(x*)", "strategy: nothing to sweep"),
        ("garbage", "'garbage': not of the form NAME=VALUE"),
        ("run.seed=1,,2", "'run.seed=1,,2': not of the form NAME=VALUE"),
    ],
)
def test_what_cannot_be_swept_is_refused(override: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand_sweep(["run.rounds=3", override])
    assert str(caught.value).startswith(says)
