"""Die for real in the middle of an installation; run by test_install in a child.

`python -m tests.fedge.release.crash_child FOLDER REPOSITORY KEYS` forks one process per
step. Each verifies a release and switches to it, on a device of its own, and ends
without any cleanup at its step. Prints the number of steps.
"""

import os
import shutil
import sys
from pathlib import Path

from fedge.release.bundle import ReleaseBundle
from fedge.release.keys import KeyRing
from fedge.release.slots import Slots
from fedge.release.trust import TrustStore
from tests.fedge.release import kit
from tests.fedge.release.faulty_disk import CountingDisk

DIED = 7


class ExitingDisk(CountingDisk):
    """Ends the process in front of a step, as SIGKILL would."""

    def __init__(self, steps_left: int) -> None:
        self.steps_left = steps_left

    def before_step(self) -> None:
        super().before_step()
        if self.steps > self.steps_left:
            os._exit(DIED)


def update(device: Path, bundle: ReleaseBundle, disk: CountingDisk) -> None:
    release = TrustStore(device / "trust", disk=disk).verify(bundle, now=kit.NOW)
    slots = Slots(device / "slots", disk=disk)
    slots.activate(slots.stage(release).parent.name)
    slots.commit()


def die_at(step: int, template: Path, bundle: ReleaseBundle) -> int:
    device = template.with_name(f"device-{step}")
    shutil.copytree(template, device, symlinks=True)
    child = os.fork()
    if child == 0:
        update(device, bundle, ExitingDisk(step))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(template: Path, repository: Path, keys_folder: Path) -> None:
    bundle = kit.repository(repository, KeyRing.load(keys_folder)).bundle()
    step = 0
    while die_at(step, template, bundle) == DIED:
        step += 1
    sys.stdout.write(f"{step}\n")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
