import logging
import signal
import sys
import threading
from pathlib import Path

import pytest

from fedge.__main__ import main
from fedge.simulate import main as module_main

PROJECT = """
[project]
name = "an-app"
version = "1.0.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "app_of_the_command_test:server"
clientapp = "app_of_the_command_test:client"

[tool.flwr.app.config]
step = 1
end = "well"

[tool.flwr.federations.local]
options.num-supernodes = 3
"""
MODULE = """
import random, signal, sys
from pathlib import Path
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server, client = ServerApp(), ClientApp()

@client.query()
def query(message, context):
    number = context.run_config["step"] * context.node_config["partition-id"]
    metrics = MetricRecord({"number": number, "drawn": random.random()})
    return Message(RecordDict({"m": metrics}), reply_to=message)

@client.query("broken")
def broken(message, context):
    raise RuntimeError("the battery is empty")

@server.main()
def main(grid, context):
    end = context.run_config["end"]
    kind = "query.broken" if end == "broken" else "query"
    asked = [Message(RecordDict(), n, kind) for n in grid.get_node_ids()]
    replies = list(grid.send_and_receive(asked))
    good = [reply.content["m"] for reply in replies if reply.has_content()]
    told = [[m["number"] for m in good], [m["drawn"] for m in good], random.random()]
    Path("told").write_text(repr(told))
    print("the app prints")
    if end == "raise":
        {}["nothing"]
    if end == "exit":
        sys.exit(3)
    if end == "interrupt":
        signal.raise_signal(signal.SIGINT)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an app; we stand in another one."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    forget(monkeypatch)
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (folder / "app_of_the_command_test.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the app's module be imported anew, now and in later tests."""
    monkeypatch.setitem(sys.modules, "app_of_the_command_test", sys)
    del sys.modules["app_of_the_command_test"]


def simulate(app: Path, *options: str) -> int:
    return main(["simulate", str(app), "--workers", "1", *options])


def test_an_app_runs_where_we_stand_with_its_own_number_of_clients(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(app, "--run-config", "step=5") == 0
    assert Path("told").read_text("utf-8").startswith("[[0, 5, 10], ")
    shown = capfd.readouterr()
    assert shown.out == "the app prints\n"
    assert shown.err.startswith("fedge: 3 answers of clients, ")
    assert shown.err.count("\n") == 1


def test_the_module_is_the_same_command(app: Path) -> None:
    assert module_main([str(app), "--clients", "2", "--workers", "0"]) == 0
    assert Path("told").read_text("utf-8").startswith("[[0, 1], ")


def test_a_seeded_run_can_be_repeated(
    app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for seed, workers in (("5", "1"), ("5", "2"), ("6", "2")):
        forget(monkeypatch)
        assert simulate(app, "--seed", seed, "--workers", workers) == 0
        told.append(Path("told").read_text("utf-8"))
    assert told[0] == told[1] != told[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clients", "0"], "--clients: 0 must be at least 1"),
        (["--workers", "-1"], "--workers: -1 not in [0, 1024]"),
        (["--threads", "0"], "--threads: 0 not in [1, 1024]"),
        (["--client-seconds", "-1"], "--client-seconds: -1.0 must be at least 0"),
        (["--memory-mb", "-1"], "--memory-mb: -1 must be at least 0 (0: no limit)"),
        (["--memory-mb", "inf"], "--memory-mb: inf must be at least 0 (0: no limit)"),
        (["--seed", "-1"], "--seed: -1 not in [0, 2**63)"),
        (["-c", "stop=1"], "--run-config: no key 'stop'; did you mean 'step'?"),
        (["-c", "step=true"], "--run-config: step = True is true or false"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    app: Path, options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(app, *options) == 2
    shown = capfd.readouterr()
    assert shown.err.startswith(f"fedge: {message}")
    assert shown.err.count("\n") == 1
    assert shown.out == ""
    assert not Path("told").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("options.num-supernodes", "x", "--clients: not given, and the app's"),
        ("[tool.flwr.app.components]", "[other]", "app: {}: Invalid pyproject.toml"),
        (":server", ":nobody", "[tool.flwr.app.components] serverapp: "),
        (":server", ":client", "[tool.flwr.app.components] serverapp: "),
    ],
)
def test_a_wrong_project_is_one_line_and_exit_code_2(
    app: Path, old: str, new: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = app / "pyproject.toml"
    file.write_text(PROJECT.replace(old, new), encoding="utf-8")
    assert simulate(app) == 2
    shown = capfd.readouterr().err
    assert shown.startswith(f"fedge: {message.format(file)}")
    assert shown.count("\n") == 1


def test_what_is_no_folder_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(tmp_path / "nowhere") == 2
    assert "is not a folder; give a Flower app's folder" in capfd.readouterr().err


def test_an_app_that_raises_shows_its_own_traceback(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(app, "-c", "end='raise'") == 1
    lines = capfd.readouterr().err.splitlines()
    assert "app_of_the_command_test.py" in lines[2], "it begins in the app"
    assert lines[-2:] == [
        "KeyError: 'nothing'",
        "fedge: the app raised KeyError: 'nothing'",
    ]


@pytest.mark.parametrize(
    ("module", "last_line"),
    [
        ("import a_library_nobody_has", "install what the app needs: pip install {}"),
        ("server = (", "fedge: the app raised SyntaxError: "),
        (
            "raise ValueError('at\\nimport')",
            "fedge: the app raised ValueError: at import",
        ),
        ("import sys; sys.exit(3)", "fedge: the app ended itself with exit code 3"),
    ],
)
def test_an_app_that_cannot_be_imported_is_a_failure(
    app: Path, module: str, last_line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (app / "app_of_the_command_test.py").write_text(module, encoding="utf-8")
    assert simulate(app) == 1
    shown = capfd.readouterr().err
    assert last_line.format(app) in shown.splitlines()[-1]
    assert "/fedge/" not in shown, "our own frames help nobody"


def test_an_exit_code_of_the_app_is_told(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(app, "-c", "end='exit'") == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last == "fedge: the app ended itself with exit code 3"


def test_a_failing_client_is_told_with_its_traceback_and_the_run_goes_on(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert simulate(app, "-c", "end='broken'") == 0
    shown = capfd.readouterr().err
    assert shown.count("Traceback") == 1
    assert "fedge: client 2 failed: RuntimeError: the battery is empty" in shown
    assert "0 answers of clients, 3 failed, " in shown.splitlines()[-1]


def test_ctrl_c_ends_with_130_and_leaves_things_as_they_were(
    app: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT), logging.getLogger("fedge").handlers[:]
    assert simulate(app, "-c", "end='interrupt'") == 130
    assert capfd.readouterr().err.splitlines()[-1] == "fedge: interrupted"
    after = signal.getsignal(signal.SIGINT), logging.getLogger("fedge").handlers[:]
    assert before == after


def test_it_runs_in_a_thread_too(app: Path) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(simulate(app)))
    thread.start()
    thread.join()
    assert codes == [0]


def test_help_is_there_without_loading_anything(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        module_main(["--help"])
    assert "--client-seconds" in capsys.readouterr().out
