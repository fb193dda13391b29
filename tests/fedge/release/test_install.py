import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from fedge.errors import DataError, DigestMismatchError, MisuseError
from fedge.release.bundle import ReleaseBundle
from fedge.release.install import (
    InstallReport,
    Outcome,
    install,
    installed_model,
    load_installed,
    trust_store,
)
from fedge.release.keys import KeyRing
from fedge.release.repository import ReleaseRepository
from fedge.release.slots import Slots
from tests.fedge.release import kit
from tests.fedge.release.faulty_disk import CountingDisk, DyingDisk, PowerCut

ROOT = Path(__file__).parents[3]


@pytest.fixture
def repository(tmp_path: Path, keys: KeyRing) -> ReleaseRepository:
    return kit.published(tmp_path / "repository", keys, 1)


@pytest.fixture
def folder(tmp_path: Path, repository: ReleaseRepository) -> Path:
    trust_store(tmp_path / "device").provision(repository.trusted_root())
    return tmp_path / "device"


def install_now(folder: Path, bundle: ReleaseBundle) -> InstallReport:
    return install(folder, bundle, now=kit.NOW)


def running_version(folder: Path) -> int:
    model = installed_model(folder)
    assert model is not None
    return model[1].version


def not_a_number_model() -> bytes:
    """The right shape, but 0 / 0 everywhere."""
    weights = numpy_helper.from_array(np.zeros((4, 3), np.float32), "w")
    zeros = helper.make_node("MatMul", ["x", "w"], ["z"])
    return kit.onnx_model(
        [zeros, helper.make_node("Div", ["z", "z"], ["y"])], [weights]
    )


def test_a_release_is_installed_and_predicts_from_raw_values(
    folder: Path, repository: ReleaseRepository
) -> None:
    report = install_now(folder, repository.bundle())
    assert (report.version, report.outcome, report.reason) == (1, Outcome.installed, "")
    assert report.health is not None
    assert report.health.top1_agreement == 1.0
    np.testing.assert_allclose(
        load_installed(folder).predict(kit.INPUTS),
        kit.expected_outputs(kit.weights(1)),
        atol=1e-5,  # float32 sums of four products in another order
    )


def test_the_same_release_is_not_installed_twice(
    folder: Path, repository: ReleaseRepository
) -> None:
    install_now(folder, repository.bundle())
    report = install_now(folder, repository.bundle())
    assert (report.outcome, report.health) == (Outcome.already_installed, None)


def test_a_newer_release_replaces_the_old_one(
    folder: Path, repository: ReleaseRepository
) -> None:
    install_now(folder, repository.bundle())
    repository.publish(*kit.release(2), now=kit.NOW)
    assert install_now(folder, repository.bundle()).outcome is Outcome.installed
    assert running_version(folder) == 2


def test_an_unhealthy_release_is_rolled_back(
    folder: Path, repository: ReleaseRepository
) -> None:
    install_now(folder, repository.bundle())
    repository.publish(*kit.release_of(not_a_number_model(), 2), now=kit.NOW)
    report = install_now(folder, repository.bundle())
    assert (report.version, report.outcome) == (2, Outcome.rolled_back)
    assert "not finite" in report.reason
    assert running_version(folder) == 1


def test_an_unhealthy_first_release_leaves_none(
    folder: Path, repository: ReleaseRepository
) -> None:
    repository.publish(*kit.release_of(b"no model at all", 2), now=kit.NOW)
    assert install_now(folder, repository.bundle()).outcome is Outcome.rolled_back
    assert installed_model(folder) is None


def test_a_good_release_after_an_unhealthy_one_is_installed(
    folder: Path, repository: ReleaseRepository
) -> None:
    repository.publish(*kit.release_of(not_a_number_model(), 2), now=kit.NOW)
    install_now(folder, repository.bundle())
    repository.publish(*kit.release(3), now=kit.NOW)
    assert install_now(folder, repository.bundle()).outcome is Outcome.installed
    assert running_version(folder) == 3


def test_a_model_with_external_data_is_rolled_back(
    folder: Path, repository: ReleaseRepository
) -> None:
    model = onnx.load_from_string(kit.linear_model(kit.weights(2)))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="passport.json")
    release = kit.release_of(model.SerializeToString(), 2)
    repository.publish(*release, now=kit.NOW)
    assert "external data" in install_now(folder, repository.bundle()).reason


