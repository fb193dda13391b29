"""The same apps on LocalGrid, in Flower's simulation, and on SuperNodes over TLS."""

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from fedge.enrolment.folders import ENROLMENT_KEY, create_key, enroll_device
from fedge.release.install import installed_model, trust_store
from fedge.release.keys import KeyRing
from fedge.release.repository import ReleaseRepository
from server.settings import compose_experiment
from simulations.federation import simulate_federation
from tests.integration.flower_processes import Flower

pytestmark = pytest.mark.integration

# Secure aggregation is on. Under Flower's simulation a device has no configuration of
# its own, so its floor is the default of five.
SIMULATED = "run=quick model=mlp fleet.num_devices=5"
FLEET = "run=quick model=mlp fleet.num_devices=3 run.cohort=3 secagg.min_cohort=3"


def model_on_local_grid(overrides: str, folder: Path) -> str:
    """Return the digest of the model that LocalGrid ends with.

    Flower's runtimes compute clients one by one; together they are equal within float
    tolerance only.
    """
    threads = torch.get_num_threads()
    alone = ["release=none", "engine.batching=never"]
    experiment = compose_experiment([*overrides.split(), *alone])
    simulate_federation(experiment, folder / "local")
    torch.set_num_threads(threads)
    return digest(folder / "local" / "last.safetensors")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_config(folder: Path, overrides: str) -> str:
    return f'overrides="{overrides}" run-dir="{folder}"'


def test_flowers_simulation_ends_in_the_same_model(
    flower: Flower,
    stack: ExitStack,
    free_port: Callable[[], int],
    wait_for_port: Callable[[int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    port = free_port()
    flower.connect("sim", f'address = "127.0.0.1:{port}"\ninsecure = true')
    command = ["flower-superlink", "--insecure", "--simulation", "--port", str(port)]
    command += ["--disable-runtime-dependency-installation"]
    stack.enter_context(flower.process("superlink", command))
    wait_for_port(port)
    output = flower.run_app(
        "sim",
        run_config(tmp_path / "sim", f"{SIMULATED} release=none"),
        "--federation-config",
        "num-supernodes=5",
    )
    assert (tmp_path / "sim" / "last.safetensors").exists(), output
    ours = model_on_local_grid(SIMULATED, tmp_path)
    assert digest(tmp_path / "sim" / "last.safetensors") == ours


def provision(run_folder: Path, devices: list[Path]) -> None:
    keys = KeyRing.create(run_folder / "keys", root_keys=3, root_threshold=2)
    repository = ReleaseRepository.open(
        run_folder / "releases", keys, expiry_days=30.0, now=datetime.now(UTC)
    )
    create_key(run_folder / "enrolment")
    for index, device in enumerate(devices):
        trust_store(device).provision(repository.trusted_root())
        enroll_device(
            run_folder / "enrolment" / ENROLMENT_KEY,
            device / "secagg",
            uid=index + 1,
            fast_aes=index == 0,  # both ciphers are used
            not_after=int(datetime.now(UTC).timestamp()) + 3600,
        )


def test_three_supernodes_over_tls_train_and_install_the_release(
    flower: Flower,
    stack: ExitStack,
    free_port: Callable[[], int],
    wait_for_port: Callable[[int], None],
    certificates: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    port, devices = free_port(), [tmp_path / f"device-{i}" for i in range(3)]
    provision(tmp_path / "tls", devices)
    ca = certificates / "ca.pem"
    flower.connect("tls", f'address = "127.0.0.1:{port}"\nroot-certificates = "{ca}"')
    superlink = ["flower-superlink", "--port", str(port)]
    superlink += ["--ssl-ca-certfile", str(ca)]
    superlink += ["--ssl-certfile", str(certificates / "server.pem")]
    superlink += ["--ssl-keyfile", str(certificates / "server.key")]
    superlink += ["--disable-runtime-dependency-installation"]
    stack.enter_context(flower.process("superlink", superlink))
    wait_for_port(port)
    for index, device in enumerate(devices):
        supernode = ["flower-supernode", "--superlink", f"127.0.0.1:{port}"]
        supernode += ["--root-certificates", str(ca), "--port", str(free_port())]
        config = f'partition-id={index} num-partitions=3 device-dir="{device}"'
        config += f' secagg-dir="{device / "secagg"}" secagg-min-cohort=3'
        supernode += ["--node-config", config]
        stack.enter_context(flower.process(f"supernode-{index}", supernode))
    output = flower.run_app("tls", run_config(tmp_path / "tls", FLEET))
    assert (tmp_path / "tls" / "summary.json").exists(), output
    ours = model_on_local_grid(FLEET, tmp_path)
    assert digest(tmp_path / "tls" / "last.safetensors") == ours
    print(output)
    summary = json.loads((tmp_path / "tls" / "summary.json").read_text("utf-8"))
    assert summary["devices_on_release"] == len(devices)
    versions = {
        installed[1].version for d in devices if (installed := installed_model(d))
    }
    assert versions == {summary["release_version"]}
    assert summary["secagg"] == "semi_honest"
