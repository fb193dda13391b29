from pathlib import Path

import pytest

from fedge.errors import DataError, MisuseError
from fedge.release.slots import Slots
from fedge.release.trust import VerifiedRelease
from tests.fedge.release import kit
from tests.fedge.release.faulty_disk import (
    CountingDisk,
    DyingDisk,
    ForgetfulDisk,
    FullDisk,
    PowerCut,
    UnsyncedDisk,
)


def verified(version: int) -> VerifiedRelease:
    return VerifiedRelease(
        kit.linear_model(kit.weights(version)), kit.release(version)[1]
    )


def switch(slots: Slots, version: int) -> None:
    staged = slots.stage(verified(version))
    slots.activate(staged.parent.name)
    slots.commit()


def running(slots: Slots) -> int:
    """The version that runs, its bytes compared; 0 for none."""
    current = slots.current()
    if current is None:
        return 0
    version = current.passport.version
    assert current.path.read_bytes() == verified(version).artifact
    return version


def device_running(folder: Path, version: int) -> Path:
    """A device folder in which `version` (0 for none) runs."""
    for earlier in range(1, version + 1):
        switch(Slots(folder, disk=UnsyncedDisk()), earlier)
    return folder


def steps_of_a_switch(folder: Path) -> int:
    disk = CountingDisk()
    switch(Slots(folder, disk=disk), 2)
    return disk.steps


def switch_until_power_cut(disk: DyingDisk, folder: Path, version: int) -> None:
    with pytest.raises(PowerCut):
        switch(Slots(folder, disk=disk), version)


def test_nothing_runs_at_first(tmp_path: Path) -> None:
    assert Slots(tmp_path / "slots").current() is None


def test_a_committed_release_runs(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    assert running(slots) == 1


def test_slots_take_turns(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    staged = []
    for version in (1, 2, 3):
        staged.append(slots.stage(verified(version)).parent.name)
        slots.activate(staged[-1])
        slots.commit()
    assert staged == ["a", "b", "a"]
    assert running(slots) == 3


def test_staging_does_not_touch_what_runs(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    slots.stage(verified(2))
    assert running(slots) == 1


def test_rollback_brings_the_previous_release_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    slots.activate(slots.stage(verified(2)).parent.name)
    assert running(slots) == 2
    slots.rollback()
    assert running(slots) == 1


def test_rollback_of_the_first_release_leaves_none(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slots.activate(slots.stage(verified(1)).parent.name)
    slots.rollback()
    assert slots.current() is None


def test_recover_undoes_what_was_not_committed(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    slots.activate(slots.stage(verified(2)).parent.name)
    assert Slots(tmp_path).recover()
    assert running(Slots(tmp_path)) == 1


def test_recover_leaves_a_committed_release_alone(tmp_path: Path) -> None:
    switch(Slots(tmp_path), 1)
    assert not Slots(tmp_path).recover()
    assert running(Slots(tmp_path)) == 1


def test_there_is_no_way_back_after_a_commit(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    switch(slots, 2)
    with pytest.raises(MisuseError, match="no switch is under way"):
        slots.rollback()


def test_commit_needs_an_activation(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no switch is under way"):
        Slots(tmp_path).commit()


def test_a_second_switch_waits_for_the_first(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    slots.activate(slots.stage(verified(1)).parent.name)
    with pytest.raises(MisuseError, match="a switch is under way"):
        slots.stage(verified(2))
    with pytest.raises(MisuseError, match="a switch is under way"):
        slots.activate("b")


@pytest.mark.parametrize("slot", ["a", "b", "..", ""])
def test_only_the_staged_slot_can_be_activated(tmp_path: Path, slot: str) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    with pytest.raises(MisuseError, match="staged"):
        slots.activate(slot)


def test_a_damaged_model_is_noticed(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    (tmp_path / "a/model.onnx").write_bytes(b"other")
    with pytest.raises(DataError, match="model is damaged"):
        slots.current()


@pytest.mark.parametrize("text", ["", "{}", '{"passport": "{}"}', "[]"])
def test_a_damaged_passport_is_noticed(tmp_path: Path, text: str) -> None:
    slots = Slots(tmp_path)
    switch(slots, 1)
    (tmp_path / "a/passport.json").write_text(text)
    with pytest.raises(DataError, match="slot a is damaged"):
        slots.current()


def test_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to("/etc")
    with pytest.raises(DataError, match="points to '/etc'"):
        Slots(tmp_path).current()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"previous": "../x"}'])
def test_a_damaged_switch_record_is_noticed(tmp_path: Path, text: str) -> None:
    (tmp_path / "switch.json").write_text(text)
    with pytest.raises(DataError, match=r"switch\.json"):
        Slots(tmp_path).recover()


@pytest.mark.parametrize("disk_kind", [DyingDisk, ForgetfulDisk])
@pytest.mark.parametrize("old", [0, 1])
def test_a_power_cut_at_any_step_leaves_the_old_or_the_new_release(
    tmp_path: Path, disk_kind: type[DyingDisk], old: int
) -> None:
    seen = []
    for step in range(steps_of_a_switch(device_running(tmp_path / "count", old))):
        folder = device_running(tmp_path / f"{step}", old)
        switch_until_power_cut(disk_kind(step), folder, 2)
        slots = Slots(folder)
        slots.recover()
        seen.append(running(slots))
        switch(slots, 3)
        assert running(slots) == 3
    # Only the very last step, forcing the commit onto the disk, may come too late.
    assert set(seen[:-1]) == {old}
    assert seen[-1] in (old, 2)


@pytest.mark.parametrize("disk_kind", [DyingDisk, ForgetfulDisk])
def test_a_power_cut_while_recovering_is_recovered_from(
    tmp_path: Path, disk_kind: type[DyingDisk]
) -> None:
    counting = CountingDisk()
    folders = [tmp_path / f"{number}" for number in range(20)]
    for folder in folders:
        switch(Slots(folder), 1)
        slots = Slots(folder)
        slots.activate(slots.stage(verified(2)).parent.name)
    Slots(folders[-1], disk=counting).recover()
    assert 5 < counting.steps < len(folders)
    for step in range(counting.steps):
        with pytest.raises(PowerCut):
            Slots(folders[step], disk=disk_kind(step)).recover()
        Slots(folders[step]).recover()
        assert running(Slots(folders[step])) == 1


@pytest.mark.parametrize("old", [0, 1])
def test_a_disk_that_fails_at_any_step_leaves_the_old_or_the_new_release(
    tmp_path: Path, old: int
) -> None:
    seen = []
    for step in range(steps_of_a_switch(device_running(tmp_path / "count", old))):
        folder = device_running(tmp_path / f"{step}", old)
        with pytest.raises(OSError, match="No space left"):
            switch(Slots(folder, disk=FullDisk(step)), 2)
        Slots(folder).recover()
        seen.append(running(Slots(folder)))
        switch(Slots(folder), 3)
        assert running(Slots(folder)) == 3
    assert set(seen) <= {old, 2}