def test_a_bundle_that_does_not_verify_raises_and_changes_nothing(
    folder: Path, repository: ReleaseRepository
) -> None:
    install_now(folder, repository.bundle())
    repository.publish(*kit.release(2), now=kit.NOW)
    with pytest.raises(DigestMismatchError):
        install_now(folder, kit.with_artifact(repository.bundle(), b"x"))
    assert running_version(folder) == 1


def test_a_damaged_installation_is_replaced_by_the_same_release(
    folder: Path, repository: ReleaseRepository
) -> None:
    install_now(folder, repository.bundle())
    (folder / "slots/a/model.onnx").write_bytes(b"damaged")
    with pytest.raises(DataError, match="damaged"):
        installed_model(folder)
    assert install_now(folder, repository.bundle()).outcome is Outcome.installed
    assert running_version(folder) == 1


def test_an_uncommitted_switch_is_undone_before_the_model_is_loaded(
    folder: Path, repository: ReleaseRepository
) -> None:
    store = trust_store(folder)
    slots = Slots(folder / "slots")
    release = store.verify(repository.bundle(), now=kit.NOW)
    slots.activate(slots.stage(release).parent.name)
    assert installed_model(folder) is None


def test_two_installations_at_once_take_turns(
    folder: Path, repository: ReleaseRepository
) -> None:
    bundle = repository.bundle()
    with ThreadPoolExecutor(2) as pool:
        reports = pool.map(install_now, [folder, folder], [bundle, bundle])
        outcomes = sorted(report.outcome for report in reports)
    assert outcomes == [Outcome.already_installed, Outcome.installed]


def test_without_a_release_there_is_nothing_to_load(folder: Path) -> None:
    assert installed_model(folder) is None
    with pytest.raises(DataError, match="no model is installed"):
        load_installed(folder)


def test_a_device_must_be_provisioned(
    tmp_path: Path, repository: ReleaseRepository
) -> None:
    with pytest.raises(MisuseError, match="provision"):
        install_now(tmp_path / "new", repository.bundle())


@pytest.mark.parametrize("from_the_end", [1, 4, 8])
def test_an_installation_cut_short_is_repeated(
    folder: Path, repository: ReleaseRepository, from_the_end: int
) -> None:
    counting = CountingDisk()
    install(folder, repository.bundle(), now=kit.NOW, disk=counting)
    repository.publish(*kit.release(2), now=kit.NOW)
    # A second installation takes no more steps than the first one.
    dying = DyingDisk(counting.steps - 4 - from_the_end)
    with pytest.raises(PowerCut):
        install(folder, repository.bundle(), now=kit.NOW, disk=dying)
    assert running_version(folder) == 1
    install_now(folder, repository.bundle())
    assert running_version(folder) == 2


@pytest.mark.integration
def test_a_process_that_dies_at_any_step_leaves_the_old_or_the_new_model(
    tmp_path: Path, folder: Path
) -> None:
    keys = KeyRing.create(tmp_path / "keys", root_keys=1, root_threshold=1)
    kept = kit.published(tmp_path / "mortal", keys, 1)
    template = tmp_path / "template"
    store = kit.device(template, kept.trusted_root())
    slots = Slots(template / "slots")
    first = store.verify(kept.bundle(), now=kit.NOW)
    slots.activate(slots.stage(first).parent.name)
    slots.commit()
    kept.publish(*kit.release(2), now=kit.NOW)
    module = "tests.fedge.release.crash_child"
    arguments = [str(template), str(tmp_path / "mortal"), str(tmp_path / "keys")]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    steps = int(done.stdout)
    assert steps > 20
    devices = [tmp_path / f"device-{step}" for step in range(steps + 1)]
    # The link moves before the commit, so every death in between is recovered from.
    versions = [running_version(device) for device in devices]
    assert versions[:-2] == [1] * (steps - 1)
    assert versions[-1] == 2
    second = trust_store(devices[3]).verify(kept.bundle(), now=kit.NOW)
    assert second.passport.version == 2
