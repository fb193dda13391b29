"""Flower's own programs on loopback, started and stopped for one test."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Flower:
    """A folder and an environment in which Flower's commands run."""

    folder: Path
    environment: dict[str, str]

    def run_app(
        self, connection: str, run_config: str, *options: str, app: Path = REPOSITORY
    ) -> str:
        """Submit an app, by default this repository's, and wait for its end."""
        command = ["run", str(app), connection, "--stream"]
        command += ["--run-config", run_config, *options]
        done = subprocess.run(
            [BIN / "flwr", *command],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return done.stdout + done.stderr

    def connect(self, name: str, entries: str) -> None:
        text = f'[superlink]\ndefault = "{name}"\n[superlink.{name}]\n{entries}\n'
        home = self.folder / "flwr-home"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(text, encoding="utf-8")

    @contextmanager
    def process(self, name: str, command: Sequence[str]) -> Iterator[None]:
        """Run one of Flower's programs, with its children, for a block of code."""
        log = (self.folder / f"{name}.log").open("wb")
        with log:
            child = subprocess.Popen(
                [BIN / command[0], *command[1:]],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield
            finally:
                os.killpg(child.pid, signal.SIGTERM)
                try:
                    child.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
